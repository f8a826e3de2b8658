"""The experiment from data to figures, and what it leaves behind: results.json, table.md, the figures, the report."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agileact._common.files import write_atomically
from agileact._common.machine import hardware, versions
from agileact._common.terminal import format_json
from agileact.paper import table as paper_table
from agileact.paper.figures import draw_all
from agileact.paper.recipe import Recipe
from agileact.paper.xor import XorSpec, run_xor
from agileact.study import models
from agileact.study.commands.context import failures_kept, keep_report
from agileact.study.data import dataset as data_room
from agileact.study.results.outcome import Outcome
from agileact.study.running.executors.local import LocalExecutor
from agileact.study.running.progress import display
from agileact.study.running.runner import run_study
from agileact.study.running.store import Store
from agileact.study.spec.record import write_record
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import DataSpec

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

    A run that was cut short continues in its folder. ``data_dir`` has the official test digits, for the data set
    ``mnist5k``; ``command`` is what was typed, which the table's file shows; ``notify`` gets a line on each step.
    """
    executor = LocalExecutor(jobs, data_dir)
    data = data_room.load(DataSpec(recipe.data, recipe.validation), data_dir=data_dir)
    trials, study = recipe.trials(data.fingerprint), recipe.study(data.fingerprint)
    # An option that does not fit is one error before any training.
    for task, arm in dict.fromkeys((spec.task.model, spec.arm) for spec in trials):
        models.build(task, arm, input_shape=tuple(data.train_x.shape[1:]), classes=data.classes, seed=0)
    with Store(out / "store.sqlite") as store, failures_kept(out, notify):
        missing = [spec for spec in trials if spec not in store]
        notify(f"Data: {data.description}.")
        known = f", {len(trials) - len(missing)} of them stored already" if len(missing) < len(trials) else ""
        notify(f"{len(trials)} trials{known}; {min(executor.jobs, max(len(missing), 1))} side by side.")
        # Before the first trial, so that "agileact study watch" knows what it sees.
        described = {study.tasks[0].name: data.description}
        around = write_record(out, study, command=command, data=described, notes=_notes(recipe))
        with display(study) as show:
            show.plan(missing, len(trials) - len(missing))
            results = run_study(trials, store, executor, show)
    rows = paper_table.rows(results)
    reading = paper_table.sentences(results, rows)
    document = results_document(
        results, recipe, description=data.description, fingerprint=data.fingerprint, reading=reading
    )
    table = table_document(rows, recipe, description=data.description, reading=reading, command=command)
    files = [out / "results.json", out / "table.md"]
    for file, content in zip(files, (format_json(document) + "\n", table), strict=True):
        write_atomically(file, content)
    files += draw_all(results, out / "figures", dataset=recipe.data, xor=run_xor(FIGURE_4), notify=notify)
    outcome = Outcome(study, {result.spec: result for result in results}.get, around)
    if report := keep_report(outcome, out, notify):
        files.append(report)
    return PaperOutcome(rows, reading, document, files, data.description)


def _notes(recipe: Recipe) -> tuple[str, ...]:
    rate = f"All arms were trained with the learning rate {recipe.lr:g}, as in the paper; none was tuned."
    others = f"The fully connected networks of Fig. 11 ({' and '.join(recipe.figure_11)}) are in results.json and in "
    return (rate, f"{others}the figures, not here.") if recipe.figure_11 else (rate,)


def results_document(
    results: Sequence[TrialResult], recipe: Recipe, *, description: str, fingerprint: str, reading: Sequence[str]
) -> dict[str, Any]:
    """Return everything a program may want of a run; :func:`format_json` writes what does not exist as null.

    ``rows`` has one entry for each trial of the paper's network; ``fully_connected`` one for each trial of Fig. 11.
    """
    return {
        "dataset": recipe.data,
        "dataset_description": description,
        "dataset_fingerprint": fingerprint,
        "versions": versions(),
        "hardware": hardware(),
        "recipe": dataclasses.asdict(recipe),
        "rows": [_row(r) for r in results if r.spec.task.model.name == "cnn"],
        "fully_connected": [_row(r) for r in results if r.spec.task.model.name == "mlp"],
        "reading": list(reading),
    }


def _row(result: TrialResult) -> dict[str, Any]:
    conv, fc = paper_table.combination(result)
    fields = (
        *("best_test_loss", "best_iteration", "selected_test_loss", "selected_test_accuracy", "selected_iteration"),
        *("seconds_per_iteration", "parameters", "versions"),
    )
    return {
        "conv": conv or None,
        "fc": fc,
        "seed": result.spec.seed,
        "status": result.status,
        "final_train_loss": result.curve.train_loss[-1],
        "trial": result.spec.key,
        **{name: getattr(result, name) for name in fields},
    }


def table_document(
    rows: Sequence[paper_table.Row], recipe: Recipe, *, description: str, reading: Sequence[str], command: str
) -> str:
    """Return table.md: the table, what was run on what, and the reading."""
    rate = "the same" if recipe.activation_lr is None else f"{recipe.activation_lr:g}"
    numbers = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"""# The paper's Table 1 and ours

Data: {description}.
{len(recipe.seeds)} seed(s), {recipe.iterations} iterations, batch {recipe.batch_size}, \
{recipe.optimizer} with learning rate {recipe.lr:g} (scale and location: {rate}), \
evaluated every {recipe.evaluate_every} iterations.
Command: `{command}`
Hardware: {hardware()}. Versions: {numbers}.

{paper_table.markdown(rows)}

Paper: doi 10.3745/KTSDE.2020.9.7.213, Table 1; which layer names belong to which row, and that its loss \
is the lowest test loss, is our reading. Ours: mean ± standard deviation over seeds.

## Reading

{_paragraphs(reading)}
"""


def _paragraphs(reading: Sequence[str]) -> str:
    """Put a blank line before each sentence that is not an item of a list behind another one."""
    lines: list[str] = []
    for sentence in reading:
        if lines and not (sentence.startswith("- ") and lines[-1].startswith("- ")):
            lines.append("")
        lines.append(sentence)
    return "\n".join(lines)
