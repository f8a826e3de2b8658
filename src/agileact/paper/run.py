"""The experiment from data to figures; what `agileact paper` calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agileact._common.errors import TrialError
from agileact._common.files import write_atomically
from agileact.paper import table as paper_table
from agileact.paper.outputs import results_document, table_document, write_outputs
from agileact.paper.reading import sentences
from agileact.paper.recipe import Recipe
from agileact.paper.xor import XorSpec, run_xor
from agileact.study import models
from agileact.study.data import dataset as data_room
from agileact.study.report.source import stored, write_report
from agileact.study.running.executors.local import LocalExecutor
from agileact.study.running.progress import display
from agileact.study.running.runner import run_study
from agileact.study.running.store import Store
from agileact.study.spec.record import write_record
from agileact.study.spec.trial import DataSpec, TrialSpec

FIGURE_4 = XorSpec(starts=20, epochs=1000, lr=0.1)
"""Enough to have one solved network to draw; `agileact xor` is the comparison."""


@dataclass(frozen=True)
class PaperOutcome:
    """A finished run: its table, its reading, its document and the files that were written."""

    rows: list[paper_table.Row]
    reading: list[str]
    document: dict[str, Any]
    files: list[Path]
    description: str


def run_paper(
    recipe: Recipe,
    out: Path,
    *,
    jobs: int | None = None,
    data_dir: Path | None = None,
    command: str = "agileact paper",
    notify: Callable[[str], None] = lambda text: None,
) -> PaperOutcome:
    """Run the trials of ``recipe`` that ``out`` does not hold yet, and write table, results and figures.

    Args:
        recipe: What to run.
        out: Folder for the store and everything that is written; a run that was cut short continues here.
        jobs: Trials side by side; None for one per core.
        data_dir: Folder with the official test digits, for the data set ``mnist5k``.
        command: What was typed; stands in the table's file.
        notify: Receives a line on each step for people.

    Raises:
        AgileactError: If the data cannot be had, the store is not usable or a trial failed.
    """
    executor = LocalExecutor(jobs, data_dir)
    data = data_room.load(DataSpec(recipe.data, recipe.validation), data_dir=data_dir)
    trials = recipe.trials(data.fingerprint)
    _build_one_of_each(trials, data)
    with Store(out / "store.sqlite") as store:
        missing = [spec for spec in trials if spec not in store]
        notify(f"Data: {data.description}.")
        known = f", {len(trials) - len(missing)} of them stored already" if len(missing) < len(trials) else ""
        notify(f"{len(trials)} trials{known}; {min(executor.jobs, max(len(missing), 1))} side by side.")
        # Before the first trial, so that "agileact study watch" knows what it sees.
        study = recipe.study(data.fingerprint)
        write_record(out, study, command=command, data={study.tasks[0].name: data.description}, notes=_notes(recipe))
        try:
            with display(study) as show:
                show.plan(missing, len(trials) - len(missing))
                results = run_study(trials, store, executor, show)
        except TrialError as error:
            if error.details:
                log = out / "failed-trials.txt"
                write_atomically(log, error.details)
                notify(f"What the failed trials printed is in {log}.")
            raise
    rows = paper_table.rows(results)
    reading = sentences(results, rows)
    document = results_document(
        results, recipe, description=data.description, fingerprint=data.fingerprint, reading=reading
    )
    table = table_document(rows, recipe, description=data.description, reading=reading, command=command)
    xor = run_xor(FIGURE_4)
    files = write_outputs(out, results, document, table, xor=xor, notify=notify)
    try:
        write_report(stored(out), out / "report.html")
    except OSError as error:
        notify(f"The report could not be written ({error.strerror or error}): agileact study report {out} -o FILE")
    else:
        files.append(out / "report.html")
    return PaperOutcome(rows, reading, document, files, data.description)


def _notes(recipe: Recipe) -> tuple[str, ...]:
    """Return what a reader of the report must know."""
    rate = f"All arms were trained with the learning rate {recipe.lr:g}, as in the paper; none was tuned."
    if not recipe.figure_11:
        return (rate,)
    names = " and ".join(recipe.figure_11)
    return (
        rate,
        f"The fully connected networks of Fig. 11 ({names}) are in results.json and in the figures, not here.",
    )


def _build_one_of_each(trials: list[TrialSpec], data: data_room.DataSet) -> None:
    """Build each network once, so that an option that does not fit is one error before any training."""
    shape = tuple(data.train_x.shape[1:])
    for task, arm in dict.fromkeys((spec.task.model, spec.arm) for spec in trials):
        models.build(task, arm, input_shape=shape, classes=data.classes, seed=0)
