"""Which trials have learned nothing at all, as a ReLU network does whose units have all died."""

import math
from collections.abc import Sequence

from agileact.study.spec.result import TrialResult

_LEARNED = 0.95
"""A trial whose validation loss never fell below this share of an untrained network's has not learned."""


def untrained_loss(result: TrialResult) -> float | None:
    """Return the validation loss before the first step; None if it was not finite."""
    losses = result.curve.validation_loss
    return losses[0] if losses and math.isfinite(losses[0]) else None


def idle_seeds(results: Sequence[TrialResult], task: Sequence[TrialResult]) -> tuple[int, ...]:
    """Return the seeds of an arm's trials that ended and have learned nothing; one that diverged is counted as that.

    Their validation loss never came 5 % below an untrained network's: the lowest one with which any trial of the task
    began. A trial's own beginning would not do. It may be so bad that saying the same for every input is better, and
    that is where a dead network ends. A user's own network may come trained, and is held against its own beginning.
    """
    starts = [start for result in task if (start := untrained_loss(result)) is not None]
    found = []
    for result in results:
        start = untrained_loss(result) if result.spec.task.model.name == "custom" else min(starts, default=None)
        if result.status == "finished" and start is not None and min(result.curve.validation_loss) > _LEARNED * start:
            found.append(result.spec.seed)
    return tuple(found)
