"""How often, and by how much, each half of a training step lowered the loss of its batch.

A step has two halves (doi 10.3745/KTSDE.2020.9.7.213, Figs. 5 and 9): the weights move, equations (5) and (6),
then size and position, (15), (16), (23), (24). The trial measured the loss of the same batch before the step,
between the halves and after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agileact._common.optional import require
from agileact.paper.figures.run import Combination, Run, is_agile
from agileact.study.spec.result import TrialResult
from agileact.study.statistics import paired_difference

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """The probed steps of one trial; changes are relative to the loss before that half, in per cent.

    Attributes:
        iteration: Iteration of each probed step.
        before: Loss of the batch before the step.
        weights: Change by the weights' half.
        activation: Change by the activation's half; zeros in a plain network.
    """

    iteration: Values
    before: Values
    weights: Values
    activation: Values

    @classmethod
    def of(cls, trial: TrialResult) -> Steps:
        """Return the probed steps of a trial, without those whose loss was 0 or not finite."""
        probe = trial.probe
        table = np.asarray(
            [probe.iteration, probe.before, probe.after_weights, probe.after_activations], dtype=np.float64
        )
        iteration, before, between, after = table[:, np.isfinite(table).all(0) & (table[1:3] > 0).all(0)]
        return cls(iteration, before, 100 * (between / before - 1), 100 * (after / between - 1))


@dataclass(frozen=True)
class StepShare:
    """One combination's row: the share of probed steps in which each half lowered the loss.

    Attributes:
        combination: Activations as written in text, convolutional → fully connected.
        seeds: Number of trials.
        steps: Probed steps of all trials together.
        weights_share: Share of steps in which the weights' half lowered the batch's loss, mean over seeds.
        weights_interval: Its 95 % interval.
        activation_share: The same for the activation's half; None for a plain network, which has none.
        activation_interval: Its 95 % interval.
        interval: How the intervals were made: ``"Wilson, over steps"`` for a single seed, which is too narrow as the
            steps of one run are not independent; with more seeds ``"Student, over seeds"``, widened where
            Wilson's is wider (a few seeds may agree by chance, and Student's interval then has no width).
        weights_change: Median relative change of the loss by the weights' half, in per cent.
        activation_change: The same for the activation's half.
    """

    combination: str
    seeds: int
    steps: int
    weights_share: float
    weights_interval: tuple[float, float]
    activation_share: float | None
    activation_interval: tuple[float, float] | None
    interval: str
    weights_change: float
    activation_change: float | None


def activation_step_share(results: Iterable[TrialResult]) -> list[StepShare]:
    """Return a row for each combination whose trials probed single steps.

    A half that left the loss exactly as it was did not lower it.

    Args:
        results: Results of one run; trials that diverged are left out.

    Example:
        >>> activation_step_share([])
        []
    """
    run = Run.of(results, dataset="")
    rows = []
    for combination in run.groups:
        row = step_share(run, combination)
        if row is not None:
            rows.append(row)
    return rows


def probed(run: Run, combination: Combination) -> list[Steps]:
    """Return the probed steps of a combination, one entry for each seed that has any."""
    return [steps for steps in map(Steps.of, run.groups[combination]) if len(steps.iteration)]


def step_share(run: Run, combination: Combination) -> StepShare | None:
    """Return the row of one combination, or None if its trials probed no steps."""
    seeds = probed(run, combination)
    if not seeds:
        return None
    agile = is_agile(run.groups[combination])
    weights = [steps.weights for steps in seeds]
    activation = [steps.activation for steps in seeds]
    weights_share, weights_interval = _share(weights)
    activation_share, activation_interval = _share(activation) if agile else (None, None)
    return StepShare(
        combination=combination.label if combination.conv is not None else f"fully connected: {combination.label}",
        seeds=len(seeds),
        steps=sum(len(values) for values in weights),
        weights_share=weights_share,
        weights_interval=weights_interval,
        activation_share=activation_share,
        activation_interval=activation_interval,
        interval="Student, over seeds" if len(seeds) > 1 else "Wilson, over steps",
        weights_change=float(np.median(np.concatenate(weights))),
        activation_change=float(np.median(np.concatenate(activation))) if agile else None,
    )


def _share(changes: list[Values]) -> tuple[float, tuple[float, float]]:
    shares = [float((values < 0).mean()) for values in changes]
    lower = np.concatenate(changes) < 0
    wilson = require("scipy.stats", "paper").binomtest(int(lower.sum()), len(lower)).proportion_ci(method="wilson")
    low, high = float(wilson.low), float(wilson.high)
    student = paired_difference(shares, [0.0] * len(shares))
    if student.low is not None and student.high is not None:
        low, high = max(0.0, min(low, student.low)), min(1.0, max(high, student.high))
    return student.mean, (low, high)
