"""Paired differences from the baseline, with their intervals."""

from __future__ import annotations

from agileact.study.report.blocks import Block, Cell, cell, chart, number, numbers, of_tasks, paragraph, section
from agileact.study.results.contrasts import Comparison
from agileact.study.results.outcome import Outcome

_COLUMNS = (
    *("arm", "mean difference", "Student interval", "bootstrap interval", "p, corrected", "effect size g"),
    *("probability of improvement", "would have been seen", "pairs"),
)


def differences(outcome: Outcome) -> Block:
    """Return the section: for each task a row an arm, and the numbers."""
    title, base, count = "Paired differences", outcome.baseline.name, len(outcome.comparisons)
    if not count:
        text = f"No seed of {base} and of another arm is finished: there are no pairs."
        return section("differences", title, [paragraph(text)])
    together = "" if count == 1 else f" Intervals hold together for all {count} comparisons (Bonferroni)."
    text = (
        f"Test loss of an arm minus that of {base} with the same {outcome.unit}: left of zero is better. The dot is "
        f"the mean, the thick line Student's 95 % interval, the thin line the bootstrap interval (BCa), the small "
        f"marks are single {outcome.unit}s.{together}"
    )
    return section("differences", title, [paragraph(text), *of_tasks(outcome, lambda task: _chart(outcome, task))])


def _chart(outcome: Outcome, task: str) -> Block | None:
    found = [one for one in outcome.comparisons if one.task == task]
    if not found:
        return None
    numbered = {name: place for place, name in enumerate(outcome.arm_names)}
    series = [_series(one, numbered[one.arm]) for one in found]
    lower, higher = (sum(one.verdict.decision == word for one in found) for word in ("better", "worse"))
    return chart(
        "differences",
        task,
        f"{task}: test loss minus that of {outcome.baseline.name}",
        f"Paired differences from {outcome.baseline.name} on {task}: of {len(found)} arms {lower} have a lower and "
        f"{higher} a higher test loss beyond chance.",
        form="intervals",
        series=series,
        # Without the baseline's name, which may be long: the title above says it and has room.
        x="test loss, arm minus baseline",
        numbers=(
            f"Paired differences on {task}; the effect size is Hedges' g of the paired differences.",
            _COLUMNS,
            [_row(one, numbered[one.arm]) for one in found],
        ),
    )


def _series(one: Comparison, arm: int) -> Block:
    found = one.verdict.difference
    return {
        "arm": arm,
        "name": one.arm,
        "mean": number(None if found is None else found.mean),
        "interval": _interval(found),
        "second": _interval(one.bootstrap),
        "points": numbers([value for value in one.differences if value is not None]),
        "decision": one.verdict.decision,
    }


def _row(one: Comparison, arm: int) -> list[Cell]:
    verdict, effect = one.verdict, None if one.effect is None else one.effect.g
    mean = None if verdict.difference is None else verdict.difference.mean
    share = f"{one.improvement.value:.2f}"
    if one.improvement.low is not None:
        share += f" ({one.improvement.low:.2f} to {one.improvement.high:.2f})"
    return [
        cell(one.arm, arm=arm),
        cell("diverged" if mean is None else f"{mean:+.4g}", mean),
        *(
            cell(
                "–" if bounds is None else f"{bounds[0]:+.3g} to {bounds[1]:+.3g}",
                None if bounds is None else bounds[0],
            )
            for bounds in (_interval(verdict.difference), _interval(one.bootstrap))
        ),
        cell("–" if verdict.p_value is None else f"{verdict.p_value:.2g}", verdict.p_value),
        cell("–" if effect is None else f"{effect:+.2f}", effect),
        cell(share, one.improvement.value),
        cell("–" if verdict.detectable is None else f"{verdict.detectable:.2g}", verdict.detectable),
        cell(str(len(one.units)), len(one.units)),
    ]


def _interval(found: object) -> list[float | None] | None:
    low, high = getattr(found, "low", None), getattr(found, "high", None)
    return None if low is None or high is None else numbers([low, high])
