"""Means, spreads and orders of measurements."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from agileact._common.optional import require


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one measurement over seeds.

    Attributes:
        mean: Arithmetic mean.
        deviation: Sample standard deviation; None for a single value.
        count: Number of values.
    """

    mean: float
    deviation: float | None
    count: int

    def format(self, digits: int) -> str:
        """Return ``mean ± deviation``, or the mean alone for a single value.

        Example:
            >>> Summary(0.15, 0.02, 5).format(3)
            '0.150 ± 0.020'
        """
        if self.deviation is None:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} ± {self.deviation:.{digits}f}"


def finite(value: float | None) -> float | None:
    """Return a number that JSON can hold, or None."""
    return value if value is not None and math.isfinite(value) else None


def summarise(values: Sequence[float]) -> Summary | None:
    """Return mean and sample standard deviation of ``values``, or None if there are none.

    Example:
        >>> summarise([1.0, 3.0])
        Summary(mean=2.0, deviation=1.4142135623730951, count=2)
    """
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), deviation, len(values))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation: 1 for the same order, -1 for the opposite one, None if one has no order.

    Example:
        >>> rank_correlation([1, 2, 3], [10, 20, 30])
        1.0
        >>> rank_correlation([1, 2, 3], [5, 5, 5]) is None
        True
    """
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return round(float(require("scipy.stats", "study").spearmanr(first, second).statistic), 12)


def pairs_in_same_order(first: Sequence[float], second: Sequence[float]) -> tuple[int, int]:
    """Return how many pairs stand in the same order in both sequences, and how many pairs there are.

    A tie in either sequence counts as not the same.

    Example:
        >>> pairs_in_same_order([1, 2, 3], [1, 3, 2])
        (2, 3)
    """
    same = total = 0
    for i in range(len(first)):
        for j in range(i):
            total += 1
            same += (first[i] - first[j]) * (second[i] - second[j]) > 0
    return same, total
