"""A study as a command has it, with its data and its store; and running it to the end, with outcome and report."""

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agileact._common.errors import ArgumentError, TrialError
from agileact._common.files import write_atomically
from agileact._common.terminal import say
from agileact.study.commands.study import TRAINING
from agileact.study.commands.yaml_file import read_study
from agileact.study.data.dataset import DataSet
from agileact.study.report.document import write_report
from agileact.study.results.outcome import Outcome
from agileact.study.results.printing import show
from agileact.study.results.source import STORES, Source, stored, told
from agileact.study.running.budget import Limit, conduct_within
from agileact.study.running.conduct import Results, conduct, identified, unidentified
from agileact.study.running.executors import Elsewhere
from agileact.study.running.executors.local import LocalExecutor
from agileact.study.running.executors.ray import RayExecutor
from agileact.study.running.planner import Plan, plan
from agileact.study.running.progress import display, format_duration
from agileact.study.running.store import Store
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.record import FILE, Circumstances, write_record
from agileact.study.spec.user_code import CODE, UserCode
from agileact.study.statistics import detectable
from agileact.study.training.dry_run import check_arms

STATISTICS = ("scipy", "statsmodels")
"""What the verdict at the end of a study needs."""


def visible(study: Study) -> str:
    """Return which difference the planned trials can show, before anything is run; nothing if they can show none."""
    protocol = study.protocol
    seen = detectable(protocol.units, comparisons=study.comparisons) if study.comparisons else None
    if seen is None:
        return ""
    return (
        f"{protocol.units} {protocol.unit}s show a difference of {seen:.2g} standard deviations of the paired "
        "differences in 80 % of such studies, and smaller ones less often"
    )


class Context:
    """The study of a command, with its data loaded and its store's place known."""

    def __init__(self, study: Study, data: Mapping[str, DataSet], out: Path) -> None:
        self.study, self.data, self.out = study, data, out
        self.path = out / "store.sqlite"
        self._checked = False
        self._code: UserCode | None = None

    @classmethod
    def read(cls, options: argparse.Namespace, *, trains: bool = False) -> "Context":
        """Return the study of a YAML file, or of a folder of results; ``trains`` tells that its data is needed."""
        if not (options.spec.is_dir() or options.spec.suffix.lower() in STORES):
            study, data = identified(as_asked(read_study(options.spec), options), options.data_dir)
            return cls(study, data, options.out or Path("runs") / "study" / _folder(study.name))
        if options.out is not None:
            raise ArgumentError(f"--out is for a study's YAML file; {options.spec} is a folder of results already")
        # What is read alone needs no module as it is now; trials do.
        source = stored(options.spec, copies=not trains)
        recorded = as_asked(source.known()[0], options)
        if not trains:
            # Its trials are known by the data's fingerprints; the data itself may be elsewhere.
            return cls(recorded, {}, source.folder)
        study, data = identified(unidentified(recorded), options.data_dir)
        changed = [
            f"{'data' if task.spec.data != old.spec.data else 'model'} of the task {task.name!r}"
            for task, old in zip(study.tasks, recorded.tasks, strict=True)
            if task != old
        ]
        arms = zip(study.arms, recorded.arms, strict=True)
        changed += [f"activation of the arm {arm.name!r}" for arm, old in arms if arm != old]
        if changed:
            raise ArgumentError(
                f"the {changed[0]} differs from that of the results in {source.folder}; run it into another "
                "folder, from its YAML file"
            )
        return cls(study, data, source.folder)

    def notes(self) -> list[str]:
        """Return what a user must know before anything is run."""
        from agileact.study.training.stacked import alone_for_its_activation

        kept = [
            f"the samples of {name} stay divided into training and validation as they are, in every replicate"
            for name, data in self.data.items()
            if self.study.protocol.replicates > 1 and not data.mixes
        ]
        single = [
            f"{arm.name}: trials of {task.name} run one by one, as its activation computes something else in a stack"
            for task in self.study.tasks
            for arm in self.study.arms
            if alone_for_its_activation(task.spec, arm.spec)
        ]
        return [note for note in (self.study.warning(), self.study.caveat(), *kept, *single) if note]

    def check(self) -> None:
        """Try every arm on every task with a few samples, once; an ArgumentError if one cannot run."""
        if not self._checked:
            check_arms(self.study, self.data)
            self._checked = True

    def prepare(self, executor: Elsewhere) -> UserCode:
        """Tell an executor where the user's modules are as they are now, whatever becomes of the files; return them."""
        if self._code is None:
            self._code = UserCode.of(self.study)
        executor.code = self._code.write(self.out / CODE) if self._code.modules else None
        return self._code

    @property
    def source(self) -> Source:
        """Where the trials are; without a store there are none yet."""
        self.tell_of_lost_store()
        return told(self.study, self.path, begun=False)

    def tell_of_lost_store(self) -> None:
        """Say that the store is gone, if there was one: its record is written once there is a store."""
        if not self.path.exists() and (self.out / FILE).exists():
            say(f"Note: {self.path} was deleted or moved away; its trials must be run again.")

    def run(
        self, executor: Elsewhere, *, command: str = "", matters: float | None = None, limit: Limit | None = None
    ) -> Outcome:
        """Run what is missing of the study and return its outcome; each stored trial is read and checked once.

        With a limit the outcome is of the part of the study that is complete when the time is over.

        Raises:
            TrialError: If trials failed.
        """
        for task in self.study.tasks:
            say(f"{task.name}: {self.data[task.name].summary}. {self.data[task.name].description}.")
        for note in self.notes():
            say(f"Note: {note}.")
        self.tell_of_lost_store()
        with Store(self.path) as store, display(self.study) as shown, failures_kept(self.out):
            results = Results(store)
            code = self.prepare(executor)
            if not plan(self.study, results).finished:
                self.check()
            described = {name: data.description for name, data in self.data.items()}

            def record(notes: tuple[str, ...] = ()) -> Circumstances:
                return write_record(self.out, self.study, command=command, data=described, notes=notes, code=code.hash)

            # Before the first trial, so that "agileact study watch" knows what it sees.
            around = record()

            def begin(current: Plan) -> Any:
                if current.finished:
                    return None
                counts = ((len(current.tuning), "tuning"), (len(current.final), "final"))
                phase = " and ".join(f"{number} {name}" for number, name in counts if number)
                say(f"{current.done} of at most {self.study.most_trials} trials done; next: {phase}.")
                later = self.study.most_trials - current.done - len(current.next) if current.tuning else 0
                shown.plan(current.next, current.done, max(0, later))
                return shown

            if limit is None:
                conduct(self.study, store, executor, results=results, on_plan=begin)
                return Outcome(self.study, results, around, matters=matters)

            whole, said = self.study, self.study.protocol

            def batch(part: Study, current: Plan, now: int) -> Any:
                nonlocal said
                if part.protocol != said:
                    said = part.protocol
                    say(f"Planned anew, to end within {format_duration(limit.seconds)}: {_amount(said)}.")
                shown.plan(current.next[:now], current.done, max(0, part.most_trials - current.done - now))
                return shown

            part, current = conduct_within(
                limit, whole, store, executor, results=results, jobs=getattr(executor, "jobs", 1), on_plan=batch
            )
            self.study = part
            if not current.finished:
                enough = format_duration(limit.enough(part.most_trials - current.done))
                raise TrialError(
                    f"the time, {format_duration(limit.seconds)}, was over before each arm had one seed: "
                    f"{current.done} of the fewest, {part.most_trials} trials, are done and kept. Take a budget of "
                    f"about {enough}; the same command goes on"
                )
            if part != whole:
                note = (
                    f"the time, {format_duration(limit.seconds)}, was over before all that was planned was done, "
                    f"{_amount(whole.protocol)}; complete is: {_amount(part.protocol)}; the same command goes on"
                )
                say(f"Note: {note}.")
                around = record((note,))
            return Outcome(self.study, results, around, matters=matters)

    def say_one_answer(self, outcome: Outcome) -> None:
        """Say where an accuracy tells no more than which class is the largest."""
        for cell in outcome.cells:
            share = self.data[cell.task].largest_share
            if seeds := [one for one in cell.results if share and one.selected_test_accuracy == share]:
                say(
                    f"Note: {cell.task}, {cell.arm}: the accuracy of {len(seeds)} of {len(cell.results)} seeds, "
                    f"{100 * (share or 0):.2f} %, is the share of the largest class: a network that always answers it."
                )


@contextlib.contextmanager
def failures_kept(out: Path, tell: Callable[[str], None] = say) -> Iterator[None]:
    """Write what failed trials printed into ``out``/failed-trials.txt."""
    try:
        yield
    except TrialError as error:
        if error.details:
            write_atomically(out / "failed-trials.txt", error.details)
            tell(f"What the failed trials printed is in {out / 'failed-trials.txt'}.")
        raise


def keep_report(outcome: Outcome, out: Path, tell: Callable[[str], None] = say) -> Path | None:
    """Write ``out``/report.html and return its path; None if that fails, which ``tell`` hears of."""
    path = out / "report.html"
    try:
        write_report(outcome, path)
    except OSError as error:
        # Everything is stored and shown: a full disk does not undo that.
        tell(f"The report could not be written ({error.strerror or error}): agileact study report {out} -o FILE")
        return None
    return path


def _folder(name: str) -> str:
    """Return a study's name as that of one folder, whatever it holds."""
    safe = "".join("_" if character == "/" or ord(character) < 32 else character for character in name)
    return "_" if safe in (".", "..") else safe


def _amount(protocol: Protocol) -> str:
    """Return how much each arm does, in words."""
    words = [f"{protocol.replicates} replicates"] * (protocol.replicates > 1)
    words += [f"{len(protocol.seeds)} seed{'s' * (len(protocol.seeds) > 1)}"]
    words += [f"{protocol.trials} points to tune by {len(protocol.tuning_seeds)}"] * protocol.tune
    return ", ".join(words)


def carry_out(context: Context, options: argparse.Namespace, executor: Elsewhere, limit: Limit | None = None) -> None:
    """Run what is missing of a study, show the outcome, and write the report."""
    outcome = context.run(executor, command=options.command, matters=options.matters, limit=limit)
    show(outcome, as_json=options.json)
    context.say_one_answer(outcome)
    if path := keep_report(outcome, context.out):
        say(f"Report: {path}")


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
    where = options.on
    if where == "local":
        if options.gpus:
            raise ArgumentError("--gpus is for --on ray; local workers take no share of a GPU")
        return LocalExecutor(options.jobs, options.data_dir)
    if where != "ray" and not where.startswith("ray://"):
        raise ArgumentError(f"--on must be local, ray or ray://HOST:PORT, not {where!r}")
    address = None if where == "ray" else where
    return RayExecutor(address, jobs=options.jobs, gpus=options.gpus, data_dir=options.data_dir)
