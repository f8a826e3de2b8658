"""A worker process: reads groups of specs as JSON lines, runs them, writes events as JSON lines."""

import argparse
import functools
import gc
import json
import os
import sys
from pathlib import Path

from agileact._common.errors import DataError
from agileact.study.data import dataset as data_room
from agileact.study.data.dataset import DataSet
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import DataSpec, TrialSpec
from agileact.study.training import child_process
from agileact.study.training.stacked import run_group


def main() -> int:
    """Serve until standard input ends or nobody reads the answers any more."""
    parser = argparse.ArgumentParser(prog="python -m agileact.study.running.executors.worker")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--aside", action="store_true", help="evaluate on a second core while a network trains")
    options = parser.parse_args()
    data_dir = options.data_dir
    say = child_process.answering()
    gc.freeze()  # what was imported stays; nobody need look through it again while networks are trained
    loaded: dict[DataSpec, DataSet] = {}

    def run(texts: list[str]) -> list[TrialResult]:
        specs = [TrialSpec.from_json(text) for text in texts]
        for planned in dict.fromkeys(spec.task.data for spec in specs):
            if planned not in loaded:
                loaded[planned] = data_room.load(planned, data_dir=data_dir)
                check_data(planned, loaded[planned].fingerprint)
        places = {spec: index for index, spec in enumerate(specs)}
        return run_group(
            specs,
            loaded,
            lambda spec, iteration, loss: say("advanced", index=places[spec], iteration=iteration, loss=loss),
            aside=options.aside,
        )

    try:
        for line in sys.stdin:
            say(**child_process.outcome(functools.partial(run, json.loads(line))))
    except BrokenPipeError:
        # The parent is gone. Leave at once: closing the answers would fail again on what they still buffer.
        os._exit(1)
    return 0


def check_data(planned: DataSpec, found: str) -> None:
    """Raise if the data are not those that the study was planned with."""
    if planned.fingerprint and found != planned.fingerprint:
        raise DataError(
            f"the data {planned.name!r} is not the one that the study was planned with: it was changed, or it is made "
            f"differently each time, from random numbers without a seed (fingerprint {found}, planned with "
            f"{planned.fingerprint})"
        )


if __name__ == "__main__":
    sys.exit(main())
