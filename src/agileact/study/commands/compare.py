"""agileact compare: arms on a network and data of one's own, within a time."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agileact._common.arguments import difference
from agileact._common.errors import ArgumentError
from agileact._common.files import write_atomically
from agileact._common.optional import expect
from agileact.study.commands.context import STATISTICS, Context, carry_out, say
from agileact.study.commands.placement import add_place, add_training, as_asked


def add_command(commands: Any, count: Callable[[str], int]) -> None:
    """Add ``agileact compare``.

    Args:
        commands: The subparsers of the main command.
        count: Parses a whole number greater than 0.
    """
    parser = commands.add_parser(
        "compare",
        help="compare activations on your own model and data, within a time",
        description="Compare activations on your own model and data under the fair protocol. The model's activations "
        "are exchanged for each arm's, functional ones too; the first arm is the baseline. The cost is estimated "
        "first, and as many trials are planned as fit into the budget; the end is a verdict.",
    )

    def seconds(text: str) -> float:
        from agileact.study.commands.compare_plan import duration

        with contextlib.suppress(ValueError):
            return duration(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 30m or 1.5h")

    parser.add_argument("--model", required=True, metavar="PKG.MODULE:FUNCTION", help="returns the network")
    parser.add_argument("--data", required=True, metavar="PKG.MODULE:FUNCTION", help="returns pairs (inputs, targets)")
    parser.add_argument(
        "--arms", required=True, metavar="A,B", help="such as original,agile-relu,prelu; see agileact.study.spec.arms"
    )
    parser.add_argument(
        "--budget", type=seconds, default=1800.0, metavar="TIME", help="such as 90s, 30m or 1.5h (default: 30m)"
    )
    parser.add_argument(
        "--iterations", type=count, default=1000, metavar="N", help="steps of a trial (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=count, default=100, metavar="N", help="samples a step (default: %(default)s)"
    )
    parser.add_argument(
        "--validation", type=count, default=500, metavar="N", help="samples to set aside (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="folder for all results (default: runs/compare)")
    parser.add_argument("--jobs", type=count, metavar="N", help="trials side by side (default: one per core)")
    add_place(parser)
    add_training(parser)
    parser.add_argument("--matters", type=difference, metavar="X", help="smallest difference in loss that matters")
    parser.add_argument("--json", action="store_true", help="print JSON to standard output, no table")
    parser.set_defaults(run=_compare, data_dir=None, resumes=True)


def _compare(options: argparse.Namespace) -> None:
    from agileact.study import models
    from agileact.study.commands import compare_plan as compare
    from agileact.study.running.conduct import identified
    from agileact.study.running.cost import estimate
    from agileact.study.running.executors.local import available_cores
    from agileact.study.running.planner import plan
    from agileact.study.running.progress import format_duration
    from agileact.study.spec.arms import arm
    from agileact.study.training.dry_run import check_arms

    expect("study", *STATISTICS)
    names = [name.strip() for name in options.arms.split(",") if name.strip()]
    if len(set(names)) < 2:
        raise ArgumentError(f"--arms must name at least two different arms, not {options.arms!r}")
    study = compare.proposed(
        [arm(name) for name in dict.fromkeys(names)],
        options.model,
        options.data,
        fingerprint=models.model_fingerprint(options.model),
        iterations=options.iterations,
        batch_size=options.batch_size,
        validation=options.validation,
    )
    study, data = identified(as_asked(study, options), options.data_dir)
    context = Context(study, data, options.out or Path("runs") / "compare")
    jobs = options.jobs or available_cores()
    check_arms(context.study, context.data)
    seconds = _remembered(
        context,
        lambda: estimate(context.study, plan(context.study, lambda spec: None), context.data, jobs).trial_seconds,
    )
    context.study = compare.fitted(context.study, seconds, options.budget, jobs)
    protocol = context.study.protocol
    points, runs = protocol.trials, len(protocol.tuning_seeds)
    whole = compare.START_SECONDS + sum(seconds.values()) * (points * runs + len(protocol.seeds)) / jobs
    say(
        f"{len(names)} arms: each {points} points to tune, {runs} seeds a point, and {len(protocol.seeds)} fresh ones; "
        f"about {format_duration(whole)} on {jobs} core(s), within {format_duration(options.budget)}."
    )
    carry_out(context, options)


def _remembered(context: Context, measure: Callable[[], dict[tuple[str, str], float]]) -> dict[tuple[str, str], float]:
    """Return measured seconds; the same ones when the command is repeated, or it would plan other trials."""
    path = context.out / "cost.json"
    wanted = [[arm.name, task.name, repr(task.spec)] for task in context.study.tasks for arm in context.study.arms]
    if path.exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            known = json.loads(path.read_text())
            if [row[:3] for row in known] == wanted:
                return {(row[0], row[1]): float(row[3]) for row in known}
    found = measure()
    rows = [[*row, found[row[0], row[1]]] for row in wanted]
    write_atomically(path, json.dumps(rows, indent=1) + "\n")
    return found
