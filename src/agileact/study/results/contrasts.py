"""The final trials of an arm on a task, and an arm against the baseline: the verdict and the numbers behind it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from agileact.study.data.objective import metric_of
from agileact.study.running.planner import Choice
from agileact.study.spec.result import TrialResult
from agileact.study.statistics import (
    Difference,
    EffectSize,
    Estimate,
    Summary,
    TimesToLoss,
    TimeToLoss,
    Verdict,
    common_target,
    effect_size,
    holm,
    paired_difference,
    probability_of_improvement,
    sign_flip_test,
    signed_rank,
    summarise,
    time_to_loss,
    verdict,
)
from agileact.study.statistics.summary import finite

_RESAMPLES = 1000


@dataclass(frozen=True)
class Cell:
    """The final trials of one arm on one task, by seed."""

    arm: str
    task: str
    results: tuple[TrialResult, ...]
    units: tuple[int, ...]
    """What intervals and tests are over: the seeds of the results, or the replicates of which all are there."""
    losses: tuple[float, ...]
    """Test loss of each unit, as the protocol selects it; infinite where a trial diverged."""
    times: TimesToLoss | None
    """To the lowest validation loss of the baseline's trial with the same seed; None if one of these is missing."""
    choices: tuple[Choice, ...]
    idle: tuple[int, ...] = ()
    """The seeds of which the trial did not learn at all."""
    unit: str = "seed"
    lower: bool = False
    """Whether low values of the metric are good."""

    def of(self, result: TrialResult) -> int:
        """Return the unit that a trial belongs to."""
        return result.spec.seed if self.unit == "seed" else result.spec.task.data.split

    @property
    def diverged(self) -> int:
        """How many of the trials diverged."""
        return sum(result.status == "diverged" for result in self.results)

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies of the trials that did not diverge, between 0 and 1; none of a regression."""
        found = [result.selected_test_accuracy for result in self.results if result.status != "diverged"]
        return [value for value in found if value is not None]

    @property
    def metric(self) -> str:
        """The name of what stands beside the loss."""
        return metric_of(self.results[0].spec.task.data) if self.results else "accuracy"

    def accuracy(self, units: Sequence[int]) -> float | None:
        """Return the mean test accuracy, or other metric, in some units; None where there is none."""
        results = [result for result in self.results if result.status != "diverged" and self.of(result) in units]
        known = [result.selected_test_accuracy for result in results if result.selected_test_accuracy is not None]
        return sum(known) / len(known) if known else None

    def summary(self) -> Summary | None:
        """Return mean and spread of the losses of the units that did not diverge; None if there are none."""
        return summarise([loss for loss in self.losses if math.isfinite(loss)])


@dataclass(frozen=True)
class Common:
    """When an arm and the baseline reached the loss that both reach: seed by seed the worse of their two best.

    The p-value is of the paired permutation test on the iterations, corrected.
    """

    arm: TimesToLoss
    base: TimesToLoss
    p_value: float

    def describe(self, arm: str, base: str) -> str:
        """Return the outcome in words."""
        words = [
            f"{name} after {times.median():g} iterations and {times.median('seconds'):.2g} s"
            for name, times in ((arm, self.arm), (base, self.base))
        ]
        return (
            f"to the validation loss that both reach: in the median {words[0]}, {words[1]} (paired permutation test "
            f"p = {self.p_value:.2g})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the medians and the p-value for JSON."""
        medians = {unit: [self.arm.median(unit), self.base.median(unit)] for unit in ("iterations", "seconds")}
        return {**medians, "p": self.p_value}


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline on one task, over the seeds, or replicates, that both have."""

    arm: str
    base: str
    task: str
    units: tuple[int, ...]
    first: tuple[float, ...]
    """Test loss of the arm in each unit; infinite where a run diverged."""
    second: tuple[float, ...]
    verdict: Verdict
    idle: tuple[int, int]
    """How many runs of the arm, and of the baseline, did not learn at all."""
    times: str
    """Time to the baseline's best validation loss, in words."""
    common: Common | None
    together: int
    """How many comparisons are read together, all with the confidence ``level``."""
    level: float
    unit: str = "seed"
    accuracy: tuple[float | None, float | None] = (None, None)
    """Mean test accuracy, or other metric, of the arm and of the baseline."""
    metric: str = "accuracy"
    lower: bool = False

    @property
    def beside(self) -> list[str]:
        """The sentences that stand beside the verdict: signed ranks, the accuracy, and how soon."""
        own, base = self.accuracy
        told = []
        if own is not None and base is not None:
            percent = f"Accuracy {100 * own:.2f} % against {100 * base:.2f} %."
            way = ", of which lower is better" * self.lower
            other = f"Metric {self.metric}{way}: {own:.4g} against {base:.4g}."
            told = [percent if self.metric == "accuracy" and not self.lower else other]
        return [
            self.verdict.by_seed,
            *told,
            f"Time {self.times}.",
            *([] if self.common is None else [f"Time {self.common.describe(self.arm, self.base)}."]),
        ]

    @property
    def differences(self) -> list[float | None]:
        """Test loss of the arm minus that of the baseline, a value a unit; None where one of them diverged."""
        pairs = zip(self.first, self.second, strict=True)
        return [a - b if math.isfinite(a) and math.isfinite(b) else None for a, b in pairs]

    @property
    def _several(self) -> bool:
        """Whether there are several pairs and no run diverged."""
        return len(self.first) > 1 and None not in self.differences

    @cached_property
    def bootstrap(self) -> Difference | None:
        """Mean difference with its BCa bootstrap interval, corrected as the verdict's is.

        None if a run diverged or there is one pair.
        """
        if not self._several:
            return None
        return paired_difference(
            self.first, self.second, level=self.level, comparisons=self.together, method="bootstrap"
        )

    @cached_property
    def effect(self) -> EffectSize | None:
        """Standardised mean difference; None if a run diverged, there is one pair, or differences do not vary."""
        return effect_size(self.first, self.second) if self._several else None

    @cached_property
    def improvement(self) -> Estimate:
        """Probability that a run of the arm has a lower loss than a run of the baseline, with its own interval.

        A run that diverged is the worst there is.
        """
        columns = ([[value] for value in losses] for losses in (self.first, self.second))
        return probability_of_improvement(*columns, level=self.level, resamples=_RESAMPLES)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers behind the verdict as plain JSON types; what does not exist is None."""
        found, typical = self.verdict, self.verdict.typical
        return {
            "task": self.task,
            "arm": self.arm,
            "decision": found.decision,
            f"{self.unit}s": list(self.units),
            "differences": self.differences,
            "mean": None if found.difference is None else found.difference.mean,
            "student": bounds(found.difference),
            "bootstrap": bounds(self.bootstrap),
            "p": found.p_value,
            "detectable": found.detectable,
            "typical": typical.estimate,
            # None in the place of a bound that diverged runs leave open.
            "typical_interval": None
            if typical.low is None or typical.high is None
            else [finite(typical.low), finite(typical.high)],
            "signed_rank_p": found.rank_p,
            "seeds_lower": typical.lower,
            "seeds_higher": typical.higher,
            "did_not_learn": list(self.idle),
            "metric": self.metric,
            "better": "lower" if self.lower else "higher",
            "accuracy": list(self.accuracy),
            "effect_size_d": None if self.effect is None else self.effect.d,
            "effect_size_g": None if self.effect is None else self.effect.g,
            "probability_of_improvement": self.improvement.value,
            "probability_of_improvement_interval": bounds(self.improvement),
        }


def bounds(found: Difference | Estimate | None) -> list[float] | None:
    """Return the ends of an interval, if there is one."""
    return None if found is None or found.low is None or found.high is None else [found.low, found.high]


def compare(
    pairs: Sequence[tuple[Cell, Cell]], *, level: float = 0.95, matters: float | None = None
) -> tuple[Comparison, ...]:
    """Compare cells of arms with those of the baseline over the units that both have; pairs without one are left out.

    All comparisons are read together: p-values are corrected by Holm's method, intervals by Bonferroni's. Signed ranks
    are a second look at the same seeds, corrected among themselves; no arm is called better or worse by them.
    """
    found = []
    for cell, base in pairs:
        own, other = (dict(zip(one.units, one.losses, strict=True)) for one in (cell, base))
        if units := tuple(unit for unit in own if unit in other):
            found.append((cell, base, units, [own[unit] for unit in units], [other[unit] for unit in units]))
    finite = [all(map(math.isfinite, (*first, *second))) for *_, first, second in found]
    tests = [sign_flip_test(first, second) for (*_, first, second), ok in zip(found, finite, strict=True) if ok]
    corrected = iter(holm(tests))
    ranks = holm([signed_rank(first, second).p_value for *_, first, second in found])
    common = [_common(cell, base) for cell, base, *_ in found]
    corrected_times = iter(holm([sign_flip_test(both[2], both[3]) for both in common if both]))
    compared = []
    for (cell, base, units, first, second), ok, rank, both in zip(found, finite, ranks, common, strict=True):
        runs = [result.spec.seed for result in cell.results if cell.of(result) in units]
        idle = len({*runs} & {*cell.idle}), len({*runs} & {*base.idle})
        told = verdict(
            cell.arm,
            first,
            base.arm,
            second,
            level=level,
            matters=matters,
            comparisons=len(found),
            p_value=next(corrected) if ok else None,
            rank_p=rank,
            idle=idle,
            runs=len(runs),
            unit=cell.unit,
        )
        compared.append(
            Comparison(
                cell.arm,
                base.arm,
                cell.task,
                units,
                tuple(first),
                tuple(second),
                told,
                idle,
                _times_in_words(cell, base),
                Common(*both[:2], next(corrected_times)) if both else None,
                len(found),
                level,
                cell.unit,
                (cell.accuracy(units), base.accuracy(units)),
                cell.metric,
                cell.lower,
            )
        )
    return tuple(compared)


def time_to(result: TrialResult, target: float) -> TimeToLoss:
    """Return when a run reached a validation loss; one that is equal but for the rounding of float32 has."""
    return time_to_loss(
        result.curve.iteration,
        result.curve.validation_loss,
        target + 1e-6 * abs(target),
        seconds_per_iteration=result.seconds_per_iteration,
    )


def _common(cell: Cell, base: Cell) -> tuple[TimesToLoss, TimesToLoss, list[float], list[float]] | None:
    """Return when the runs of both arms reached the loss that both reach, and the iterations of each unit."""
    own = {result.spec.seed: result for result in cell.results}
    times: tuple[list[TimeToLoss], list[TimeToLoss]] = ([], [])
    sums: dict[int, list[float]] = {}
    for other in base.results:
        result = own.get(other.spec.seed)
        if result is None:
            continue
        target = common_target(result.curve.validation_loss, other.curve.validation_loss)
        if target is None or "diverged" in (result.status, other.status):
            return None
        for found, run in zip(times, (result, other), strict=True):
            found.append(time_to(run, target))
        taken = sums.setdefault(cell.of(result), [0.0, 0.0, 0.0])
        for place, number in enumerate((times[0][-1].iteration or 0, times[1][-1].iteration or 0, 1)):
            taken[place] += number
    if not times[0]:
        return None
    first, second = ([one[place] / one[2] for one in sums.values()] for place in (0, 1))
    return TimesToLoss(tuple(times[0])), TimesToLoss(tuple(times[1])), first, second


def _times_in_words(cell: Cell, base: Cell) -> str:
    """Return what stands behind the word "Time"."""
    if cell.times is None or base.times is None:
        return f"to the best validation loss of {base.arm}: not defined, a trial is missing or diverged"
    own = cell.times.describe()
    if cell.diverged == len(cell.results):
        # How long they lasted says nothing of a median.
        own = f"{cell.times.reached} of {cell.diverged} runs got there; all of them diverged"
    return f"to the best validation loss of {base.arm}: {cell.arm} {own}; {base.arm} itself {base.times.describe()}"
