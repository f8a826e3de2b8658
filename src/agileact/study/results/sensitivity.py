"""What tuning trials tell of an arm's sensitivity to the learning rate: a result, not a by-product."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agileact.study.results.idle import untrained_loss
from agileact.study.spec.result import TrialResult
from agileact.study.statistics import Difference, RateRange, expected_best, rate_range
from agileact.study.statistics.paired import mean_interval
from agileact.study.statistics.summary import finite

DRAWS = (1, 2, 4, 8)
"""So many random points are drawn."""


@dataclass(frozen=True)
class Sensitivity:
    """Validation loss against learning rate, of one arm on one task.

    Where more than the rate was searched, a rate has the loss of its best point, replicate by replicate.
    """

    arm: str
    task: str
    rates: tuple[float, ...]
    mean: tuple[float, ...]
    """Mean lowest validation loss at each rate, over seeds and replicates; infinite where a run diverged."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    ranges: tuple[RateRange, ...]
    """The rates within 10 % of the best, in each replicate that has a finite loss."""
    expected: tuple[float, ...]
    """Expected lowest loss of ``DRAWS`` random draws of the tried points, a mean over replicates.

    A diverged run counts as an untrained network; infinite where that loss is unknown.
    """

    @cached_property
    def width(self) -> Difference | None:
        """Mean width in decades with Student's interval (95 %) over replicates; None for fewer than two."""
        return mean_interval([one.decades for one in self.ranges]) if len(self.ranges) > 1 else None

    @property
    def mean_decades(self) -> float | None:
        """Mean width in decades over replicates; None without a finite loss."""
        return sum(one.decades for one in self.ranges) / len(self.ranges) if self.ranges else None

    def describe_range(self) -> str:
        """Return the range within 10 % of the best in words."""
        if not self.ranges:
            return "none"
        if len(self.ranges) == 1:
            return self.ranges[0].describe()
        low, high = min(one.low for one in self.ranges), max(one.high for one in self.ranges)
        least = "at least " * any(one.open_low or one.open_high for one in self.ranges)
        found, interval = self.width, ""
        if found is not None and found.low is not None and found.high is not None:
            interval = f" [{max(found.low, 0.0):.1f}, {found.high:.1f}]"
        return f"{low:.2g} to {high:.2g} ({least}{self.mean_decades:.1f}{interval} decades)"

    def describe_expected(self) -> str:
        """Return the expected best of few draws in words."""
        texts = (f"{value:.4g}" if math.isfinite(value) else "diverged" for value in self.expected)
        return ", ".join(f"{n}: {text}" for n, text in zip(DRAWS, texts, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON; what is infinite is None."""
        columns = {name: list(map(finite, getattr(self, name))) for name in ("rates", "mean", "low", "high")}
        ranges = [{**vars(one), "decades": one.decades} for one in self.ranges]
        width = None if self.width is None else [self.width.mean, self.width.low, self.width.high]
        expected = {str(n): finite(value) for n, value in zip(DRAWS, self.expected, strict=True)}
        return {
            **{"task": self.task, "arm": self.arm, **columns, "ranges": ranges},
            **{"width_interval": width, "expected_best": expected},
        }


def sensitivity(arm: str, task: str, tried: Sequence[TrialResult]) -> Sensitivity | None:
    """Return the sensitivity of an arm on a task, from its tuning trials; None without any."""
    points: dict[Any, list[TrialResult]] = {}
    for result in tried:
        points.setdefault((result.spec.task.data.split, result.spec.task, result.spec.arm), []).append(result)
    scores = {key: _mean([score(one) for one in results]) for key, results in points.items()}
    runs: dict[float, list[float]] = {}
    ranges, drawn = [], []
    for split in sorted({key[0] for key in points}):
        best: dict[float, Any] = {}
        for key in points:
            rate = key[2].lr
            if key[0] == split and (rate not in best or scores[key] < scores[best[rate]]):
                best[rate] = key
        for rate, key in best.items():
            runs.setdefault(rate, []).extend(score(one) for one in points[key])
        if (found := rate_range(list(best), [scores[key] for key in best.values()])) is not None:
            ranges.append(found)
        kept = [_mean([_kept(one) for one in results]) for key, results in points.items() if key[0] == split]
        drawn.append([expected_best(kept, n) for n in DRAWS])
    if not runs:
        return None
    rates = sorted(runs)
    mean, low, high = (tuple(take(runs[rate]) for rate in rates) for take in (_mean, min, max))
    expected = tuple(_mean(column) for column in zip(*drawn, strict=True))
    return Sensitivity(arm, task, tuple(rates), mean, low, high, tuple(ranges), expected)


def score(result: TrialResult) -> float:
    """Return the lowest validation loss of a tuning trial; infinite if it diverged."""
    return math.inf if result.status == "diverged" else float(min(result.curve.validation_loss, default=math.inf))


def _kept(result: TrialResult) -> float:
    """Return the loss of drawing this trial: of a diverged one that before training."""
    untrained = untrained_loss(result)
    return score(result) if result.status != "diverged" or untrained is None else untrained


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
