"""The paper's Table 1 beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agileact.paper.recipe import PAPER_TABLE, PaperRow
from agileact.study.spec.result import TrialResult
from agileact.study.statistics import Summary, summarise

HEADER = (
    "n",
    "convolutional",
    "fully connected",
    "paper: loss",
    "paper: iterations",
    "lowest test loss",
    "at iteration",
    "chosen on validation: test loss",
    "accuracy, %",
    "ms per iteration",
    "seeds",
)


@dataclass(frozen=True)
class Row:
    """One combination: what the paper reports and what was measured over the seeds."""

    conv: str
    fc: str
    paper: PaperRow | None
    lowest_test_loss: Summary | None
    lowest_iteration: Summary | None
    selected_test_loss: Summary | None
    selected_test_accuracy: Summary | None
    seconds_per_iteration: Summary | None
    seeds: tuple[int, ...]
    diverged: int


def combination(result: TrialResult) -> tuple[str, str]:
    """Return the activations (convolutional, fully connected) of a trial of the paper's network."""
    return result.spec.arm.activation("conv") or "", result.spec.arm.activation("fc") or ""


def of_combination(results: Sequence[TrialResult], conv: str, fc: str) -> list[TrialResult]:
    """Return the trials of one combination, by seed."""
    found = [r for r in results if r.spec.task.model.name == "cnn" and combination(r) == (conv, fc)]
    return sorted(found, key=lambda result: result.spec.seed)


def rows(results: Sequence[TrialResult]) -> list[Row]:
    """Summarise the trials of the paper's network, a row a combination, in the order of their first trial.

    A diverged trial counts in ``diverged`` and with the numbers that it reached before.
    """
    known = {(row.conv, row.fc): row for row in PAPER_TABLE}
    names = dict.fromkeys(combination(r) for r in results if r.spec.task.model.name == "cnn")
    table = []
    for conv, fc in names:
        trials = of_combination(results, conv, fc)
        table.append(
            Row(
                conv,
                fc,
                known.get((conv, fc)),
                _over([t.best_test_loss for t in trials]),
                _over([t.best_iteration for t in trials]),
                _over([t.selected_test_loss for t in trials]),
                _over([t.selected_test_accuracy for t in trials]),
                _over([t.seconds_per_iteration for t in trials]),
                tuple(t.spec.seed for t in trials),
                sum(t.status == "diverged" for t in trials),
            )
        )
    return table


def _over(values: Sequence[float | None]) -> Summary | None:
    return summarise([value for value in values if value is not None])


def cells(row: Row) -> tuple[str, ...]:
    """Return the row as text, one cell for each name in ``HEADER``."""

    def text(summary: Summary | None, digits: int, factor: float = 1.0) -> str:
        if summary is None:
            return "–"
        deviation = None if summary.deviation is None else summary.deviation * factor
        return Summary(summary.mean * factor, deviation, summary.count).format(digits)

    return (
        str(row.paper.n) if row.paper else "–",
        row.conv,
        row.fc,
        f"{row.paper.loss:.5f}" if row.paper else "–",
        str(row.paper.iterations) if row.paper else "–",
        text(row.lowest_test_loss, 4),
        text(row.lowest_iteration, 0),
        text(row.selected_test_loss, 4),
        text(row.selected_test_accuracy, 2, 100),
        text(row.seconds_per_iteration, 2, 1000),
        f"{len(row.seeds)}" + (f" ({row.diverged} diverged)" if row.diverged else ""),
    )


def markdown(table: Sequence[Row]) -> str:
    """Return the table in Markdown.

    Example:
        >>> print(markdown([]).splitlines()[0][:34])
        | n | convolutional | fully connec
    """
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in table]
    return "\n".join(lines)
