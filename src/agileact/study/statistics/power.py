"""How large a difference would have been seen: by Student's test, and by the rule that a verdict follows."""

import functools
import math
import statistics
from typing import Literal

import numpy as np

from agileact._common.errors import ArgumentError
from agileact._common.optional import require
from agileact.study.statistics.paired import Values, check_level, paired_values

_DRAWS = 1000
"""Studies that are drawn to find the power of a verdict: it is known to a hundredth or so."""
_ALL_SUBSETS = 12
"""Up to so many pairs all subsets of them are looked at; above, 2^13 drawn ones."""


def smallest_effect(
    first: Values,
    second: Values,
    *,
    level: float = 0.95,
    power: float = 0.8,
    comparisons: int = 1,
    test: Literal["student", "verdict"] = "student",
) -> float | None:
    """Return the smallest mean difference that a paired test with these seeds would have found.

    It is the difference at which the test, with as many pairs and the spread of these differences: it rejects equality
    with probability ``power`` at the level 1 - (1 - level)/comparisons, if differences are normal. The spread is
    estimated from the same pairs, so with few of them the number is rough.

    Args:
        first: One value a seed.
        second: One value a seed, same seeds in the same order.
        level: Confidence of the test.
        power: Probability of seeing the effect.
        comparisons: How many tests are read together.
        test: "student": Student's paired t test. "verdict": that and the exact paired permutation test
            (:func:`sign_flip_test`), both of which :func:`verdict` asks for. With few seeds for many comparisons the
            second is far the harder one: of 10 seeds in 24 comparisons it wants all on one side.

    Returns:
        The difference in the unit of the values; None for fewer than two pairs, and where the exact test cannot
        reach the level, whatever the difference is.

    Raises:
        ArgumentError: As for :func:`paired_difference`.

    Example:
        >>> print(f"{smallest_effect([1.0, 2.0, 3.0, 4.0], [1.1, 1.9, 3.2, 3.9]):.3f}")
        0.319
    """
    differences = paired_values(first, second)
    unit = detectable(len(differences), level=level, power=power, comparisons=comparisons, test=test)
    return None if unit is None else statistics.stdev(differences) * unit


def detectable(
    pairs: int,
    *,
    level: float = 0.95,
    power: float = 0.8,
    comparisons: int = 1,
    test: Literal["student", "verdict"] = "verdict",
) -> float | None:
    """Return :func:`smallest_effect` in standard deviations of the differences: what is known before anything is run.

    Raises:
        ArgumentError: As for :func:`smallest_effect`.

    Example:
        >>> detectable(5) is None, f"{detectable(8):.1f}"
        (True, '1.2')
    """
    check_level(level)
    if not 0 < power < 1:
        raise ArgumentError(f"power must lie between 0 and 1, not {power}")
    if test not in ("student", "verdict"):
        raise ArgumentError(f"test must be 'student' or 'verdict', not {test!r}")
    if pairs < 2:
        return None
    alpha = (1 - level) / comparisons
    if power <= alpha:
        raise ArgumentError(f"power must be greater than the test's level {alpha:g}, not {power}")
    unit = _student(pairs, alpha, power)
    if test == "student":
        return unit
    both = _both(pairs, alpha, power)
    return None if both is None else max(unit, both)


@functools.cache
def _student(pairs: int, alpha: float, power: float) -> float:
    """Return the mean, in standard deviations, that a two-sided one-sample t test finds with this power.

    ``TTestPower.solve_power`` of statsmodels gives the same, but it and SciPy's noncentral t fail for two and
    three pairs. So the power is integrated here over the quantiles of the estimated deviation, by Gauss's rule: given
    that deviation, the test's statistic is normal.
    """
    stats, normal = require("scipy.stats", "study"), require("scipy.special", "study").ndtr
    free = pairs - 1
    edge = float(stats.t.ppf(1 - alpha / 2, free))
    nodes, weights = require("scipy.special", "study").roots_legendre(400)
    spread = np.sqrt(stats.chi2.ppf((nodes + 1) / 2, free) / free)

    def missing(effect: float) -> float:
        shift = effect * math.sqrt(pairs)
        seen = normal(shift - edge * spread) + normal(-shift - edge * spread)
        return float(weights @ seen) / 2 - power

    above = 1.0
    while missing(above) < 0:
        above *= 2
    return float(require("scipy.optimize", "study").brentq(missing, 0.0, above, xtol=1e-10))


@functools.cache
def _both(pairs: int, alpha: float, power: float) -> float | None:
    """Return the mean, in standard deviations, at which t test and sign-flip test both reject with this power.

    Studies of normal differences are drawn. In each, both tests reject from some shift on, which need not be searched
    for. The t test's is plain. The sign-flip test counts the subsets of pairs whose differences add up to zero or less
    (flipping such a subset moves the sum no closer to zero), the empty one among them, and rejects while they are at
    most ``allowed``; a subset is one of them up to the shift that is minus its mean.
    """
    allowed = math.ceil(alpha * 2 ** (pairs - 1)) - 1
    if allowed < 1:
        return None
    generator = np.random.default_rng(0)
    drawn = generator.standard_normal((_DRAWS, pairs))
    edge = float(require("scipy.stats", "study").t.ppf(1 - alpha / 2, pairs - 1))
    student = edge * drawn.std(axis=1, ddof=1) / math.sqrt(pairs) - drawn.mean(axis=1)
    if pairs <= _ALL_SUBSETS:
        # The numbers from 1 on, bit by bit, are all subsets but the empty one.
        members = (np.arange(1, 2**pairs)[:, None] >> np.arange(pairs)) & 1
    else:
        members = generator.integers(0, 2, size=(2**13, pairs))
        members = members[members.any(axis=1)]
        allowed = max(1, round(alpha / 2 * len(members)))
    means = members / members.sum(axis=1, keepdims=True)
    # Of each study the value that is the largest but ``allowed - 1``. Products are small, and einsum forms them on one
    # thread: those of BLAS wait for each other, for seconds where the machine is busy.
    sums = (np.einsum("sp,mp->sm", -part, means) for part in np.array_split(drawn, 20))
    parts = (np.partition(part, -allowed, axis=1) for part in sums)
    flips = np.concatenate([part[:, -allowed] for part in parts])
    return float(np.quantile(np.maximum(student, flips), power))
