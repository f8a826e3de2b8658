"""What an arm gives to those who cannot tune: its range of good learning rates, and its best of a few draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agileact._common.errors import ArgumentError


@dataclass(frozen=True)
class RateRange:
    """The learning rates around the best one whose loss is near the lowest.

    Attributes:
        low: The smallest rate of the range.
        high: The largest.
        open_low: Whether the range ends at the smallest rate that was tried, so that it may go on.
        open_high: The same for the largest.
    """

    low: float
    high: float
    open_low: bool
    open_high: bool

    @property
    def decades(self) -> float:
        """The width: log10(high / low).

        Example:
            >>> RateRange(0.001, 0.1, False, True).decades
            2.0
        """
        return math.log10(self.high / self.low)


def rate_range(rates: Sequence[float], losses: Sequence[float], share: float = 0.1) -> RateRange | None:
    """Return the learning rates around the best one whose loss is at most (1 + ``share``) times the lowest.

    Between two rates that were tried the loss is a line over the logarithm of the rate. Beside a rate whose loss is
    infinite the range ends at the last rate with a finite one.

    Args:
        rates: Learning rates that were tried, each once, in any order.
        losses: The loss at each; infinite where training diverged.
        share: How much higher than the lowest a loss may be.

    Returns:
        The range; None for fewer than two rates, or where the lowest loss is not a positive number.

    Raises:
        ArgumentError: If a rate stands twice or is not positive, or there are not as many losses.

    Example:
        >>> found = rate_range([0.001, 0.01, 0.1], [1.2, 1.0, 2.0])
        >>> round(found.low, 5), round(found.high, 5), found.open_low
        (0.00316, 0.01259, False)
    """
    if len(rates) != len(losses):
        raise ArgumentError(f"there must be as many losses as rates, not {len(losses)} for {len(rates)}")
    if len(set(rates)) < len(rates) or any(not 0 < rate < math.inf for rate in rates):
        raise ArgumentError(f"rates must be different positive numbers, not {list(rates)}")
    pairs = sorted((math.log10(rate), loss) for rate, loss in zip(rates, losses, strict=True))
    if len(pairs) < 2 or not 0 < (lowest := min(loss for _, loss in pairs)) < math.inf:
        return None
    bound = (1 + share) * lowest
    best = next(place for place, (_, loss) in enumerate(pairs) if loss == lowest)

    def end(places: Sequence[int]) -> tuple[float, bool]:
        at, here = pairs[best]
        for place in places:
            further, loss = pairs[place]
            if not loss <= bound:
                return (at if math.isinf(loss) else at + (further - at) * (bound - here) / (loss - here)), False
            at, here = further, loss
        return at, True

    (low, open_low), (high, open_high) = end(range(best - 1, -1, -1)), end(range(best + 1, len(pairs)))
    return RateRange(10**low, 10**high, open_low, open_high)


def expected_best(losses: Sequence[float], draws: int) -> float | None:
    """Return the mean of the lowest loss of ``draws`` different points, over all sets of so many of the points.

    With the losses in order, x_1 <= ... <= x_N, it is the sum over i of x_i C(N - i, n - 1) / C(N, n): of all sets of
    n points, so many have x_i as their lowest. It estimates without bias what n random draws would give, as in Tang et
    al., *Showing Your Work Doesn't Always Work*, ACL 2020 (doi 10.18653/v1/2020.acl-main.246).

    Args:
        losses: The loss of every point that was tried.
        draws: How many points are drawn, at least 1.

    Returns:
        The mean; None if there are fewer points than draws.

    Raises:
        ArgumentError: If ``draws`` is below 1.

    Example:
        >>> expected_best([1.0, 2.0, 3.0], 1), expected_best([1.0, 2.0, 3.0], 3)
        (2.0, 1.0)
    """
    if draws < 1:
        raise ArgumentError(f"draws must be at least 1, not {draws}")
    count = len(losses)
    if count < draws:
        return None
    ways = [math.comb(count - place - 1, draws - 1) for place in range(count)]
    # A loss that is in no set's minimum may be infinite.
    return math.fsum(x * n for x, n in zip(sorted(losses), ways, strict=True) if n) / math.comb(count, draws)
