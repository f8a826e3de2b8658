"""How much a result depends on the learning rate, and the result of trying few of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agileact._common.errors import ArgumentError


@dataclass(frozen=True)
class RateRange:
    """The learning rates around the best one whose loss is close to the lowest; an open end may be further away."""

    low: float
    high: float
    open_low: bool
    open_high: bool

    @property
    def decades(self) -> float:
        """Width, log10(high / low)."""
        return math.log10(self.high / self.low)

    def describe(self) -> str:
        """Return the range in words."""
        least = "at least " * (self.open_low or self.open_high)
        return f"{self.low:.2g} to {self.high:.2g} ({least}{self.decades:.1f} decades)"


def rate_range(rates: Sequence[float], losses: Sequence[float], *, within: float = 0.1) -> RateRange | None:
    r"""Return the connected range of rates around the best with loss <= L + within \|L\|, L the lowest loss.

    Between two rates the loss is linear in log(rate). The range ends at a finite rate before one that diverged. There
    is none without a finite loss. An ArgumentError says that rates or losses do not fit.
    """
    if len(rates) != len(losses):
        raise ArgumentError(f"{len(rates)} rates have {len(losses)} losses; give one loss for each rate")
    if any(not 0 < rate < math.inf for rate in rates) or len(set(rates)) < len(rates):
        raise ArgumentError(f"rates must be above 0, finite and different; got {list(rates)}")
    points = sorted(zip(rates, losses, strict=True))
    best = min(range(len(points)), key=lambda place: points[place][1], default=0)
    if not points or not math.isfinite(points[best][1]):
        return None
    limit = points[best][1] + within * abs(points[best][1])

    def end(step: int) -> tuple[float, bool]:
        place = best
        while 0 <= place + step < len(points):
            (rate, loss), (following, worse) = points[place], points[place + step]
            if not worse <= limit:
                share = (limit - loss) / (worse - loss) if math.isfinite(worse) else 0.0
                return float(rate * (following / rate) ** share), False
            place += step
        return points[place][0], True

    (low, open_low), (high, open_high) = end(-1), end(1)
    return RateRange(low, high, open_low, open_high)


def expected_best(losses: Sequence[float], draws: int) -> float:
    """Return the exact expected lowest loss of some draws, with replacement, from the losses of m tried points.

    With the losses sorted from the lowest, E = sum over i of L_i (((m - i + 1) / m)^n - ((m - i) / m)^n); an infinite
    one makes it infinite. An ArgumentError says that there is no loss, or draws is below 1.
    """
    if not losses or draws < 1:
        raise ArgumentError(f"expected_best needs a loss and a draw; got {len(losses)} losses and {draws} draws")
    count = len(losses)
    shares = [((count - place) / count) ** draws for place in range(count + 1)]
    weights = zip(sorted(losses), shares, shares[1:], strict=False)
    return math.fsum(loss * (above - below) for loss, above, below in weights)
