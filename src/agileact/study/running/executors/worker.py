"""A worker process: reads groups of specs as JSON lines, runs them, writes events as JSON lines."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from agileact._common.errors import AgileactError, DataError
from agileact.study.data import dataset as data_room
from agileact.study.data.dataset import DataSet
from agileact.study.spec.trial import DataSpec, TrialSpec
from agileact.study.training.stacked import run_group


def main() -> int:
    """Serve until standard input ends or nobody reads the answers any more."""
    parser = argparse.ArgumentParser(prog="python -m agileact.study.running.executors.worker")
    parser.add_argument("--data-dir", type=Path)
    data_dir = parser.parse_args().data_dir
    # Ctrl-C reaches the whole process group; the parent decides what ends and when.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not get between the JSON lines.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(event: str, **fields: Any) -> None:
        answers.write(json.dumps({"event": event, **fields}) + "\n")
        answers.flush()

    loaded: dict[DataSpec, DataSet] = {}
    try:
        for line in sys.stdin:
            try:
                specs = [TrialSpec.from_json(text) for text in json.loads(line)]
                places = {spec: index for index, spec in enumerate(specs)}
                data = _load(specs[0].task.data, data_dir, loaded)
                results = run_group(
                    specs,
                    data,
                    lambda spec, iteration, loss, places=places: say(  # type: ignore[misc]
                        "advanced", index=places[spec], iteration=iteration, loss=loss
                    ),
                )
            except BrokenPipeError:
                raise
            except AgileactError as error:
                say("failed", reason=str(error), details="")
            except Exception as error:
                say("failed", reason=f"{type(error).__name__}: {error}", details=traceback.format_exc())
            else:
                say("finished", results=[result.to_json() for result in results])
    except BrokenPipeError:
        # The parent is gone. Leave at once: closing `answers` would fail again on what it still buffers.
        os._exit(1)
    return 0


def _load(spec: DataSpec, data_dir: Path | None, loaded: dict[DataSpec, DataSet]) -> DataSet:
    if spec not in loaded:
        data = data_room.load(spec, data_dir=data_dir)
        if spec.fingerprint and data.fingerprint != spec.fingerprint:
            raise DataError(
                f"the data {spec.name!r} is another than when the study was planned: it was changed, or it is made "
                "differently each time, from random numbers without a seed (fingerprint "
                f"{data.fingerprint}, planned with {spec.fingerprint})"
            )
        loaded[spec] = data
    return loaded[spec]


if __name__ == "__main__":
    sys.exit(main())
