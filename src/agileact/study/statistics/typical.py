"""Two arms over the same seeds, by ranks: what a single dead or diverged run cannot move."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agileact._common.errors import ArgumentError
from agileact.study.statistics.paired import Values, check_level

_ROUNDING = 1e-12
"""Differences whose sizes differ by less, relatively, count as equal."""


@dataclass(frozen=True)
class Typical:
    """The typical paired difference, first minus second, and Wilcoxon's signed-rank test.

    Attributes:
        estimate: Hodges' and Lehmann's: the median of the means of all pairs of differences (each with itself too).
            None where diverged runs leave it open.
        low: Lower bound of its exact interval; None if there are too few pairs for the level, minus infinity where
            diverged runs leave it open.
        high: Upper bound.
        p_value: Exact two-sided p-value of the signed-rank test, not corrected.
        lower: In how many pairs the first value is the lower one.
        higher: In how many it is the higher one; in the others both are equal.
        pairs: How many pairs there are.
    """

    estimate: float | None
    low: float | None
    high: float | None
    p_value: float
    lower: int
    higher: int
    pairs: int

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies on one side of zero, 0 if it holds zero or there is none."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)


def signed_rank(first: Values, second: Values, *, level: float = 0.95, comparisons: int = 1) -> Typical:
    """Return the typical difference of two arms by Wilcoxon's signed ranks.

    It is the robust companion of :func:`paired_difference` and :func:`sign_flip_test`, which are about the mean. One
    run among ten that did not learn at all moves the mean and widens its interval until nothing can be seen in it; in
    ranks it is one large difference and no more. Runs that diverged can be compared, too: they are the worst there
    are, and equal to each other.

    The p-value is exact: the share of all sign patterns whose rank sum is as far from its middle, with ties by their
    mean rank and pairs without a difference left out. The interval holds the means of two differences that are
    neither among the lowest nor the highest ones; it is exact for differences without ties, symmetric around their
    middle, and too wide rather than too narrow with ties.

    Source: F. Wilcoxon, *Individual Comparisons by Ranking Methods*, Biometrics Bulletin 1 (1945), doi
    10.2307/3001968; J. L. Hodges and E. L. Lehmann, *Estimates of Location Based on Rank Tests*, Annals of
    Mathematical Statistics 34 (1963), doi 10.1214/aoms/1177704172; J. W. Tukey for the interval.

    Args:
        first: One value a seed; infinity for a run that diverged.
        second: One value a seed, same seeds in the same order.
        level: Confidence that all ``comparisons`` intervals hold together.
        comparisons: How many intervals are read together (Bonferroni).

    Raises:
        ArgumentError: If the sequences are not equally long or empty, hold NaN or minus infinity, or an option does
            not fit.

    Example:
        >>> typical = signed_rank([0.20, 0.21, 0.19, 0.22, 0.20, 0.21], [0.25, 0.27, 0.26, 0.25, 0.29, 2.30])
        >>> print(f"{typical.estimate:.3f} [{typical.low:.2f}, {typical.high:.2f}] p = {typical.p_value}")
        -0.070 [-2.09, -0.03] p = 0.03125
        >>> typical.lower
        6
    """
    check_level(level)
    if comparisons < 1:
        raise ArgumentError(f"comparisons must be at least 1, not {comparisons}")
    differences = _differences(first, second)
    count = len(differences)
    lower, higher = int(np.count_nonzero(differences < 0)), int(np.count_nonzero(differences > 0))
    below, above = _walsh(differences)
    middle, other = _median(below), _median(above)
    estimate = middle if middle == other and math.isfinite(middle) else None
    bounds = _bounds(count, (1 - level) / comparisons)
    low = None if bounds == 0 else float(below[bounds - 1])
    high = None if bounds == 0 else float(above[-bounds])
    return Typical(estimate, low, high, _p_value(differences), lower, higher, count)


def _differences(first: Values, second: Values) -> npt.NDArray[np.float64]:
    if len(first) != len(second) or len(first) == 0:
        raise ArgumentError(f"paired differences need two equally long sequences, not {len(first)} and {len(second)}")
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    for name, values in (("first", one), ("second", other)):
        if np.isnan(values).any() or (values == -math.inf).any():
            raise ArgumentError(f"{name} holds NaN or minus infinity; a run that diverged has the loss infinity")
    both = np.isinf(one) & np.isinf(other)
    with np.errstate(invalid="ignore"):
        return np.where(both, 0.0, one - other)


def _walsh(differences: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the means of two differences in order, twice: what is not known counts as the lowest, then the highest.

    It is not known what the mean of a run that diverged in the one arm and one that did in the other is.
    """
    one, other = np.triu_indices(len(differences))
    with np.errstate(invalid="ignore"):
        # Halved first: the sum of two large ones is too large.
        means = differences[one] / 2 + differences[other] / 2
    unknown = np.isnan(means)
    return np.sort(np.where(unknown, -math.inf, means)), np.sort(np.where(unknown, math.inf, means))


def _median(ordered: npt.NDArray[np.float64]) -> float:
    low, high = float(ordered[(len(ordered) - 1) // 2]), float(ordered[len(ordered) // 2])
    return low if low == high else low / 2 + high / 2


def _distribution(doubled_ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the probability of every sum of doubled ranks, from 0 on, if each rank counts or not by a fair coin."""
    chances = np.zeros(int(doubled_ranks.sum()) + 1)
    chances[0] = 1.0
    top = 0
    for rank in doubled_ranks.tolist():
        chances[: top + rank + 1] *= 0.5
        chances[rank : top + rank + 1] += chances[: top + 1].copy()
        top += rank
    return chances


def _p_value(differences: npt.NDArray[np.float64]) -> float:
    sizes = np.abs(differences[differences != 0])
    if len(sizes) == 0:
        return 1.0
    order = np.argsort(sizes)
    ordered = sizes[order]
    doubled = np.empty(len(sizes), dtype=np.int64)
    start = 0
    for stop in range(1, len(sizes) + 1):
        if stop == len(sizes) or ordered[stop] * (1 - _ROUNDING) > ordered[stop - 1]:
            doubled[start:stop] = start + 1 + stop  # twice the mean of the ranks start + 1 to stop
            start = stop
    signs = np.sign(differences[differences != 0])[order]
    positive, total = int(doubled[signs > 0].sum()), int(doubled.sum())
    tail = float(_distribution(doubled)[: min(positive, total - positive) + 1].sum())
    return min(1.0, 2 * tail)


def _bounds(count: int, alpha: float) -> int:
    """Return which of the ordered means, from either end, bounds the interval; 0 if there is none."""
    ranks = 2 * np.arange(1, count + 1, dtype=np.int64)
    tails = 2 * np.cumsum(_distribution(ranks)[::2])
    return int(np.count_nonzero(tails <= alpha * (1 + _ROUNDING)))
