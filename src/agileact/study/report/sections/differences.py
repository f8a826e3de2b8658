"""Paired differences from the baseline, with their intervals."""

from __future__ import annotations

from agileact.study.report.blocks import Block, cell, chart, number, numbers, paragraph, section, table
from agileact.study.report.facts import Facts
from agileact.study.results.contrasts import Contrast

_COLUMNS = (
    "arm",
    "mean difference",
    "Student interval",
    "bootstrap interval",
    "p, corrected",
    "effect size g",
    "probability of improvement",
    "would have been seen",
    "seeds",
)


def differences(facts: Facts) -> Block:
    """Return the section: for each task a row an arm, and the numbers."""
    content: list[Block] = []
    base = facts.baseline.name
    if not facts.contrasts:
        content.append(paragraph(f"No seed of {base} and of another arm is finished: there are no pairs."))
        return section("differences", "Paired differences", content)
    count = len(facts.contrasts)
    together = "" if count == 1 else f" Intervals hold together for all {count} comparisons (Bonferroni)."
    content.append(
        paragraph(
            f"Test loss of an arm minus that of {base} with the same seed: left of zero is better. The dot is the "
            f"mean, the thick line Student's 95 % interval, the thin line the bootstrap interval (BCa), the small "
            f"marks are single seeds.{together}"
        )
    )
    for task in facts.study.tasks:
        found = [one for one in facts.contrasts if one.comparison.task == task.name]
        if found:
            content.append({**_chart(facts, task.name, found), "task": task.name})
    return section("differences", "Paired differences", content)


def _chart(facts: Facts, task: str, found: list[Contrast]) -> Block:
    numbered = {name: place for place, name in enumerate(facts.arm_names)}
    series, rows = [], []
    for one in found:
        verdict, arm = one.comparison.verdict, one.comparison.arm
        mean = None if verdict.difference is None else verdict.difference.mean
        series.append(
            {
                "arm": numbered[arm],
                "name": arm,
                "mean": number(mean),
                "interval": _interval(verdict.difference),
                "second": _interval(one.bootstrap),
                "points": numbers([value for value in one.differences if value is not None]),
                "decision": verdict.decision,
            }
        )
        rows.append(
            [
                cell(arm, arm=numbered[arm]),
                cell("diverged" if mean is None else f"{mean:+.4g}", mean),
                cell(_words(verdict.difference), None if verdict.difference is None else verdict.difference.low),
                cell(_words(one.bootstrap), None if one.bootstrap is None else one.bootstrap.low),
                cell("–" if verdict.p_value is None else f"{verdict.p_value:.2g}", verdict.p_value),
                cell(
                    "–" if one.effect is None else f"{one.effect.g:+.2f}", None if one.effect is None else one.effect.g
                ),
                cell(_share(one), one.improvement.value),
                cell("–" if verdict.detectable is None else f"{verdict.detectable:.2g}", verdict.detectable),
                cell(str(len(one.seeds)), len(one.seeds)),
            ]
        )
    lower = sum(one["decision"] == "better" for one in series)
    higher = sum(one["decision"] == "worse" for one in series)
    return chart(
        f"differences-{task}",
        f"{task}: test loss minus that of {facts.baseline.name}",
        f"Paired differences from {facts.baseline.name} on {task}: of {len(found)} arms {lower} have a lower and "
        f"{higher} a higher test loss beyond chance.",
        form="intervals",
        series=series,
        # Without the baseline's name, which may be long: the title above says it and has room.
        x="test loss, arm minus baseline",
        table=table(
            f"differences-numbers-{task}",
            f"Paired differences on {task}; the effect size is Hedges' g of the paired differences.",
            _COLUMNS,
            rows,
            numeric=range(1, len(_COLUMNS)),
        ),
    )


def _interval(found: object) -> list[float | None] | None:
    low, high = getattr(found, "low", None), getattr(found, "high", None)
    return None if low is None or high is None else numbers([low, high])


def _words(found: object) -> str:
    low, high = getattr(found, "low", None), getattr(found, "high", None)
    return "–" if low is None or high is None else f"{low:+.3g} to {high:+.3g}"


def _share(one: Contrast) -> str:
    found = one.improvement
    if found.low is None or found.high is None:
        return f"{found.value:.2f}"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
