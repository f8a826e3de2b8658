"""Many tasks: interquartile mean, probability of improvement, performance profiles, ranks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agileact._common.errors import ArgumentError
from agileact._common.optional import require
from agileact.study.statistics.paired import Values, check_level

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its bootstrap interval; None bounds where there is one run a task."""

    value: float
    low: float | None
    high: float | None

    def describe(self, digits: int) -> str:
        """Return the value with its interval as text.

        Example:
            >>> Estimate(0.9312, 0.9, math.inf).describe(2), Estimate(1.0, None, None).describe(1)
            ('0.93 (0.90 to inf)', '1.0')
        """
        if self.low is None or self.high is None:
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def interquartile_mean(losses: npt.ArrayLike, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Estimate:
    """Return the mean of the middle half of all values, with a stratified bootstrap interval.

    The quarter of the lowest and the quarter of the highest values is cut off (of n values, the whole part of n/4 on
    each side), over runs and tasks together. So make the values of tasks comparable first, for instance by dividing
    each column by the baseline's mean. The interval is the percentile interval when the runs of each task are
    resampled by themselves.

    Source: R. Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*, arXiv
    2108.13264.

    Args:
        losses: Runs x tasks. The quarter that is cut off may have infinite values (diverged runs); with more of
            them the mean is infinite.
        level: Confidence of the interval.
        resamples: Bootstrap samples.
        seed: Source of the bootstrap samples.

    Raises:
        ArgumentError: If ``losses`` is no matrix with a value in it, or holds NaN.

    Example:
        >>> interquartile_mean([[1.0], [2.0], [3.0], [100.0]], resamples=100).value
        2.5
    """
    matrix = as_matrix("losses", losses)
    return _bootstrap([matrix], lambda parts: _trimmed_mean(parts[0]), level, resamples, seed)


def probability_of_improvement(
    first: npt.ArrayLike, second: npt.ArrayLike, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Return the probability that a run of the first arm has a lower loss than a run of the second, over tasks.

    For each task it is the share of pairs of runs (every run of one arm with every run of the other) in which the
    first is lower; a tie counting one half; the mean over tasks is returned. Infinite losses (diverged runs) are the
    worst there are. The interval is the percentile interval when runs are resampled within each task and arm.

    Source: R. Agarwal et al., arXiv 2108.13264; for one task it is the statistic of Mann and Whitney (1947).

    Args:
        first: Runs x tasks.
        second: Runs x tasks, the same tasks; the number of runs may differ.
        level: Confidence of the interval.
        resamples: Bootstrap samples.
        seed: Source of the bootstrap samples.

    Raises:
        ArgumentError: If the arguments are no such matrices.

    Example:
        >>> probability_of_improvement([[1.0], [2.0]], [[2.0], [3.0]], resamples=100).value
        0.875
    """
    one, other = as_matrix("first", first), as_matrix("second", second)
    if one.shape[1] != other.shape[1]:
        raise ArgumentError(f"first and second must have the same tasks, not {one.shape[1]} and {other.shape[1]}")
    return _bootstrap([one, other], lambda parts: _improvement(parts[0], parts[1]), level, resamples, seed)


@dataclass(frozen=True)
class Profile:
    """The share of runs whose loss is at most each threshold, with pointwise intervals; None for one run a task."""

    thresholds: tuple[float, ...]
    shares: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None


def performance_profile(
    losses: npt.ArrayLike,
    thresholds: Values,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Profile:
    """Return the share of runs, over all tasks, whose loss is at most each threshold: the higher, the better.

    Make the values of tasks comparable first, as for :func:`interquartile_mean`. The interval at each threshold is the
    percentile interval when the runs of each task are resampled by themselves.

    Source: R. Agarwal et al., arXiv 2108.13264, for scores, of which the higher is better.

    Args:
        losses: Runs x tasks; a run that diverged (infinite) is at most no threshold.
        thresholds: Finite, increasing.
        level: Confidence of each interval.
        resamples: Bootstrap samples.
        seed: Source of the bootstrap samples.

    Raises:
        ArgumentError: If ``losses`` is no matrix with a value in it, or the thresholds are not finite and increasing.

    Example:
        >>> performance_profile([[0.5], [1.0], [1.5], [2.0]], [0.4, 1.0, 2.0], resamples=100).shares
        (0.0, 0.5, 1.0)
    """
    matrix, edges = as_matrix("losses", losses), np.asarray(thresholds, dtype=np.float64)
    if len(edges) == 0 or not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
        raise ArgumentError(f"thresholds must be finite and increasing, not {list(thresholds)}")

    def shares(parts: Sequence[Matrix]) -> Matrix:
        return np.searchsorted(np.sort(parts[0], axis=None), edges, side="right") / matrix.size

    found = shares([matrix])
    drawn = _draws([matrix], shares, level, resamples, seed)
    low, high = (None, None) if drawn is None else (tuple(end.tolist()) for end in _percentiles(drawn, level))
    return Profile(tuple(edges.tolist()), tuple(found.tolist()), low, high)


@dataclass(frozen=True)
class Ranking:
    """Average ranks of arms over tasks (1 is the lowest loss).

    Attributes:
        ranks: One for each arm.
        friedman_p: p-value of Friedman's test that all arms are alike; None for fewer than three arms.
        critical_difference: Average ranks that differ by less are not told apart (Nemenyi).
    """

    ranks: tuple[float, ...]
    friedman_p: float | None
    critical_difference: float

    def describe(self, names: Sequence[str], tasks: int) -> str:
        """Return the ranks of the arms of these names in words, best first."""
        ranks = ", ".join(f"{name} {rank:.2f}" for rank, name in sorted(zip(self.ranks, names, strict=True)))
        apart = f"ranks closer than {self.critical_difference:.2f} are not told apart (Nemenyi)"
        return f"Average ranks over {tasks} tasks: {ranks}; {apart}"


def average_ranks(losses: npt.ArrayLike, *, level: float = 0.95) -> Ranking:
    r"""Return average ranks over tasks, with Friedman's test and Nemenyi's critical difference.

    The critical difference for k arms and N tasks is :math:`q \sqrt{k (k + 1) / 6N}`, with q the quantile of the
    studentised range for k arms and infinitely many degrees of freedom, divided by :math:`\sqrt 2`.

    Source: J. Demšar, *Statistical Comparisons of Classifiers over Multiple Data Sets*, JMLR 7 (2006). The tests take
    the rows as independent: use one row a task (the mean over seeds), or one a seed of a single task, but not the
    seeds of several tasks as if each were a task of its own.

    Args:
        losses: Tasks (or seeds) x arms; ties share their rank, infinite values are the worst.
        level: Confidence of the critical difference.

    Raises:
        ArgumentError: If there are fewer than two arms or rows, or the values are no matrix.

    Example:
        >>> ranking = average_ranks([[0.1, 0.2, 0.3], [0.2, 0.3, 0.4], [0.3, 0.1, 0.5]])
        >>> [round(rank, 2) for rank in ranking.ranks], round(ranking.critical_difference, 3)
        ([1.33, 1.67, 3.0], 1.914)
    """
    matrix = as_matrix("losses", losses)
    check_level(level)
    rows, arms = matrix.shape
    if arms < 2 or rows < 2:
        raise ArgumentError(f"ranks need at least two arms and two rows, not {arms} and {rows}")
    stats = require("scipy.stats", "study")
    ranks = stats.rankdata(matrix, axis=1).mean(axis=0)
    friedman = None
    if arms > 2:
        # All rows tied leave nothing to test; the statistic would be 0/0.
        tied = bool((matrix == matrix[:, :1]).all())
        # On ranks rather than on values: infinities are ranked, and subtracted nowhere.
        friedman = 1.0 if tied else float(stats.friedmanchisquare(*stats.rankdata(matrix, axis=1).T).pvalue)
    quantile = float(stats.studentized_range.ppf(level, arms, math.inf)) / math.sqrt(2)
    critical = quantile * math.sqrt(arms * (arms + 1) / (6 * rows))
    return Ranking(tuple(float(rank) for rank in ranks), friedman, critical)


def as_matrix(name: str, values: npt.ArrayLike) -> Matrix:
    """Return ``values`` as a float64 matrix; raise if they are none, or hold NaN or nothing."""
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ArgumentError(f"{name} must be a matrix of runs x tasks with a value in it, not of shape {matrix.shape}")
    if np.isnan(matrix).any():
        raise ArgumentError(f"{name} holds NaN; a diverged run has the loss infinity")
    if (matrix == -math.inf).any():
        raise ArgumentError(f"{name} holds minus infinity, which is no loss")
    return matrix


def _trimmed_mean(matrix: Matrix) -> float:
    ordered = np.sort(matrix, axis=None)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def _improvement(first: Matrix, second: Matrix) -> float:
    a, b = first[:, None, :], second[None, :, :]
    return float(((a < b) + 0.5 * (a == b)).mean())


def _bootstrap(
    parts: Sequence[Matrix], statistic: Callable[[Sequence[Matrix]], float], level: float, resamples: int, seed: int
) -> Estimate:
    """Return the statistic with its percentile interval."""
    value, drawn = statistic(parts), _draws(parts, statistic, level, resamples, seed)
    if drawn is None:
        return Estimate(value, None, None)
    low, high = _percentiles(drawn, level)
    return Estimate(value, float(low), float(high))


def _draws(
    parts: Sequence[Matrix], statistic: Callable[[Sequence[Matrix]], Any], level: float, resamples: int, seed: int
) -> Matrix | None:
    """Return the statistic of resamples: the runs of each task and part are drawn alone; None for one run a task."""
    check_level(level)
    if resamples < 1:
        raise ArgumentError(f"resamples must be at least 1, not {resamples}")
    if min(len(part) for part in parts) < 2:
        return None
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        chosen = [np.take_along_axis(part, generator.integers(0, len(part), size=part.shape), axis=0) for part in parts]
        drawn.append(statistic(chosen))
    return np.array(drawn)


def _percentiles(drawn: Matrix, level: float) -> Matrix:
    tail = (1 - level) / 2
    # Between two infinite values numpy would interpolate to NaN; an observed value serves as well.
    return np.asarray(np.quantile(drawn, [tail, 1 - tail], axis=0, method="inverted_cdf"))
