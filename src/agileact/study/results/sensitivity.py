"""How much an arm needs its tuning, from the tuning trials: loss over learning rate, range of good rates, few draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agileact.study.results.idle import untrained_loss
from agileact.study.running.planner import Choice, Lookup, Part
from agileact.study.spec.protocol import Protocol
from agileact.study.statistics import RateRange, Summary, expected_best, rate_range, summarise

DRAWS = (1, 2, 4, 8)
"""How many random points somebody may be able to try."""
NEAR = 0.1
"""A loss is near the lowest if it is at most this share above it."""


@dataclass(frozen=True)
class Sensitivity:
    """What tuning an arm on a task showed of its sensitivity to the learning rate.

    Attributes:
        task: The task's name.
        arm: The arm's name.
        rates: Learning rates that were tried, increasing; of all replicates together.
        mean: Mean of the lowest validation losses at each rate, over tuning seeds; of points that share a rate, the
            best one's. Infinite where a run diverged.
        low: The lowest over seeds.
        high: The highest.
        ranges: In each replicate, the rates around the best whose loss is at most 10 % above the lowest.
        best_of: The expected lowest loss of 1, 2, 4 and 8 random draws of the points that tuning began with: mean and
            standard deviation over replicates. A point that diverged counts with the loss before training.
    """

    task: str
    arm: str
    rates: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    ranges: tuple[RateRange, ...]
    best_of: Mapping[int, Summary]

    @property
    def decades(self) -> Summary | None:
        """Width of the range of good rates in decades, over replicates; None where no range is known."""
        return summarise([one.decades for one in self.ranges])

    def width(self) -> str:
        """Return the width in words: "at least" where a range ends at the edge of what was tried."""
        if (decades := self.decades) is None:
            return "–"
        cut = any(one.open_low or one.open_high for one in self.ranges)
        return ("at least " if cut else "") + decades.format(2)


def sensitivity(protocol: Protocol, parts: Sequence[Part], lookup: Lookup) -> Sensitivity | None:
    """Return what the parts of one arm on one task show; None while no replicate's tuning is over."""
    over = [(part, part.choice) for part in parts if part.choice is not None]
    if not over:
        return None
    found: dict[float, tuple[float, float, float]] = {}
    ranges: list[RateRange] = []
    draws: dict[int, list[float]] = {n: [] for n in DRAWS}
    for part, choice in over:
        seeds: dict[tuple[float, float | None], list[float]] = {}
        untrained = math.inf
        for spec in part.tried:
            if (result := lookup(spec)) is not None:
                lost = result.status == "diverged" or not result.curve.validation_loss
                value = math.inf if lost else min(result.curve.validation_loss)
                seeds.setdefault((spec.arm.lr, spec.arm.activation_lr), []).append(value)
                untrained = min(untrained, untrained_loss(result) or math.inf)
        profile: dict[float, float] = {}
        for point, score in choice.scores:
            if score <= profile.get(point.lr, math.inf):
                profile[point.lr] = score
                values = seeds.get((point.lr, point.activation_lr), [score])
                found[point.lr] = (score, min(values), max(values))
        if (near := rate_range(list(profile), list(profile.values()), NEAR)) is not None:
            ranges.append(near)
        first = [min(score, untrained) for score in _first(protocol, choice)]
        for n in DRAWS:
            if (best := expected_best(first, n)) is not None and math.isfinite(best):
                draws[n].append(best)
    rates = tuple(sorted(found))
    mean, low, high = (tuple(found[rate][end] for rate in rates) for end in range(3))
    best_of = {n: summary for n, values in draws.items() if (summary := summarise(values)) is not None}
    return Sensitivity(over[0][0].task, over[0][0].arm, rates, mean, low, high, tuple(ranges), best_of)


def _first(protocol: Protocol, choice: Choice) -> list[float]:
    """Return the scores of the points that did not follow from other scores, as far as that can be told."""
    begun = protocol.replicate(choice.replicate).lr
    first = [score for point, score in choice.scores if point.lr in begun and point.factor == 1 and not point.rest]
    return first if len(first) == len(begun) else [score for _, score in choice.scores]
