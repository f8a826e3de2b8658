"""Arms against the baseline in the numbers behind the verdicts, and over all tasks together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agileact.study.results.outcome import Cell, Comparison, idle_pairs, paired_losses
from agileact.study.spec.protocol import Study
from agileact.study.statistics import (
    Difference,
    EffectSize,
    Estimate,
    effect_size,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
)

_RESAMPLES = 1000


@dataclass(frozen=True)
class Contrast:
    """What stands behind one verdict: an arm against the baseline on one task, seed by seed.

    Attributes:
        comparison: The comparison itself, with its verdict, Student's interval and p-value.
        seeds: The seeds that both have.
        differences: Test loss of the arm minus that of the baseline, a value a seed; None where one of them diverged.
        bootstrap: Mean difference with its BCa bootstrap interval, corrected as the verdict's is; None if a run
            diverged or there is one pair.
        effect: Standardised mean difference; None if a run diverged, there is one pair, or differences do not vary.
        improvement: Probability that a run of the arm has a lower loss than a run of the baseline; a run that diverged
            is the worst there is.
        idle: How many runs of the arm, and of the baseline, did not learn at all.
    """

    comparison: Comparison
    seeds: tuple[int, ...]
    differences: tuple[float | None, ...]
    bootstrap: Difference | None
    effect: EffectSize | None
    improvement: Estimate
    idle: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain JSON types; what does not exist is None."""
        verdict = self.comparison.verdict
        return {
            "task": self.comparison.task,
            "arm": self.comparison.arm,
            "decision": verdict.decision,
            "seeds": list(self.seeds),
            "differences": list(self.differences),
            "mean": None if verdict.difference is None else verdict.difference.mean,
            "student": _bounds(verdict.difference),
            "bootstrap": _bounds(self.bootstrap),
            "p": verdict.p_value,
            "detectable": verdict.detectable,
            "typical": verdict.typical.estimate,
            "typical_interval": _finite(verdict.typical.low, verdict.typical.high),
            "signed_rank_p": verdict.rank_p,
            "seeds_lower": verdict.typical.lower,
            "seeds_higher": verdict.typical.higher,
            "did_not_learn": list(self.idle),
            "effect_size_d": None if self.effect is None else self.effect.d,
            "effect_size_g": None if self.effect is None else self.effect.g,
            "probability_of_improvement": self.improvement.value,
            "probability_of_improvement_interval": _bounds(self.improvement),
        }


def _bounds(found: Difference | Estimate | None) -> list[float] | None:
    return None if found is None or found.low is None or found.high is None else [found.low, found.high]


def _finite(low: float | None, high: float | None) -> list[float | None] | None:
    """Return the bounds; None in the place of one that diverged runs leave open."""
    if low is None or high is None:
        return None
    return [bound if math.isfinite(bound) else None for bound in (low, high)]


def contrasts(
    study: Study, found: Sequence[Cell], compared: Sequence[Comparison], *, level: float = 0.95
) -> list[Contrast]:
    """Return the numbers behind each comparison, in their order.

    Args:
        study: The study.
        found: From :func:`~agileact.study.results.outcome.cells`.
        compared: From :func:`~agileact.study.results.outcome.comparisons`, of the same cells.
        level: Confidence of all bootstrap intervals together (Bonferroni); each interval of a probability of
            improvement has it by itself.
    """
    by_name = {(cell.arm, cell.task): cell for cell in found}
    rows = []
    for one in compared:
        cell, base = by_name[one.arm, one.task], by_name[study.arms[0].name, one.task]
        first, second = paired_losses(cell, base)
        finite = all(map(math.isfinite, (*first, *second)))
        known = {result.spec.seed for result in base.results}
        several = finite and len(first) > 1
        rows.append(
            Contrast(
                one,
                tuple(result.spec.seed for result in cell.results if result.spec.seed in known),
                tuple(
                    a - b if math.isfinite(a) and math.isfinite(b) else None for a, b in zip(first, second, strict=True)
                ),
                paired_difference(first, second, level=level, comparisons=len(compared), method="bootstrap")
                if several
                else None,
                effect_size(first, second) if several else None,
                probability_of_improvement(
                    [[value] for value in first], [[value] for value in second], level=level, resamples=_RESAMPLES
                ),
                idle_pairs(cell, base),
            )
        )
    return rows


def relative_record(estimates: dict[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Return :func:`relative_losses` as plain JSON types; what is infinite, because runs diverged, is None.

    Example:
        >>> relative_record({"gelu": Estimate(1.5, 1.25, math.inf)})
        {'gelu': {'value': 1.5, 'low': 1.25, 'high': None}}
    """
    return {
        name: {
            end: value if value is not None and math.isfinite(value) else None
            for end, value in (("value", one.value), ("low", one.low), ("high", one.high))
        }
        for name, one in estimates.items()
    }


def relative_losses(study: Study, found: Sequence[Cell]) -> dict[str, Estimate]:
    """Return each arm's interquartile mean over all tasks of its test loss, in units of the baseline's mean loss.

    Each task's losses are divided by the mean of the baseline's finite ones there, which makes tasks comparable. Only
    arms that have the same number of runs on every task can be told; others, and all if there are fewer than two
    tasks or a baseline has no finite loss or none above zero, are left out.
    """
    if len(study.tasks) < 2:
        return {}
    by_name = {(cell.arm, cell.task): cell for cell in found}
    scales = []
    for task in study.tasks:
        summary = by_name[study.arms[0].name, task.name].summary()
        if summary is None or not summary.mean > 0:
            return {}
        scales.append(summary.mean)
    estimates = {}
    for arm in study.arms:
        columns = [by_name[arm.name, task.name].losses for task in study.tasks]
        if columns[0] and len({len(column) for column in columns}) == 1:
            matrix = np.array(columns).T / np.array(scales)
            estimates[arm.name] = interquartile_mean(matrix, resamples=_RESAMPLES)
    return estimates
