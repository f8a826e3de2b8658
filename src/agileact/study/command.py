"""agileact study: plan, run, watch and export a study."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agileact._errors import TrialError
from agileact._files import write_atomically
from agileact._optional import require


def add_command(commands: Any, count: Callable[[str], int]) -> None:
    """Add the subcommands of ``agileact study``.

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
    parser.set_defaults(run=lambda options: parser.print_help())
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    for name, run, text in (
        ("plan", _plan, "print what would run and how long it would take, without running it"),
        ("run", _run, "run what is missing, then show the outcome"),
        ("status", _status, "print how far the study is, also while it runs"),
        ("show", _show, "print the outcome so far: tables and verdicts"),
        ("export", _export, "write one row for every finished trial, as CSV or Parquet"),
    ):
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.add_argument("spec", type=Path, metavar="SPEC", help="the study's YAML file")
        action.add_argument("--out", type=Path, help="folder for all results (default: runs/study/NAME)")
        action.add_argument("--data-dir", type=Path, metavar="DIR", help="folder that the data's files lie in")
        if name in ("plan", "run"):
            action.add_argument("--jobs", type=count, metavar="N", help="trials side by side (default: one per core)")
        if name in ("run", "show"):
            action.add_argument("--matters", type=float, metavar="X", help="smallest difference in loss that matters")
        if name in ("plan", "run", "status", "show"):
            action.add_argument("--json", action="store_true", help="print JSON to standard output, no table")
        if name == "export":
            kind = action.add_mutually_exclusive_group(required=True)
            kind.add_argument("--csv", type=Path, metavar="FILE", help="write CSV; - for standard output")
            kind.add_argument("--parquet", type=Path, metavar="FILE", help="write Parquet (needs pyarrow)")
        action.set_defaults(run=run)


class _Context:
    """The study of a command: read, its data loaded, its store's place known."""

    def __init__(self, options: argparse.Namespace) -> None:
        from agileact.study.conduct import identified
        from agileact.study.spec_file import read_study

        self.study, self.data = identified(read_study(options.spec), options.data_dir)
        self.out: Path = options.out or Path("runs/study") / self.study.name
        self.path = self.out / "store.sqlite"

    @contextlib.contextmanager
    def planned(self) -> Any:
        """Yield plan and lookup, from the store if there is one, without locking it."""
        from agileact.study.conduct import Known
        from agileact.study.protocol import plan
        from agileact.study.store import Store

        if not self.path.exists():
            yield plan(self.study, lambda spec: None), lambda spec: None
            return
        with Store(self.path, read_only=True) as store:
            known = Known(store)
            yield plan(self.study, known), known


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _plan(options: argparse.Namespace) -> None:
    from agileact._table import print_table
    from agileact.study.cost import estimate
    from agileact.study.executors.local import available_cores
    from agileact.study.progress import format_duration

    context = _Context(options)
    study, jobs = context.study, options.jobs or available_cores()
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
            "trial_seconds": [[*pair, seconds] for pair, seconds in cost.trial_seconds.items()],
        }
        print(json.dumps(document, indent=1))
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


def _run(options: argparse.Namespace) -> None:
    from agileact.study.conduct import Known, conduct
    from agileact.study.executors.local import LocalExecutor
    from agileact.study.progress import display
    from agileact.study.store import Store

    context = _Context(options)
    executor = LocalExecutor(options.jobs, options.data_dir)
    for task in context.study.tasks:
        _say(f"{task.name}: {context.data[task.name].description}.")
    with Store(context.path) as store, contextlib.ExitStack() as shown:

        def begin(current: Any) -> Any:
            shown.close()
            if current.finished:
                return None
            phase = " and ".join(
                f"{len(specs)} {name}"
                for name, specs in (("tuning", current.tuning), ("final", current.final))
                if specs
            )
            _say(f"{current.done} of at most {context.study.most_trials} trials done; next: {phase}.")
            return shown.enter_context(display(current.next))

        try:
            current = conduct(context.study, store, executor, on_plan=begin)
        except TrialError as error:
            if error.details:
                write_atomically(context.out / "failed-trials.txt", error.details)
                _say(f"What the failed trials printed is in {context.out / 'failed-trials.txt'}.")
            raise
        _report(context, current, Known(store), options)


def _status(options: argparse.Namespace) -> None:
    context = _Context(options)
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
            print(json.dumps(document, indent=1))
            return
        state = "finished" if current.finished else f"{len(current.next)} can run now"
        tuned = f"{len(current.choices)} of {pairs} pairs of arm and task are tuned; " * context.study.protocol.tune
        print(f"{context.study.name}: {current.done} of at most {most} trials done; {tuned}{state}.")
        for choice in current.choices.values():
            if choice.flags:
                print(f"{choice.task}, {choice.arm}: {'; '.join(choice.flags)}.")


def _show(options: argparse.Namespace) -> None:
    context = _Context(options)
    with context.planned() as (current, known):
        _report(context, current, known, options)


def _report(context: _Context, current: Any, known: Any, options: argparse.Namespace) -> None:
    from agileact._table import print_table
    from agileact.study import outcome

    study = context.study
    found = outcome.cells(study, current, known)
    compared = outcome.comparisons(study, found, matters=options.matters)
    ranks = outcome.ranking(study, found)
    if options.json:
        document = {
            "study": study.name,
            "finished": current.finished,
            "rows": [dict(zip(outcome.HEADER, outcome.row(cell), strict=True)) for cell in found],
            "verdicts": [
                {
                    "task": one.task,
                    "arm": one.arm,
                    "decision": one.verdict.decision,
                    "sentence": one.verdict.sentence,
                    "p": one.verdict.p_value,
                    "time": one.times,
                    "time_p": one.faster,
                }
                for one in compared
            ],
            "flags": [[c.task, c.arm, *c.flags] for c in current.choices.values() if c.flags],
            "ranks": None if ranks is None else dict(zip((a.name for a in study.arms), ranks.ranks, strict=True)),
        }
        print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))
        return
    print_table(study.name, outcome.HEADER, [outcome.row(cell) for cell in found], keys=2)
    print()
    for one in compared:
        print(f"{one.task}: {one.verdict.sentence}")
        p = "" if one.faster is None else f" (paired permutation test p = {one.faster:.2g})"
        print(f"  Time {one.times}{p}.")
    for choice in current.choices.values():
        if choice.flags:
            print(f"Note, {choice.task}, {choice.arm}: {'; '.join(choice.flags)}.")
    if ranks is not None:
        order = sorted(zip(ranks.ranks, (arm.name for arm in study.arms), strict=True))
        print(
            f"Average ranks over {len(study.tasks)} tasks: "
            + ", ".join(f"{name} {rank:.2f}" for rank, name in order)
            + f"; ranks closer than {ranks.critical_difference:.2f} are not told apart (Nemenyi)."
        )
    if not current.finished:
        print(f"Not finished: {current.done} of at most {study.most_trials} trials are done.")


def _export(options: argparse.Namespace) -> None:
    from agileact.study import outcome

    context = _Context(options)
    with context.planned() as (current, known):
        rows = outcome.trial_rows(context.study, current, known)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if options.parquet is not None:
        arrow, parquet = require("pyarrow", "study"), require("pyarrow.parquet", "study")
        columns = {name: [row.get(name) for row in rows] for name in names}
        buffer = io.BytesIO()
        parquet.write_table(arrow.table(columns), buffer)
        write_atomically(options.parquet, buffer.getvalue())
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        if str(options.csv) == "-":
            sys.stdout.write(text.getvalue())
            return
        write_atomically(options.csv, text.getvalue())
    _say(f"{len(rows)} trials written to {options.parquet or options.csv}.")
