"""agileact study: plan, run, watch and export a study."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agileact._common.arguments import difference
from agileact._common.errors import ArgumentError
from agileact._common.files import write_atomically
from agileact._common.optional import expect
from agileact._common.terminal import print_json
from agileact.study.commands import compare as compare_command
from agileact.study.commands import report as report_command
from agileact.study.commands.context import STATISTICS, Context, carry_out, say
from agileact.study.commands.placement import add_place, add_training


def add_command(commands: Any, count: Callable[[str], int]) -> None:
    """Add ``agileact study`` and ``agileact compare``.

    Args:
        commands: The subparsers of the main command.
        count: Parses a whole number greater than 0.
    """
    parser = commands.add_parser(
        "study",
        help="compare activations fairly: arms x tasks x seeds from a YAML file",
        description="Compare activations under the fair protocol: every arm has the same tuning budget, final trials "
        "use fresh paired seeds, the iteration is chosen on validation data and the test set is evaluated once per "
        "trial. Every finished trial is stored at once in OUT/store.sqlite; the same command continues a study that "
        "was cut short.",
    )
    from agileact.study.running import rescue

    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, run, text in (
        ("plan", _plan, "print what would run and how long it would take, without running it"),
        ("run", _run, "run what is missing, then show the outcome"),
        ("status", _status, "print how far the study is, also while it runs"),
        ("show", _show, "print the outcome so far: tables and verdicts"),
        ("export", _export, "write one row for every finished trial, as CSV or Parquet"),
    ):
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.add_argument(
            "spec", type=Path, metavar="SPEC", help="the study's YAML file, or the folder of its results"
        )
        action.add_argument(
            "--out", type=Path, help="with a YAML file: folder for all results (default: runs/study/NAME)"
        )
        action.add_argument("--data-dir", type=Path, metavar="DIR", help="folder that the data's files lie in")
        add_training(action)
        if name in ("plan", "run"):
            action.add_argument("--jobs", type=count, metavar="N", help="trials side by side (default: one per core)")
        if name == "run":
            add_place(action)
        if name in ("run", "show"):
            action.add_argument(
                "--matters", type=difference, metavar="X", help="smallest difference in loss that matters"
            )
        if name == "show":
            action.add_argument("--baseline", metavar="ARM", help="compare with this arm instead of the first one")
        what = "rows as JSON to standard output, besides a file or alone" if name == "export" else None
        action.add_argument("--json", action="store_true", help=f"print {what or 'JSON to standard output, no table'}")
        if name == "export":
            kind = action.add_mutually_exclusive_group()
            kind.add_argument("--csv", type=Path, metavar="FILE", help="write CSV; - for standard output")
            kind.add_argument("--parquet", type=Path, metavar="FILE", help="write Parquet (needs pyarrow)")
        action.set_defaults(run=run, resumes=name == "run")
    rescue.add_action(actions)
    report_command.add_actions(actions, lambda options: Context.read(options).identity)
    compare_command.add_command(commands, count)


def _plan(options: argparse.Namespace) -> None:
    from agileact._common.terminal import print_table
    from agileact.study.running.cost import estimate
    from agileact.study.running.executors.local import available_cores
    from agileact.study.running.progress import format_duration
    from agileact.study.training.dry_run import check_arms

    context = Context.read(options, trains=True)
    study, jobs = context.study, options.jobs or available_cores()
    check_arms(study, context.data)
    with context.planned() as (current, _):
        cost = estimate(study, current, context.data, jobs)
    protocol = study.protocol
    tuning = protocol.trials * len(protocol.tuning_seeds) if protocol.tune else 0
    if options.json:
        document = {
            "study": study.name,
            "trials": study.most_trials,
            "done": current.done,
            "next": [spec.key for spec in current.next],
            "jobs": jobs,
            "seconds": cost.seconds,
            "least_seeds": study.least_seeds,
            "trial_seconds": [[*pair, seconds] for pair, seconds in cost.trial_seconds.items()],
        }
        print_json(document)
        return
    rows = [
        (task.name, arm.name, str(tuning), str(len(protocol.seeds)), f"{cost.trial_seconds[arm.name, task.name]:.1f}")
        for task in study.tasks
        for arm in study.arms
    ]
    print_table(study.name, ("task", "arm", "tuning trials", "final trials", "seconds a trial"), rows, keys=2)
    for task in study.tasks:
        print(f"{task.name}: {context.data[task.name].description}.")
    print(
        f"At most {study.most_trials} trials, {current.done} of them done; about {format_duration(cost.seconds)} on "
        f"{jobs} core(s). {len(current.next)} can run now."
    )
    if warning := study.warning():
        print(f"Note: {warning}.")


def _run(options: argparse.Namespace) -> None:
    expect("study", *STATISTICS)
    carry_out(Context.read(options, trains=True), options)


def _status(options: argparse.Namespace) -> None:
    context = Context.read(options)
    with context.planned() as (current, _):
        most = context.study.most_trials
        pairs = len(context.study.arms) * len(context.study.tasks)
        if options.json:
            document = {
                "study": context.study.name,
                "trials": most,
                "done": current.done,
                "tuned": len(current.choices),
                "pairs": pairs,
                "finished": current.finished,
            }
            print_json(document)
            return
        state = "finished" if current.finished else f"{len(current.next)} can run now"
        tuned = f"{len(current.choices)} of {pairs} pairs of arm and task are tuned; " * context.study.protocol.tune
        print(f"{context.study.name}: {current.done} of at most {most} trials done; {tuned}{state}.")
        for choice in current.choices.values():
            if choice.flags:
                print(f"{choice.task}, {choice.arm}: {'; '.join(choice.flags)}.")


def _show(options: argparse.Namespace) -> None:
    from agileact.study.results.printing import show

    context = Context.read(options)
    study = context.study if options.baseline is None else context.study.against(options.baseline)
    with context.planned() as (current, known):
        show(study, current, known, as_json=options.json, matters=options.matters)


def _export(options: argparse.Namespace) -> None:
    from agileact.study.results import outcome
    from agileact.study.results.export import to_csv, to_parquet

    if options.csv is None and options.parquet is None and not options.json:
        raise ArgumentError("nothing to export to: give --csv FILE, --parquet FILE or --json")
    if options.json and str(options.csv) == "-":
        raise ArgumentError("--csv - and --json would both print to standard output; give one of them a file")
    context = Context.read(options)
    with context.planned() as (current, known):
        rows = outcome.trial_rows(context.study, current, known)
    if options.parquet is not None:
        write_atomically(options.parquet, to_parquet(rows))
    elif str(options.csv) == "-":
        sys.stdout.write(to_csv(rows))
        return
    elif options.csv is not None:
        write_atomically(options.csv, to_csv(rows))
    file = options.parquet or options.csv
    if file is not None:
        say(f"{len(rows)} trials written to {file}.")
    if options.json:
        print_json({"study": context.study.name, "file": file, "trials": rows})
