"""The paper's Table 1 beside ours, and what it says: where our order agrees with the paper's and where it does not.

Each sentence follows from the numbers by a rule; none claims a difference that the interval over seeds does not show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agileact.paper.recipe import PAPER_TABLE, PaperRow
from agileact.study.spec.result import TrialResult
from agileact.study.statistics import (
    Difference,
    Summary,
    paired_difference,
    pairs_in_same_order,
    rank_correlation,
    summarise,
)

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

_DIGITS = 4
"""Decimals of a printed loss. A difference below them is none: the table would show two equal numbers."""

_PAPER = {(row.conv, row.fc): row for row in PAPER_TABLE}


_MEASURED = {
    "lowest_test_loss": "best_test_loss",
    "lowest_iteration": "best_iteration",
    **{name: name for name in ("selected_test_loss", "selected_test_accuracy", "seconds_per_iteration")},
}
"""What a row summarises, and what a trial calls it."""


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
    names = dict.fromkeys(combination(r) for r in results if r.spec.task.model.name == "cnn")
    table = []
    for conv, fc in names:
        trials = of_combination(results, conv, fc)
        measured = {name: [getattr(t, own) for t in trials] for name, own in _MEASURED.items()}
        found: dict[str, Any] = {name: summarise([v for v in vs if v is not None]) for name, vs in measured.items()}
        seeds, diverged = tuple(t.spec.seed for t in trials), sum(t.status == "diverged" for t in trials)
        table.append(Row(conv, fc, _PAPER.get((conv, fc)), seeds=seeds, diverged=diverged, **found))
    return table


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
        text(row.lowest_test_loss, _DIGITS),
        text(row.lowest_iteration, 0),
        text(row.selected_test_loss, _DIGITS),
        text(row.selected_test_accuracy, 2, 100),
        text(row.seconds_per_iteration, 2, 1000),
        f"{len(row.seeds)}" + (f" ({row.diverged} diverged)" if row.diverged else ""),
    )


def markdown(table: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in table]
    return "\n".join(lines)


@dataclass(frozen=True)
class Comparison:
    """An agile combination against the one that differs from it in one part alone."""

    agile: PaperRow
    plain: PaperRow
    difference: Difference

    @property
    def verdict(self) -> str:
        """How our difference stands to the paper's: agrees, contradicts, undecided, no difference or one seed."""
        if round(self.difference.mean, _DIGITS) == 0:
            return "no difference in the printed digits"
        paper = (self.agile.loss > self.plain.loss) - (self.agile.loss < self.plain.loss)
        if self.difference.low is None:
            same = self.difference.mean * paper > 0
            return "same direction, one seed" if same else "other direction, one seed"
        if self.difference.sign == 0:
            return "undecided"
        return "agrees" if self.difference.sign == paper else "contradicts"


_PLAIN_OF = {"agile-sigmoid": "sigmoid", "agile-relu": "relu"}


def comparisons(results: Sequence[TrialResult], measure: Callable[[TrialResult], float | None]) -> list[Comparison]:
    """Compare each agile part with its plain twin, the other part being equal, paired by seed.

    The intervals hold together at 95 % (Bonferroni over all of them).
    """
    found = []
    for row in PAPER_TABLE:
        for twin in ((_PLAIN_OF.get(row.conv, ""), row.fc), (row.conv, _PLAIN_OF.get(row.fc, ""))):
            names = (row.conv, row.fc), twin
            first, second = (_by_seed(of_combination(results, *pair), measure) for pair in names)
            seeds = [seed for seed in first if seed in second]
            if twin in _PAPER and seeds:
                found.append((row, _PAPER[twin], [first[seed] for seed in seeds], [second[seed] for seed in seeds]))
    return [Comparison(agile, plain, paired_difference(a, b, comparisons=len(found))) for agile, plain, a, b in found]


def _by_seed(trials: Sequence[TrialResult], measure: Callable[[TrialResult], float | None]) -> dict[int, float]:
    measured = ((trial.spec.seed, measure(trial)) for trial in trials)
    return {seed: value for seed, value in measured if value is not None}


def sentences(results: Sequence[TrialResult], table: Sequence[Row]) -> list[str]:
    """Return the reading of a table as sentences, the most important first; items of a list begin with "- "."""
    known = [row for row in table if row.paper and row.lowest_test_loss and row.lowest_iteration]
    if len(known) < 2:
        return ["Fewer than two of the paper's combinations were run; there is no order to compare."]
    lowest = comparisons(results, lambda trial: trial.best_test_loss)
    selected = comparisons(results, lambda trial: trial.selected_test_loss)
    return [*_orders(known), *_pairs(lowest), *_other_measure(lowest, selected), *_caveats(results, known)]


def _orders(known: Sequence[Row]) -> list[str]:
    paper_loss = [row.paper.loss for row in known if row.paper]
    ours = [round(row.lowest_test_loss.mean, _DIGITS) for row in known if row.lowest_test_loss]
    same, total = pairs_in_same_order(paper_loss, ours)
    paper_speed = [float(row.paper.iterations) for row in known if row.paper]
    speed = [float(round(row.lowest_iteration.mean)) for row in known if row.lowest_iteration]
    same_speed, _ = pairs_in_same_order(paper_speed, speed)

    def lowest(values: Sequence[float]) -> str:
        names = [f"{row.conv} - {row.fc}" for row, v in zip(known, values, strict=True) if v == min(values)]
        return names[0] if len(names) == 1 else f"{len(names)} share it"

    return [
        f"Order by lowest test loss: {same} of {total} pairs of combinations stand as in the paper "
        f"({_correlation(paper_loss, ours)}).",
        f"Order by iterations to the lowest test loss: {same_speed} of {total} pairs as in the paper "
        f"({_correlation(paper_speed, speed)}).",
        f"Lowest test loss: paper {lowest(paper_loss)}, here {lowest(ours)}.",
        f"Fewest iterations: paper {lowest(paper_speed)}, here {lowest(speed)}.",
    ]


def _correlation(paper: Sequence[float], ours: Sequence[float]) -> str:
    value = rank_correlation(paper, ours)
    return "no rank correlation, for all of ours are equal" if value is None else f"rank correlation {value:+.2f}"


def _pairs(found: Sequence[Comparison]) -> list[str]:
    if not found:
        return []
    seeds = min(c.difference.pairs for c in found)
    several = f"{seeds} paired seeds, intervals hold together at 95 %"
    basis = several if seeds > 1 else "one seed, so no interval and no conclusion"
    return [
        f"An agile part against its plain twin, lowest test loss, agile minus plain, so negative is better ({basis}):",
        *(_item(c) for c in found),
        f"By lowest test loss: {_count(found)}.",
    ]


def _item(c: Comparison) -> str:
    d = c.difference
    interval = "" if d.low is None or d.high is None else f" [{d.low:+.4f}, {d.high:+.4f}]"
    return (
        f"- {c.agile.conv} - {c.agile.fc} against {c.plain.conv} - {c.plain.fc}: "
        f"{d.mean:+.4f}{interval}; paper {c.agile.loss - c.plain.loss:+.4f}: {c.verdict}."
    )


def _count(found: Sequence[Comparison]) -> str:
    verdicts = [c.verdict for c in found]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))


def _other_measure(lowest: Sequence[Comparison], selected: Sequence[Comparison]) -> list[str]:
    """Say what changes when the iteration is chosen on validation."""
    if not selected:
        return []
    before = {(c.agile, c.plain): c.verdict for c in lowest}
    changed = [c for c in selected if before.get((c.agile, c.plain)) != c.verdict]
    text = f"By test loss at the iteration chosen on validation: {_count(selected)}"
    if not changed:
        return [f"{text}; no verdict changes."]
    return [f"{text}; the verdict changes in:", *(_item(c) for c in changed)]


def _caveats(results: Sequence[TrialResult], known: Sequence[Row]) -> list[str]:
    budget = results[0].spec.task.budget
    arm = results[0].spec.arm
    lines = [
        f"All combinations share one learning rate ({arm.optimizer}, {arm.lr:g}); an order at one learning rate "
        "is not the order at another, and scale and location act like a larger step size.",
        "The lowest test loss over iterations is chosen on the test set, as in the paper, and flatters every row; "
        "the columns chosen on validation do not.",
    ]
    options = dict(next(r for r in results if r.spec.task.model.name == "cnn").spec.task.model.options)
    here = (options.get("filters", (16, 8, 4)), options.get("nodes", (30,)), budget.batch_size)
    if here != ((16, 8, 4), (30,), 100):
        lines.append(
            f"This is not the paper's network and batch (filters 16, 8, 4, one layer of 30 nodes, batch 100) but "
            f"filters {_sizes(here[0])}, nodes {_sizes(here[1])}, batch {here[2]}: the comparison means little."
        )
    end = 0.95 * budget.iterations
    late = [f"{row.conv} - {row.fc}" for row in known if row.lowest_iteration and row.lowest_iteration.mean > end]
    if late:
        stopped = f"Still falling when training stopped at iteration {budget.iterations}, so not at their lowest"
        lines.append(f"{stopped}: {', '.join(late)}.")
    diverged = sum(result.status == "diverged" for result in results)
    if diverged:
        lines.append(f"{diverged} trials diverged; they count with what they reached before.")
    return lines


def _sizes(values: Sequence[int]) -> str:
    return ", ".join(map(str, values)) or "none"
