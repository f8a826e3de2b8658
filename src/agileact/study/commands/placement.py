"""Options of commands that run trials: where they run, and on what a network is trained."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from agileact._common.errors import ArgumentError

if TYPE_CHECKING:
    from agileact.study.spec.protocol import Study


TRAINING = ("device", "precision", "processes", "sharded")
"""What :func:`add_training` adds: fields of a budget."""


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where trials run."""
    parser.add_argument(
        "--on",
        default="local",
        metavar="WHERE",
        help="local (worker processes, the default), ray (a cluster of this machine) or ray://HOST:PORT",
    )
    parser.add_argument(
        "--gpus",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="with Ray and --device cuda: GPUs that a trial asks for, such as 0.25",
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the options that say on what, how exactly and in how many processes a network is trained."""
    text = "; part of what a trial is, so give it to every command of the study (default: as the study says)"
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda, for all tasks" + text)
    parser.add_argument("--precision", metavar="NAME", help="fp32, or bf16 or fp16 by Accelerate" + text)
    parser.add_argument("--processes", type=int, metavar="N", help="processes that train one network together" + text)
    # None where it is not given: then the study's own word holds.
    parser.add_argument(
        "--sharded", action="store_true", default=None, help="each of them keeps a part of the network (FSDP)" + text
    )


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
