"""Options that several commands share, and what they ask for: where trials run, on what a network is trained."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agileact._common.arguments import count, difference
from agileact._common.errors import ArgumentError

if TYPE_CHECKING:
    from agileact.study.spec.protocol import Study


TRAINING = ("device", "precision", "processes", "sharded")
"""Fields of a budget that a command can set for all tasks."""

_PART = "; part of what a trial is, so give it to every command of the study (default: as the study says)"
_OPTIONS: dict[str, dict[str, Any]] = {
    "out": {"type": Path, "help": "with a YAML file: folder for all results (default: runs/study/NAME)"},
    "data-dir": {"type": Path, "metavar": "DIR", "help": "folder that the data's files lie in"},
    "device": {"metavar": "NAME", "help": "cpu or cuda, for all tasks" + _PART},
    "precision": {"metavar": "NAME", "help": "fp32, or bf16 or fp16 by Accelerate" + _PART},
    "processes": {"type": int, "metavar": "N", "help": "processes that train one network together" + _PART},
    # None where it is not given: then the study's own word holds.
    "sharded": {
        "action": "store_true",
        "default": None,
        "help": "each of them keeps a part of the network (FSDP)" + _PART,
    },
    "jobs": {"type": count, "metavar": "N", "help": "trials side by side (default: one per core)"},
    "on": {
        "default": "local",
        "metavar": "WHERE",
        "help": "local (worker processes, the default), ray (a cluster of this machine) or ray://HOST:PORT",
    },
    "gpus": {
        "type": float,
        "default": 0.0,
        "metavar": "SHARE",
        "help": "with Ray and --device cuda: GPUs that a trial asks for, such as 0.25",
    },
    "matters": {"type": difference, "metavar": "X", "help": "smallest difference in loss that matters"},
    "baseline": {"metavar": "ARM", "help": "compare with this arm instead of the first one"},
    "json": {"action": "store_true", "help": "print JSON to standard output, no table"},
}
SOURCE = ("out", "data-dir", *TRAINING)
"""What finds the results of a YAML file."""
PLACE = ("jobs", "on", "gpus")


def add(parser: argparse.ArgumentParser, *names: str, **helps: str) -> None:
    """Add the options of these names; ``helps`` are texts in place of the usual ones."""
    for name in names:
        text = helps.get(name)
        parser.add_argument(f"--{name}", **{**_OPTIONS[name], **({"help": text} if text else {})})


def port(text: str) -> int:
    """Parse the number of a port."""
    with contextlib.suppress(ValueError):
        number = int(text)
        if 0 <= number <= 65535:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a port, a whole number from 0 to 65535")


def as_asked(study: Study, options: argparse.Namespace) -> Study:
    """Return the study with the device, precision, processes and sharding that the command names."""
    changes = {name: getattr(options, name) for name in TRAINING if getattr(options, name) is not None}
    if not changes:
        return study

    def changed(task: Any) -> Any:
        budget = dataclasses.replace(task.spec.budget, **changes)
        return dataclasses.replace(task, spec=dataclasses.replace(task.spec, budget=budget))

    return dataclasses.replace(study, tasks=tuple(changed(task) for task in study.tasks))


def make_executor(options: argparse.Namespace) -> Any:
    """Return where trials run, as a context manager."""
    from agileact.study.running.executors.local import LocalExecutor

    where = options.on
    if where == "local":
        if options.gpus:
            raise ArgumentError("--gpus is for --on ray; local workers take no share of a GPU")
        return LocalExecutor(options.jobs, options.data_dir)
    if where != "ray" and not where.startswith("ray://"):
        raise ArgumentError(f"--on must be local, ray or ray://HOST:PORT, not {where!r}")
    from agileact.study.running.executors.ray import RayExecutor

    address = None if where == "ray" else where
    return RayExecutor(address, jobs=options.jobs, gpus=options.gpus, data_dir=options.data_dir)
