"""Paired differences from the baseline, with their intervals."""

from agileact.study.report import blocks
from agileact.study.report.blocks import Block, Cell
from agileact.study.results.contrasts import Comparison, bounds
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
        return blocks.section("differences", title, [blocks.paragraph(text)])
    together = "" if count == 1 else f" Intervals hold together for all {count} comparisons (Bonferroni)."
    text = (
        f"Test loss of an arm minus that of {base} with the same {outcome.unit}: left of zero is better. The dot is "
        f"the mean, the thick line Student's 95 % interval, the thin line the bootstrap interval (BCa), the small "
        f"marks are single {outcome.unit}s.{together}"
    )
    return blocks.section(
        "differences", title, [blocks.paragraph(text), *blocks.of_tasks(outcome, lambda task: _chart(outcome, task))]
    )


def _chart(outcome: Outcome, task: str) -> Block | None:
    found = [one for one in outcome.comparisons if one.task == task]
    if not found:
        return None
    series = [_series(outcome, one) for one in found]
    lower, higher = (sum(one.verdict.decision == word for one in found) for word in ("better", "worse"))
    return blocks.chart(
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
            [_row(outcome, one) for one in found],
        ),
    )


def _series(outcome: Outcome, one: Comparison) -> Block:
    found = one.verdict.difference
    return {
        "arm": outcome.arm_names.index(one.arm),
        "name": one.arm,
        "mean": blocks.number(None if found is None else found.mean),
        "interval": blocks.numbers(bounds(found) or ()) or None,
        "second": blocks.numbers(bounds(one.bootstrap) or ()) or None,
        "points": blocks.numbers([value for value in one.differences if value is not None]),
        "decision": one.verdict.decision,
    }


def _row(outcome: Outcome, one: Comparison) -> list[Cell]:
    verdict = one.verdict
    mean = None if verdict.difference is None else verdict.difference.mean
    share = f"{one.improvement.value:.2f}"
    if one.improvement.low is not None:
        share += f" ({one.improvement.low:.2f} to {one.improvement.high:.2f})"
    intervals = [bounds(verdict.difference), bounds(one.bootstrap)]
    return [
        blocks.arm_cell(outcome, one.arm),
        blocks.cell("diverged" if mean is None else f"{mean:+.4g}", mean),
        *(
            blocks.cell(f"{ends[0]:+.3g} to {ends[1]:+.3g}", ends[0]) if ends else blocks.cell("–")
            for ends in intervals
        ),
        blocks.measured(verdict.p_value, ".2g"),
        blocks.measured(None if one.effect is None else one.effect.g, "+.2f"),
        blocks.cell(share, one.improvement.value),
        blocks.measured(verdict.detectable, ".2g"),
        blocks.measured(len(one.units)),
    ]
