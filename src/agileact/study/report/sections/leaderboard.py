"""The leaderboard: arms from the best to the worst, with what decides between them in the row."""

import math
from collections.abc import Sequence

from agileact.study.report import blocks
from agileact.study.report.blocks import Block, Cell
from agileact.study.results import contrasts
from agileact.study.results.outcome import Outcome
from agileact.study.statistics import Difference, paired_difference
from agileact.study.statistics.paired import mean_interval

_TITLE = "Leaderboard"
_WORDS = {
    "better": "lower",
    "worse": "higher",
    "same": "no difference",
    "undecided": "undecided",
    "unstable": "diverged",
}


def leaderboard(outcome: Outcome) -> Block:
    """Return the section: for each task a table by test loss and, where there is a metric, one by it."""
    if reason := blocks.nothing(outcome):
        return blocks.section("leaderboard", _TITLE, [blocks.paragraph(reason)])
    count, base = len(outcome.comparisons), outcome.baseline.name
    together = f" Both are corrected for {count} comparisons (Holm, Bonferroni)." * (count > 1)
    text = (
        f"Differences are from {base}, {outcome.unit} by {outcome.unit}. The paired permutation test and Student's "
        f"95 % interval decide together: a difference is claimed only where both show it.{together} Intervals of "
        "single arms, bootstrap intervals and differences of a metric decide nothing."
    )
    return blocks.section(
        "leaderboard", _TITLE, [blocks.paragraph(text), *blocks.of_tasks(outcome, lambda task: _task(outcome, task))]
    )


def _task(outcome: Outcome, task: str) -> Block | None:
    found = [(arm, one) for arm, one in outcome.of_task(task) if one.results]
    if not found:
        return None
    tables = {"test loss": [_table(outcome, task, found, by_metric=False)]}
    if any(one.accuracies for _, one in found):
        tables[found[0][1].metric] = [_table(outcome, task, found, by_metric=True)]
    # A choice of one is none.
    return blocks.choice(f"leaderboard-{task}", f"{task}: by", tables) if len(tables) > 1 else tables["test loss"][0]


def _table(outcome: Outcome, task: str, found: Sequence[tuple[int, contrasts.Cell]], *, by_metric: bool) -> Block:
    base = outcome.of_task(task)[0][1]
    name = found[0][1].metric if by_metric else "test loss"
    higher = by_metric and not base.lower
    values = {arm: _metric(one) if by_metric else dict(zip(one.units, one.losses, strict=True)) for arm, one in found}
    means = {arm: sum(known.values()) / len(known) if known else math.nan for arm, known in values.items()}
    ranked = sorted(
        found, key=lambda one: (not math.isfinite(means[one[0]]), -means[one[0]] if higher else means[one[0]], one[0])
    )
    best = next((arm for arm, _ in ranked if math.isfinite(means[arm])), None)
    claims = {one.arm: one.verdict for one in outcome.comparisons if one.task == task}
    differences = {
        arm: _paired(values[arm], values.get(0, {}))
        if by_metric
        else (claims[one.arm].difference if one.arm in claims else None)
        for arm, one in found
        if arm
    }
    known = [one for one in differences.values() if one is not None]
    ends = [end for one in known for end in (one.low, one.high, one.mean, 0.0) if end is not None]
    base_time = _milliseconds(base)
    rows: list[list[Cell]] = []
    for place, (arm, one) in enumerate(ranked, 1):
        slope = outcome.sensitivities.get((task, one.arm))
        milliseconds = _milliseconds(one)
        cost = f"{milliseconds:.2f}" + (f" ({milliseconds / base_time:.2f} ×)" if base_time else "")
        rows.append(
            [
                blocks.cell(str(place), place),
                {**blocks.cell(one.arm, arm=arm), "best": arm == best},
                blocks.cell(_with_interval(list(values[arm].values())), means[arm]),
                _difference(differences.get(arm), ends, arm, higher),
                *([] if by_metric else [blocks.cell(_WORDS[claims[one.arm].decision] if one.arm in claims else "–")]),
                blocks.cell("–") if slope is None else blocks.cell(slope.describe_range(), slope.mean_decades),
                blocks.cell(cost, milliseconds),
            ]
        )
    way = f"the {'highest' if higher else 'lowest'} first" + ", as it is the best" * by_metric
    columns = ["place", "arm", name, "minus the baseline", *([] if by_metric else ["decision"])]
    return blocks.table(
        f"leaders-{task}-{'metric' if by_metric else 'loss'}",
        f"Arms on {task} by mean {name}, {way}, with Student's 95 % interval of the mean.",
        [*columns, "rates within 10 % of the best", "ms a step (× baseline)"],
        rows,
        numeric=[0, 2, 3, *((4, 5) if by_metric else (5, 6))],
    )


def _metric(one: contrasts.Cell) -> dict[int, float]:
    """Return the mean metric of each unit that has it."""
    known = {unit: one.accuracy([unit]) for unit in one.units}
    return {unit: value for unit, value in known.items() if value is not None}


def _paired(own: dict[int, float], base: dict[int, float]) -> Difference | None:
    units = [unit for unit in own if unit in base]
    return paired_difference([own[unit] for unit in units], [base[unit] for unit in units]) if units else None


def _with_interval(values: Sequence[float]) -> str:
    if not values or not all(map(math.isfinite, values)):
        return "diverged" if values else "–"
    found = mean_interval(values)
    if found.low is None or found.high is None:
        return f"{found.mean:.4g}"
    return _told(found.mean, found.low, found.high)


def _told(mean: float, low: float, high: float, sign: str = "") -> str:
    """Return a mean and its interval with equally many decimals: three digits of half the interval's width."""
    half = (high - low) / 2
    decimals = 2 - math.floor(math.log10(half)) if half > 0 else 4
    form = f"{sign}.{max(decimals, 0)}f" if decimals < 8 else f"{sign}.3g"
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def _difference(found: Difference | None, ends: Sequence[float], arm: int, higher: bool) -> Cell:
    if found is None:
        return blocks.cell("baseline" if arm == 0 else "–", 0.0 if arm == 0 else None)
    if found.low is None or found.high is None:
        return blocks.measured(found.mean, "+.3g")
    bar = {
        **{
            "mean": blocks.number(found.mean),
            "low": blocks.number(found.low),
            "high": blocks.number(found.high),
            "higher": higher,
        },
        **{"from": blocks.number(min(ends)), "to": blocks.number(max(ends))},
    }
    return {**blocks.cell(_told(found.mean, found.low, found.high, "+"), found.mean), "bar": bar}


def _milliseconds(one: contrasts.Cell) -> float:
    return 1000 * sum(r.seconds_per_iteration for r in one.results) / len(one.results) if one.results else 0.0
