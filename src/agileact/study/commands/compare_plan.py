"""agileact compare: arms on a user's own model and data, with as many trials as fit into a time."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from agileact._common.errors import ArgumentError
from agileact.study.running.cost import START_SECONDS as START_SECONDS
from agileact.study.spec.arms import Arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.tasks import Task
from agileact.study.spec.trial import Budget, DataSpec, ModelSpec, TaskSpec, freeze

_MOST_SEEDS = 20
_MOST_TUNING = 16
_LR = (0.0003, 0.001, 0.003, 0.01)
_TASK = "compare"


def proposed(
    arms: Sequence[Arm], model: str, data: str, *, fingerprint: str, iterations: int, batch_size: int, validation: int
) -> Study:
    """Return the study of a user's model and data, with the fewest trials that can say something.

    Args:
        arms: What is compared; the first is the baseline.
        model: The model's function, as ``package.module:function``.
        data: The data's function, likewise.
        fingerprint: Of the model, part of the trials' identity.
        iterations: Steps of a trial.
        batch_size: Samples a step.
        validation: Samples to set aside, where the data has no validation part.
    """
    budget = Budget(iterations, batch_size, evaluate_every=max(1, iterations // 40), test_curve=False)
    spec = TaskSpec(
        DataSpec("custom", validation, options=freeze({"target": data})),
        ModelSpec("custom", freeze({"target": model, "fingerprint": fingerprint})),
        budget,
    )
    protocol = Protocol(trials=len(_LR), lr=_LR, tuning_seeds=(1000, 1001))
    study = Study(f"{_TASK} {model}", tuple(arms), (Task(_TASK, spec),), protocol)
    seeds = tuple(range(study.least_seeds))
    return dataclasses.replace(study, protocol=dataclasses.replace(protocol, seeds=seeds))


def fitted(study: Study, trial_seconds: Mapping[tuple[str, str], float], budget: float, jobs: int) -> Study:
    """Return the study with as many trials as fit into a time.

    What is left beyond the fewest trials goes in equal parts to tuning and to seeds.

    Args:
        study: From :func:`proposed`.
        trial_seconds: Seconds of one trial, by (arm, task).
        budget: Seconds in all.
        jobs: Trials side by side.

    Raises:
        ArgumentError: If not even the fewest trials fit; the message says what would.

    Example:
        >>> from agileact.study.spec.arms import arm
        >>> study = proposed([arm("relu"), arm("agile-relu")], "m:f", "d:g", fingerprint="", iterations=100,
        ...                  batch_size=10, validation=10)
        >>> fit = fitted(study, {("relu", "compare"): 1.0, ("agile-relu", "compare"): 1.0}, budget=24.0, jobs=2)
        >>> fit.protocol.trials, len(fit.protocol.seeds)
        (5, 10)
    """
    from agileact.study.running.progress import format_duration

    each = sum(trial_seconds.values())
    room = int(max(0.0, budget - START_SECONDS) * jobs / each) if each > 0 else _MOST_SEEDS + _MOST_TUNING
    least_seeds, least_tuning = len(study.protocol.seeds), study.protocol.trials
    runs = len(study.protocol.tuning_seeds)  # of each point
    extra = room - least_seeds - least_tuning * runs
    if extra < 0:
        needed = START_SECONDS + (least_seeds + least_tuning * runs) * each / jobs
        share = max(0.0, budget - START_SECONDS) / (needed - START_SECONDS)
        iterations = int(study.tasks[0].spec.budget.iterations * share)
        ways = ["a budget of that", "fewer arms", *([f"about {iterations} iterations"] if iterations else [])]
        raise ArgumentError(
            f"{len(study.arms)} arms need at least {least_tuning * runs} trials each to tune and {least_seeds} seeds, "
            f"about {format_duration(needed)}; the budget is {format_duration(budget)}. Take "
            f"{', '.join(ways[:-1])} or {ways[-1]}"
        )
    tuning = min(_MOST_TUNING, least_tuning + extra // 2 // runs)
    seeds = min(_MOST_SEEDS, room - tuning * runs)
    tuning = min(_MOST_TUNING, (room - seeds) // runs)
    return dataclasses.replace(
        study, protocol=dataclasses.replace(study.protocol, trials=tuning, seeds=tuple(range(seeds)))
    )


def duration(text: str) -> float:
    """Return the seconds of a time such as "30m", "1h30m", "1.5h" or "90s".

    Raises:
        ValueError: If it is none.

    Example:
        >>> duration("1.5h"), duration("1h30m")
        (5400.0, 5400.0)
    """
    parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text)
    if not parts:
        raise ValueError(text)
    seconds = sum(float(part) * unit for part, unit in zip(parts.groups(), (3600.0, 60.0, 1.0), strict=True) if part)
    if not 0 < seconds < math.inf:
        raise ValueError(text)
    return seconds
