"""What a study found, each part derived once from one reading of its trials: what is shown, reported and exported."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from agileact.study.data.objective import lower_is_better
from agileact.study.results.contrasts import Cell, Comparison, compare, time_to
from agileact.study.results.idle import idle_seeds
from agileact.study.results.sensitivity import Sensitivity, sensitivity
from agileact.study.running.planner import Lookup, Part, plan
from agileact.study.spec.arms import Arm
from agileact.study.spec.protocol import Study
from agileact.study.spec.record import Circumstances
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import TrialSpec
from agileact.study.statistics import (
    Estimate,
    Profile,
    Ranking,
    TimesToLoss,
    average_ranks,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from agileact.study.statistics.summary import finite

_FAR = 3.0
"""A test loss of more than so many times the validation loss is told."""


@dataclass(frozen=True)
class Row:
    """A finished trial and its place in the study."""

    task: str
    arm: str
    phase: str
    result: TrialResult


class Outcome:
    """What is known of a study, finished or not.

    Args:
        study: The study, with the fingerprints of its data; its first arm is the baseline.
        lookup: Returns the result of a trial, or None if it was not run yet. It is asked now and not later.
        around: How the study was run, if it is known.
        matters: The smallest difference in test loss that would matter.
        level: Confidence of all verdicts together.

    Attributes:
        current: What is done and what comes next.
        unit: What intervals and tests are over: "seed" or "replicate".
        trials: Every finished trial, tuning and final ones, task after task and arm after arm.
        cells: One for each task and arm, task after task.

    Example:
        >>> from agileact.study.spec.arms import arm
        >>> from agileact.study.spec.tasks import task
        >>> study = Study("small", (arm("relu"), arm("agile-relu")), (task("digits-mlp"),))
        >>> outcome = Outcome(study, lambda spec: None)
        >>> outcome.current.done, [cell.arm for cell in outcome.cells]
        (0, ['relu', 'agile-relu'])
    """

    def __init__(
        self,
        study: Study,
        lookup: Lookup,
        around: Circumstances | None = None,
        *,
        matters: float | None = None,
        level: float = 0.95,
    ) -> None:
        self.study, self.around = study, around or Circumstances()
        self.current = plan(study, lookup)
        self._matters, self._level = matters, level
        self.unit = study.protocol.unit
        trials: list[Row] = []
        cells: list[Cell] = []
        for task in study.tasks:
            found: list[tuple[Arm, list[Part], list[TrialResult]]] = []
            for arm in study.arms:
                parts = [one for one in self.current.parts if (one.task, one.arm) == (task.name, arm.name)]
                tried, final = (
                    [one for part in parts for spec in getattr(part, name) if (one := lookup(spec)) is not None]
                    for name in ("tried", "final")
                )
                found.append((arm, parts, final))
                trials += [Row(task.name, arm.name, "tuning", result) for result in tried]
                trials += [Row(task.name, arm.name, "final", result) for result in final]
            whole, lower = [result for _, _, results in found for result in results], lower_is_better(task)
            baseline = {result.spec.seed: result for result in found[0][2]}
            for arm, parts, results in found:
                units, losses = self._units(parts, {result.spec: result for result in results})
                choices = tuple(one.choice for one in parts if one.choice is not None)
                times, idle = _times(results, baseline), idle_seeds(results, whole)
                of = (arm.name, task.name, tuple(results), units, losses, times, choices, idle, self.unit, lower)
                cells.append(Cell(*of))
        self.trials, self.cells = tuple(trials), tuple(cells)

    def _units(
        self, parts: Sequence[Part], results: Mapping[TrialSpec, TrialResult]
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the units that are done, and the loss of each: of a seed, or the mean of a whole replicate's seeds."""
        select = self.study.protocol.select
        if self.unit == "seed":
            return tuple(one.seed for one in results), tuple(loss(one, select) for one in results.values())
        whole = [one for one in parts if one.final and all(spec in results for spec in one.final)]
        means = [sum(loss(results[spec], select) for spec in one.final) / len(one.final) for one in whole]
        return tuple(one.replicate for one in whole), tuple(means)

    @property
    def baseline(self) -> Arm:
        """The study's first arm."""
        return self.study.arms[0]

    @property
    def arm_names(self) -> list[str]:
        """The names of all arms; an arm's place in it is its number on the report's page."""
        return [arm.name for arm in self.study.arms]

    def of_task(self, task: str) -> list[tuple[int, Cell]]:
        """Return the number and the cell of every arm on a task."""
        return list(enumerate(cell for cell in self.cells if cell.task == task))

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every arm against the baseline, task by task, over the seeds, or replicates, that both have."""
        count = len(self.study.arms)
        pairs = [(cell, self.cells[place - place % count]) for place, cell in enumerate(self.cells) if place % count]
        return compare(pairs, level=self._level, matters=self._matters)

    @cached_property
    def sensitivities(self) -> dict[tuple[str, str], Sensitivity]:
        """What the tuning trials so far tell of the learning rate, by task and arm."""
        tried: dict[tuple[str, str], list[TrialResult]] = {}
        for one in self.trials:
            if one.phase == "tuning":
                tried.setdefault((one.task, one.arm), []).append(one.result)
        found = ((key, sensitivity(key[1], key[0], results)) for key, results in tried.items())
        return {key: one for key, one in found if one is not None}

    @cached_property
    def ranking(self) -> Ranking | None:
        """Average ranks of the arms over tasks, by mean test loss; None for fewer than two tasks or arms.

        An arm of which a trial diverged is ranked behind all others on that task.
        """
        tasks, arms = len(self.study.tasks), len(self.study.arms)
        if tasks < 2 or arms < 2 or any(not cell.losses for cell in self.cells):
            return None
        # Arms that differ by rounding alone, as an agile one and its folded updates, share their rank.
        means = np.array([float(f"{sum(cell.losses) / len(cell.losses):.6g}") for cell in self.cells])
        return average_ranks(means.reshape(tasks, arms))

    @cached_property
    def over_tasks(self) -> "OverTasks | None":
        """What holds over all tasks together; None for fewer than two, or where losses cannot be compared."""
        count = len(self.study.arms)
        bases = [cell.summary() for cell in self.cells[::count]]
        scales = [base.mean for base in bases if base is not None and base.mean > 0]
        if len(bases) < 2 or len(scales) < len(bases):
            return None
        losses = {}
        for number, arm in enumerate(self.study.arms):
            columns = [cell.losses for cell in self.cells[number::count]]
            if columns[0] and len({len(column) for column in columns}) == 1:
                losses[arm.name] = np.array(columns).T / np.array(scales)
        return OverTasks(losses) if losses else None

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the whole study, as sentences without a full stop."""
        caveat = self.study.caveat()
        return [caveat] if caveat and self.comparisons else []

    @cached_property
    def flags(self) -> list[tuple[str, str, str]]:
        """What a reader must know beside the numbers, as (task, arm, sentence without a full stop).

        Notes of the tuning; and how many final runs have learned nothing, as a ReLU network does whose units have all
        died: one such run among ten moves a mean, and its interval, more than any activation does.
        """
        notes = []
        for one in self.current.choices.values():
            where = f"replicate {one.replicate}: " * (self.unit == "replicate")
            notes += [(one.task, one.arm, where + flag) for flag in one.flags]
        for cell in self.cells:
            if (note := _too_easy(cell)) is not None:
                notes.append((cell.task, cell.arm, note))
            if cell.idle:
                runs = f"{len(cell.idle)} of {len(cell.results)} final runs"
                note = f"{runs} did not learn: the validation loss never came 5 % below an untrained network's"
                notes.append((cell.task, cell.arm, note))
        return notes


def loss(result: TrialResult, select: str = "validation") -> float:
    """Return a final trial's test loss as the protocol selects it; infinite if the trial diverged.

    A trial that diverged counts as what it is, even if its loss was low before.
    """
    value = result.best_test_loss if select == "test" else result.selected_test_loss
    return math.inf if result.status == "diverged" or value is None else value


def _too_easy(cell: Cell) -> str | None:
    """Say that the validation loss, by which rate and iteration were chosen, is far below the test loss."""
    pairs = [
        (min(result.curve.validation_loss), result.selected_test_loss)
        for result in cell.results
        if result.status != "diverged" and result.selected_test_loss is not None and result.curve.validation_loss
    ]
    if not pairs:
        return None
    validation, test = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    if test <= _FAR * validation:
        return None
    return (
        f"the validation loss, {validation:.2g}, is far below the test loss, {test:.2g}: what is chosen by it may be "
        "no better elsewhere; set more samples aside for validation, of the same kind as the test samples"
    )


def _times(results: Sequence[TrialResult], baseline: dict[int, TrialResult]) -> TimesToLoss | None:
    times = []
    for result in results:
        other = baseline.get(result.spec.seed)
        if other is None or other.status == "diverged":
            return None
        times.append(time_to(result, min(other.curve.validation_loss)))
    return TimesToLoss(tuple(times)) if times else None


_RESAMPLES = 1000
_THRESHOLDS = 41
_FEW = 8
"""So many arms at most are compared pair by pair."""


class OverTasks:
    """Losses of all tasks, each divided by the mean of the baseline's finite ones there, which makes them comparable.

    They are runs (or replicates) x tasks, by arm; only of arms that have as many on every task.
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
    return {name: finite(value) for name, value in vars(one).items()}
