"""Intervals by formula: for a share (Wilson) and for a mean over runs (Student)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from agileact._common.errors import ArgumentError
from agileact._common.optional import require

_NORMAL_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


def wilson(successes: int, trials: int, *, z: float = _NORMAL_95) -> tuple[float, float]:
    r"""Return Wilson's score interval for a binomial share.

    With p = successes / n it is

    .. math:: \frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4n^2}}{1 + z^2 / n}

    It stays within 0 and 1 and keeps its coverage for shares near them, where p ± z·sqrt(p(1-p)/n) does not.

    Source: E. B. Wilson, *Probable inference, the law of succession, and statistical inference*,
    Journal of the American Statistical Association 22 (1927), doi 10.1080/01621459.1927.10502953.

    Args:
        successes: How many of the trials succeeded.
        trials: Number of trials; with none the interval is (0, 1).
        z: Quantile of the normal distribution; the default gives 95 %.

    Returns:
        The lower and the upper end.

    Raises:
        ArgumentError: If ``successes`` is not between 0 and ``trials``.

    Example:
        >>> low, high = wilson(8, 10)
        >>> print(f"{low:.4f} {high:.4f}")
        0.4902 0.9433
    """
    if not 0 <= successes <= trials:
        raise ArgumentError(f"successes must be between 0 and the {trials} trials, not {successes}")
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    below = 1 + z * z / trials
    # At 0 and at n the formula gives 0 and 1 exactly; rounding must not push them over the edge.
    low = 0.0 if successes == 0 else (centre - half) / below
    high = 1.0 if successes == trials else (centre + half) / below
    return low, high


def student(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's t interval for the mean of ``values``, one value for each independent run.

    Source: Student, *The probable error of a mean*, Biometrika 6 (1908), doi 10.1093/biomet/6.1.1.

    Args:
        values: At least two values.
        confidence: Coverage of the interval if the values are normal.

    Returns:
        The lower and the upper end.

    Raises:
        ArgumentError: If there are fewer than two values, or ``confidence`` does not lie between 0 and 1.
        MissingExtraError: If scipy is not installed.

    Example:
        >>> low, high = student([0.6, 0.7, 0.8])
        >>> print(f"{low:.3f} {high:.3f}")
        0.452 0.948
    """
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence must lie between 0 and 1, not {confidence}")
    if len(values) < 2:
        raise ArgumentError(f"an interval over runs needs at least two values, not {len(values)}")
    quantile = float(require("scipy.stats", "study").t.ppf(0.5 + confidence / 2, len(values) - 1))
    centre = statistics.fmean(values)
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return centre - half, centre + half
