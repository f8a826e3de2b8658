"""A study as a command has it, with its data and its store; and running it to the end, with outcome and report."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agileact._common.errors import ArgumentError, TrialError
from agileact._common.files import write_atomically
from agileact.study.commands.placement import as_asked, make_executor

if TYPE_CHECKING:
    from agileact.study.data.dataset import DataSet
    from agileact.study.running.planner import Lookup, Plan
    from agileact.study.spec.protocol import Study


class Context:
    """The study of a command, with its data loaded and its store's place known."""

    def __init__(self, study: Study, data: Mapping[str, DataSet], out: Path) -> None:
        self.study, self.data, self.out = study, data, out
        self.path = out / "store.sqlite"

    @classmethod
    def read(cls, options: argparse.Namespace, *, trains: bool = False) -> Context:
        """Return the study of a YAML file, or of a folder of results; ``trains`` tells that its data is needed."""
        from agileact.study.commands.yaml_file import read_study
        from agileact.study.report.source import stored
        from agileact.study.running.conduct import identified, unidentified

        if not (options.spec.is_dir() or options.spec.suffix.lower() in (".sqlite", ".db")):
            study, data = identified(as_asked(read_study(options.spec), options), options.data_dir)
            return cls(study, data, options.out or Path("runs") / "study" / _folder(study.name))
        if options.out is not None:
            raise ArgumentError(f"--out is for a study's YAML file; {options.spec} is a folder of results already")
        source = stored(options.spec)
        recorded = as_asked(source.known()[0], options)
        if not trains:
            # Its trials are known by the data's fingerprints; the data itself may be elsewhere.
            return cls(recorded, {}, source.folder)
        study, data = identified(unidentified(recorded), options.data_dir)
        for task, old in zip(study.tasks, recorded.tasks, strict=True):
            if task != old:
                what = "data" if task.spec.data != old.spec.data else "model"
                raise ArgumentError(
                    f"the {what} of the task {task.name!r} is not what the results in {source.folder} were made with; "
                    "a study of another one goes into another folder, from its YAML file"
                )
        return cls(study, data, source.folder)

    @property
    def identity(self) -> tuple[Study, Path]:
        """The study, with the fingerprints of its data, and its store's file."""
        return self.study, self.path

    @contextlib.contextmanager
    def planned(self) -> Any:
        """Yield plan and lookup, from the store if there is one, without locking it."""
        from agileact.study.running.conduct import Known
        from agileact.study.running.planner import plan
        from agileact.study.running.store import Store

        # An empty file is what a runner leaves that was killed before it had made its store.
        if not self.path.exists() or self.path.stat().st_size == 0:
            yield plan(self.study, lambda spec: None), lambda spec: None
            return
        with Store(self.path, read_only=True) as store:
            known = Known(store)
            yield plan(self.study, known), known


def _folder(name: str) -> str:
    """Return a study's name as that of one folder, whatever it holds."""
    safe = "".join("_" if character == "/" or ord(character) < 32 else character for character in name)
    return "_" if safe in (".", "..") else safe


def say(text: str) -> None:
    """Tell the user something that is no result."""
    print(text, file=sys.stderr, flush=True)


STATISTICS = ("scipy", "statsmodels")
"""What the verdict at the end of a study needs."""


def carry_out(context: Context, options: argparse.Namespace) -> None:
    """Run what is missing of a study, show the outcome, and write the report.

    Raises:
        TrialError: If trials failed.
    """
    from agileact.study.report.source import told, write_report
    from agileact.study.results.printing import show
    from agileact.study.running.conduct import Known, conduct
    from agileact.study.running.planner import plan
    from agileact.study.running.progress import display
    from agileact.study.running.store import Store
    from agileact.study.spec.record import write_record
    from agileact.study.training.dry_run import check_arms

    for task in context.study.tasks:
        say(f"{task.name}: {context.data[task.name].summary}. {context.data[task.name].description}.")
    if warning := context.study.warning():
        say(f"Note: {warning}.")
    with (
        Store(context.path) as store,
        make_executor(options) as executor,
        display(context.study) as shown,
    ):
        if not plan(context.study, Known(store)).finished:
            check_arms(context.study, context.data)
        described = {name: data.description for name, data in context.data.items()}
        write_record(context.out, context.study, command=options.command, data=described)

        def begin(current: Plan) -> Any:
            if current.finished:
                return None
            counts = ((len(current.tuning), "tuning"), (len(current.final), "final"))
            phase = " and ".join(f"{number} {name}" for number, name in counts if number)
            say(f"{current.done} of at most {context.study.most_trials} trials done; next: {phase}.")
            later = context.study.most_trials - current.done - len(current.next) if current.tuning else 0
            shown.plan(current.next, current.done, max(0, later))
            return shown

        try:
            current = conduct(context.study, store, executor, on_plan=begin)
        except TrialError as error:
            if error.details:
                write_atomically(context.out / "failed-trials.txt", error.details)
                say(f"What the failed trials printed is in {context.out / 'failed-trials.txt'}.")
            raise
        show(context.study, current, Known(store), as_json=options.json, matters=options.matters)
        say_one_answer(context, current, Known(store))
    try:
        write_report(told(*context.identity), context.out / "report.html", matters=options.matters)
    except OSError as error:
        # Everything is stored and shown: a full disk does not undo that.
        say(f"The report could not be written ({error.strerror or error}): agileact study report {context.out} -o FILE")
    else:
        say(f"Report: {context.out / 'report.html'}")


def say_one_answer(context: Context, current: Plan, known: Lookup) -> None:
    """Say where an accuracy tells no more than which class is the largest."""
    from agileact.study.results.idle import one_answer_seeds
    from agileact.study.running.planner import final_trials

    for task in context.study.tasks:
        share = context.data[task.name].largest_share
        for arm in context.study.arms:
            choice = current.choices.get((arm.name, task.name))
            specs = final_trials(context.study.protocol, arm, task, None if choice is None else choice.point)
            seeds = one_answer_seeds([result for spec in specs if (result := known(spec)) is not None], share)
            if seeds:
                say(
                    f"Note: {task.name}, {arm.name}: the accuracy of {len(seeds)} of {len(specs)} seeds, "
                    f"{100 * (share or 0):.2f} %, is the share of the largest class: a network that always answers it."
                )
