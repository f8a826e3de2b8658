"""What a study found: for each task and arm the final trials, against the baseline."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agileact.study.results.idle import idle_seeds, untrained_loss
from agileact.study.running.naming import trial_name
from agileact.study.running.planner import Choice, Lookup, Plan, final_trials, tuned
from agileact.study.spec.protocol import Study
from agileact.study.spec.result import TrialResult
from agileact.study.statistics import (
    Ranking,
    Summary,
    TimesToLoss,
    TimeToLoss,
    Verdict,
    average_ranks,
    common_target,
    holm,
    sign_flip_test,
    signed_rank,
    summarise,
    time_to_loss,
    verdict,
)


@dataclass(frozen=True)
class Cell:
    """The final trials of one arm on one task, by seed.

    Attributes:
        arm: The arm's name.
        task: The task's name.
        results: The finished final trials.
        losses: Test loss of each, as the protocol selects it; infinite for a trial that diverged.
        times: When each reached the lowest validation loss of the baseline's trial with the same seed; None if the
            baseline's trial is missing or diverged for one of them.
        choice: What tuning chose; None without tuning.
        idle: The seeds of which the trial did not learn at all.
    """

    arm: str
    task: str
    results: tuple[TrialResult, ...]
    losses: tuple[float, ...]
    times: TimesToLoss | None
    choice: Choice | None
    idle: tuple[int, ...] = ()

    @property
    def diverged(self) -> int:
        """How many of the trials diverged."""
        return sum(result.status == "diverged" for result in self.results)

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies of the trials that did not diverge, between 0 and 1; none of a regression."""
        found = [result.selected_test_accuracy for result in self.results if result.status != "diverged"]
        return [value for value in found if value is not None]

    def summary(self) -> Summary | None:
        """Return mean and spread of the losses of the trials that did not diverge; None if there are none."""
        return summarise([loss for loss in self.losses if math.isfinite(loss)])


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline on one task.

    Attributes:
        arm: The arm's name.
        task: The task's name.
        verdict: On the test loss.
        times: Time to the baseline's best validation loss, in words.
        common: Time to the loss that both reach; None if a trial is missing or diverged.
    """

    arm: str
    task: str
    verdict: Verdict
    times: str
    common: Common | None


@dataclass(frozen=True)
class Common:
    """When an arm and the baseline reached the loss that both reach: seed by seed the worse of their two best.

    Attributes:
        arm: The arm's times.
        base: The baseline's.
        p_value: Paired permutation test on the iterations, corrected.
    """

    arm: TimesToLoss
    base: TimesToLoss
    p_value: float

    def describe(self, arm: str, base: str) -> str:
        """Return the outcome in words."""
        words = []
        for name, times in ((arm, self.arm), (base, self.base)):
            words.append(f"{name} after {times.median():g} iterations and {times.median('seconds'):.2g} s")
        return (
            f"to the validation loss that both reach: in the median {words[0]}, {words[1]} (paired permutation test "
            f"p = {self.p_value:.2g})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the medians and the p-value for JSON."""
        medians = {unit: [self.arm.median(unit), self.base.median(unit)] for unit in ("iterations", "seconds")}
        return {**medians, "p": self.p_value}


def cells(study: Study, current: Plan, lookup: Lookup) -> list[Cell]:
    """Return what is known of each task and arm, task after task."""
    found: list[Cell] = []
    for task in study.tasks:
        baseline: dict[int, TrialResult] = {}
        row: list[Cell] = []
        for arm in study.arms:
            choice = current.choices.get((arm.name, task.name))
            if study.protocol.tune and choice is None:
                row.append(Cell(arm.name, task.name, (), (), None, None))
                continue
            specs = final_trials(study.protocol, arm, task, choice.point if choice else None)
            results = tuple(result for spec in specs if (result := lookup(spec)) is not None)
            if arm is study.arms[0]:
                baseline = {result.spec.seed: result for result in results}
            losses = tuple(loss(result, study.protocol.select) for result in results)
            row.append(Cell(arm.name, task.name, results, losses, _times(results, baseline), choice))
        whole = [result for cell in row for result in cell.results]
        found += [dataclasses.replace(cell, idle=idle_seeds(cell.results, whole)) for cell in row]
    return found


def loss(result: TrialResult, select: str = "validation") -> float:
    """Return a final trial's test loss as the protocol selects it; infinite if the trial diverged.

    A trial that diverged counts as what it is, even if its loss was low before.
    """
    value = result.best_test_loss if select == "test" else result.selected_test_loss
    return math.inf if result.status == "diverged" or value is None else value


def _times(results: Sequence[TrialResult], baseline: dict[int, TrialResult]) -> TimesToLoss | None:
    times = []
    for result in results:
        other = baseline.get(result.spec.seed)
        if other is None or other.status == "diverged":
            return None
        times.append(_time(result, min(other.curve.validation_loss)))
    return TimesToLoss(tuple(times)) if times else None


def _time(result: TrialResult, target: float) -> TimeToLoss:
    """Return when a run reached a loss; one that is equal but for the rounding of float32 has."""
    return time_to_loss(
        result.curve.iteration,
        result.curve.validation_loss,
        target + 1e-6 * abs(target),
        seconds_per_iteration=result.seconds_per_iteration,
    )


def comparisons(
    study: Study, found: Sequence[Cell], *, level: float = 0.95, matters: float | None = None
) -> list[Comparison]:
    """Compare every arm with the baseline (the study's first arm), task by task, over the seeds that both have.

    All comparisons of the study are read together: p-values are corrected by Holm's method, intervals by
    Bonferroni's. Signed ranks are a second look at the same seeds, corrected among themselves; no arm is called
    better or worse by them.

    Args:
        study: The study.
        found: From :func:`cells`.
        level: Confidence of all verdicts together.
        matters: The smallest difference in test loss that would matter.
    """
    by_name = {(cell.arm, cell.task): cell for cell in found}
    pairs = []
    for task in study.tasks:
        base = by_name[study.arms[0].name, task.name]
        for arm in study.arms[1:]:
            cell = by_name[arm.name, task.name]
            if {r.spec.seed for r in cell.results} & {r.spec.seed for r in base.results}:
                pairs.append((cell, base, *paired_losses(cell, base)))
    finite = [all(map(math.isfinite, (*first, *second))) for _, _, first, second in pairs]
    corrected = iter(
        holm([sign_flip_test(first, second) for (_, _, first, second), ok in zip(pairs, finite, strict=True) if ok])
    )
    ranks = holm([signed_rank(first, second).p_value for _, _, first, second in pairs])
    common = [_common(cell, base) for cell, base, _, _ in pairs]
    tests = [
        sign_flip_test(*([float(time.iteration or 0) for time in one.times] for one in both)) for both in common if both
    ]
    corrected_times = iter(holm(tests))
    return [
        Comparison(
            cell.arm,
            cell.task,
            verdict(
                cell.arm,
                first,
                base.arm,
                second,
                level=level,
                matters=matters,
                comparisons=len(pairs),
                p_value=next(corrected) if ok else None,
                rank_p=rank,
                idle=idle_pairs(cell, base),
            ),
            _times_in_words(cell, base),
            None if both is None else Common(*both, next(corrected_times)),
        )
        for (cell, base, first, second), ok, both, rank in zip(pairs, finite, common, ranks, strict=True)
    ]


def paired_losses(cell: Cell, base: Cell) -> tuple[list[float], list[float]]:
    """Return the losses of two cells over the seeds that both have, in the same order."""
    first, second = (
        {result.spec.seed: value for result, value in zip(one.results, one.losses, strict=True)} for one in (cell, base)
    )
    seeds = [seed for seed in first if seed in second]
    return [first[seed] for seed in seeds], [second[seed] for seed in seeds]


def idle_pairs(cell: Cell, base: Cell) -> tuple[int, int]:
    """Return how many runs of two cells did not learn, among the seeds that both have."""
    shared = {result.spec.seed for result in cell.results} & {result.spec.seed for result in base.results}
    return len(shared.intersection(cell.idle)), len(shared.intersection(base.idle))


def _common(cell: Cell, base: Cell) -> tuple[TimesToLoss, TimesToLoss] | None:
    """Return when the arm's and the baseline's runs reached the loss that both reach, over the seeds of both."""
    own = {result.spec.seed: result for result in cell.results}
    times: tuple[list[TimeToLoss], list[TimeToLoss]] = ([], [])
    for other in base.results:
        result = own.get(other.spec.seed)
        if result is None:
            continue
        target = common_target(result.curve.validation_loss, other.curve.validation_loss)
        if target is None or "diverged" in (result.status, other.status):
            return None
        for found, run in zip(times, (result, other), strict=True):
            found.append(_time(run, target))
    return (TimesToLoss(tuple(times[0])), TimesToLoss(tuple(times[1]))) if times[0] else None


def _times_in_words(cell: Cell, base: Cell) -> str:
    """Return what stands behind the word "Time"."""
    if cell.times is None or base.times is None:
        return f"to the best validation loss of {base.arm}: not defined, a trial is missing or diverged"
    own = cell.times.describe()
    if cell.diverged == len(cell.results):
        # How long they lasted says nothing of a median.
        own = f"{cell.times.reached} of {cell.diverged} runs got there; all of them diverged"
    return f"to the best validation loss of {base.arm}: {cell.arm} {own}; {base.arm} itself {base.times.describe()}"


def ranking(study: Study, found: Sequence[Cell]) -> Ranking | None:
    """Return average ranks of the arms over tasks, by mean test loss; None for fewer than two tasks or arms.

    An arm of which a trial diverged is ranked behind all others on that task.
    """
    if len(study.tasks) < 2 or len(study.arms) < 2 or any(not cell.losses for cell in found):
        return None
    # Arms that differ by rounding alone, as an agile one and its folded updates, share their rank.
    means = np.array([float(f"{sum(cell.losses) / len(cell.losses):.6g}") for cell in found])
    return average_ranks(means.reshape(len(study.tasks), len(study.arms)))


def flags(current: Plan, found: Sequence[Cell]) -> list[tuple[str, str, str]]:
    """Return what a reader must know beside the numbers, as (task, arm, sentence without a full stop).

    Notes of the tuning; and how many final runs have learned nothing, as a ReLU network does whose units have all died:
    one such run among ten moves a mean, and its interval, more than any activation does.
    """
    notes = [(one.task, one.arm, flag) for one in current.choices.values() for flag in one.flags]
    for cell in found:
        if cell.idle:
            runs = f"{len(cell.idle)} of {len(cell.results)} final runs"
            note = f"{runs} did not learn: the validation loss never came 5 % below an untrained network's"
            notes.append((cell.task, cell.arm, note))
    return notes


HEADER = (
    "task",
    "arm",
    "lr",
    "activation lr",
    "test loss",
    "accuracy, %",
    "iterations to the baseline's best",
    "ms per iteration",
    "parameters",
    "kB for backward",
    "seeds",
)


def row(cell: Cell) -> tuple[str, ...]:
    """Return a cell as text, one entry for each name in ``HEADER``."""
    results = cell.results
    if not results:
        return (cell.task, cell.arm, *["–"] * (len(HEADER) - 3), "0")
    spec = results[0].spec.arm
    summary = cell.summary()
    accuracies = summarise([value * 100 for value in cell.accuracies])
    steps = summarise([result.seconds_per_iteration * 1000 for result in results])
    lost = [f"{n} {what}" for n, what in ((cell.diverged, "diverged"), (len(cell.idle), "did not learn")) if n]
    time = "–"
    if cell.times is not None:
        middle = cell.times.median()
        whole = [one.horizon for one, r in zip(cell.times.times, results, strict=True) if r.status != "diverged"]
        beyond = f"> {min(whole)}" if whole else "never"
        time = (beyond if middle is None else f"{middle:g}") + f" ({cell.times.reached} of {len(cell.times.times)})"
    return (
        cell.task,
        cell.arm,
        f"{spec.lr:g}",
        "–" if spec.activation_lr is None else f"{spec.activation_lr:g}",
        "–" if summary is None else summary.format(4),
        "–" if accuracies is None else accuracies.format(2),
        time,
        "–" if steps is None else f"{steps.mean:.2f}",
        f"{results[0].parameters:,}",
        "–" if results[0].saved_bytes is None else f"{results[0].saved_bytes / 1000:,.0f}",
        f"{len(results)}" + (f" ({', '.join(lost)})" if lost else ""),
    )


def trial_rows(study: Study, current: Plan, lookup: Lookup) -> list[dict[str, Any]]:
    """Return one flat row for every finished trial of the study, tuning and final ones.

    A number that does not exist is None; an infinite one is None too, with the status saying why.
    """
    rows: list[dict[str, Any]] = []
    for task in study.tasks:
        for arm in study.arms:
            choice = current.choices.get((arm.name, task.name))
            # What is done of a tuning that is not, too.
            done = tuned(study.protocol, arm, task, lookup)[2] if study.protocol.tune else []
            batches = [("tuning", done)]
            if choice or not study.protocol.tune:
                batches.append(("final", final_trials(study.protocol, arm, task, choice.point if choice else None)))
            for phase, specs in batches:
                for spec in specs:
                    result = lookup(spec)
                    if result is not None:
                        rows.append(_flat(study, task.name, arm.name, phase, result))
    return rows


def _flat(study: Study, task: str, arm: str, phase: str, result: TrialResult) -> dict[str, Any]:
    spec = result.spec
    lowest = min((value for value in result.curve.validation_loss if math.isfinite(value)), default=None)
    values: dict[str, Any] = {
        "study": study.name,
        "task": task,
        "arm": arm,
        "phase": phase,
        "seed": spec.seed,
        "lr": spec.arm.lr,
        "activation_lr": spec.arm.activation_lr,
        "optimizer": spec.arm.optimizer,
        "status": result.status,
        "untrained_loss": untrained_loss(result),
        "validation_loss": lowest,
        "iteration": result.selected_iteration,
        "test_loss": result.selected_test_loss,
        "test_accuracy": result.selected_test_accuracy,
        "lowest_test_loss": result.best_test_loss,
        "parameters": result.parameters,
        "saved_bytes": result.saved_bytes,
        "seconds_per_iteration": result.seconds_per_iteration,
        "seconds": result.seconds,
        "description": trial_name(spec),
        "trial": spec.key,
        **{f"version_{name}": number for name, number in result.versions.items()},
    }
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
