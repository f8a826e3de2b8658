"""All tasks together: what an arm is worth where the tasks differ in the size of their losses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from agileact.study.statistics import (
    Estimate,
    Profile,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)

_RESAMPLES = 1000
_THRESHOLDS = 41
_FEW = 8
"""So many arms at most are compared pair by pair."""


class OverTasks:
    """Losses of all tasks, each divided by the mean of the baseline's finite ones there, which makes them comparable.

    Args:
        losses: Runs (or replicates) x tasks, by arm; only of arms that have as many on every task.
    """

    def __init__(self, losses: Mapping[str, npt.NDArray[np.float64]]) -> None:
        self._losses = losses

    @cached_property
    def relative(self) -> dict[str, Estimate]:
        """Each arm's interquartile mean, in units of the baseline's mean loss."""
        return {name: interquartile_mean(losses, resamples=_RESAMPLES) for name, losses in self._losses.items()}

    @cached_property
    def improvement(self) -> dict[tuple[str, str], Estimate]:
        """The probability that a run of the first arm is better than one of the second.

        For every pair of arms if they are few; else for each against the first of them.
        """
        names = list(self._losses)
        references = names if len(names) <= _FEW else names[:1]
        return {
            (one, other): probability_of_improvement(self._losses[one], self._losses[other], resamples=_RESAMPLES)
            for one in names
            for other in references
            if one != other
        }

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """The share of each arm's runs whose loss is at most so many times the baseline's, over the whole range."""
        values = np.concatenate([losses[np.isfinite(losses)] for losses in self._losses.values()])
        low, high = float(values.min()), float(np.quantile(values, 0.95))
        thresholds = np.linspace(low, high, _THRESHOLDS).tolist() if high > low else [low]
        return {
            name: performance_profile(losses, thresholds, resamples=_RESAMPLES) for name, losses in self._losses.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON; what is infinite, because runs diverged, is None."""
        return {
            "relative_loss": {name: _plain(one) for name, one in self.relative.items()},
            "improvement": [[*pair, _plain(one)] for pair, one in self.improvement.items()],
            "profiles": {name: vars(one) for name, one in self.profiles.items()},
        }


def _plain(one: Estimate) -> dict[str, float | None]:
    return {name: value if value is not None and math.isfinite(value) else None for name, value in vars(one).items()}
