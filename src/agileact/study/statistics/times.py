"""How long training takes to reach a given loss, in iterations and in seconds, where it may never get there."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from agileact._common.errors import ArgumentError


@dataclass(frozen=True)
class TimeToLoss:
    """When one run first reached a loss.

    Attributes:
        iteration: The first evaluated iteration at or below the loss; None if the run never got there.
        horizon: The run's last evaluated iteration: "never" means "not until here".
        seconds_per_iteration: What a step of this run took.
    """

    iteration: int | None
    horizon: int
    seconds_per_iteration: float

    @property
    def reached(self) -> bool:
        """Whether the loss was reached."""
        return self.iteration is not None

    @property
    def seconds(self) -> float | None:
        """Training time up to there, evaluations left out; None if the run never got there."""
        return None if self.iteration is None else self.iteration * self.seconds_per_iteration


def time_to_loss(
    iterations: Sequence[int], losses: Sequence[float], target: float, *, seconds_per_iteration: float = 0.0
) -> TimeToLoss:
    """Return when a curve first is at or below ``target``.

    Args:
        iterations: Evaluated iterations, increasing.
        losses: The loss at each; values that are not finite never count as reached.
        target: The loss to reach.
        seconds_per_iteration: What a training step took.

    Raises:
        ArgumentError: If the curve is empty, not increasing or not equally long, or the target is not finite.

    Example:
        >>> time_to_loss([0, 50, 100], [2.0, 0.9, 0.5], 0.9).iteration
        50
        >>> time_to_loss([0, 50, 100], [2.0, 0.9, 0.5], 0.1).reached
        False
    """
    if len(iterations) != len(losses) or not iterations:
        raise ArgumentError(f"a curve needs as many losses as iterations, not {len(losses)} and {len(iterations)}")
    if any(later <= earlier for earlier, later in itertools.pairwise(iterations)):
        raise ArgumentError("iterations must increase")
    if not math.isfinite(target):
        raise ArgumentError(f"target must be finite, not {target}")
    found = next(
        (i for i, loss in zip(iterations, losses, strict=True) if math.isfinite(loss) and loss <= target), None
    )
    return TimeToLoss(found, iterations[-1], seconds_per_iteration)


def common_target(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the lowest loss that two curves both reach, or None if one of them holds no finite loss.

    The time to the best loss of *one* of two runs is no fair race: it gets there by definition, and an equal one in
    half of all cases. The worse of the two best losses treats both alike. So the difference of the times to it is
    symmetric around zero if the runs differ by chance alone, which is what a paired permutation test asks for.

    Args:
        first: The losses of one run.
        second: The losses of the other.

    Example:
        >>> common_target([3.0, 0.5, 0.7], [2.0, 0.9, 0.8])
        0.8
    """
    best = [min(filter(math.isfinite, losses), default=None) for losses in (first, second)]
    return None if best[0] is None or best[1] is None else max(best[0], best[1])


@dataclass(frozen=True)
class TimesToLoss:
    """The times of several runs, each to its own target, with the runs that never got there kept in.

    A run that did not reach its target is censored at its horizon: its time is longer than that, and how much is not
    known. So no mean over all runs exists. The median does if more than half of the runs got there.
    """

    times: tuple[TimeToLoss, ...]

    def __post_init__(self) -> None:
        if not self.times:
            raise ArgumentError("times must hold at least one run")

    @property
    def reached(self) -> int:
        """How many runs got there."""
        return sum(time.reached for time in self.times)

    def median(self, unit: str = "iterations") -> float | None:
        """Return the median time in "iterations" or "seconds"; None if it lies among the runs that never got there.

        Example:
            >>> curve = ([0, 10, 20], [3.0, 2.0, 1.0])
            >>> TimesToLoss(tuple(time_to_loss(*curve, target) for target in (2.0, 1.0, 0.5))).median()
            20.0
        """
        middle = statistics.median(self._values(unit))
        return float(middle) if math.isfinite(middle) else None

    def shares(self, unit: str = "iterations") -> tuple[list[float], list[float]]:
        """Return the times at which runs got there, increasing, and the share of all runs that had by then.

        Runs that never got there count in the share's denominator: the last share is below 1 if there are any.

        Args:
            unit: "iterations" or "seconds".

        Example:
            >>> curve = ([0, 10, 20], [3.0, 2.0, 1.0])
            >>> TimesToLoss(tuple(time_to_loss(*curve, target) for target in (2.0, 2.0, 1.0, 0.5))).shares()
            ([10.0, 20.0], [0.5, 0.75])
        """
        values = [value for value in self._values(unit) if math.isfinite(value)]
        times = sorted(set(values))
        return times, [sum(value <= time for value in values) / len(self.times) for time in times]

    def describe(self) -> str:
        """Return the outcome in words.

        Example:
            >>> TimesToLoss((TimeToLoss(None, 100, 0.1), TimeToLoss(50, 100, 0.1))).describe()
            '1 of 2 runs got there; the median is beyond the 100 iterations of a run'
        """
        count = f"{self.reached} of {len(self.times)} runs got there"
        iterations, seconds = self.median("iterations"), self.median("seconds")
        if iterations is None or seconds is None:
            return f"{count}; the median is beyond the {min(t.horizon for t in self.times)} iterations of a run"
        return f"{count}, in the median after {iterations:g} iterations and {seconds:.2g} s"

    def _values(self, unit: str) -> list[float]:
        if unit not in ("iterations", "seconds"):
            raise ArgumentError(f"unit must be 'iterations' or 'seconds', not {unit!r}")
        times = (time.iteration if unit == "iterations" else time.seconds for time in self.times)
        return [math.inf if value is None else float(value) for value in times]
