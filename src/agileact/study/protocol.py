"""The fair protocol: the same tuning budget for every arm, fresh paired seeds, the test set once. A pure planner.

:func:`plan` says, from a study and the results that exist, which trials come next. It keeps nothing: a study that was
stopped goes on where it stood, and the same results give the same plan.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agileact._errors import ArgumentError
from agileact._suggest import suggestion, unknown
from agileact.study.arms import Arm
from agileact.study.result import TrialResult
from agileact.study.spec import ArmSpec, TrialSpec
from agileact.study.tasks import Task
from agileact.study.training import has_trainable_activations

Lookup = Callable[[TrialSpec], TrialResult | None]
"""Returns the result of a trial, or None if it was not run yet."""

_FINEST = 1.1
"""Learning rates closer than this factor are not told apart."""


@dataclass(frozen=True)
class Protocol:
    """How arms are made comparable; every step can be overridden, and what was done is part of the study's record.

    Attributes:
        tune: Whether learning rates are tuned, for each arm and task by themselves. If not, the arms' own are used.
        trials: Points that each arm may try on each task: the same number for all, however many rates an arm has.
        lr: The learning rates that every arm begins with, increasing.
        activation_lr: Factors of the activation learning rate over ``lr`` that an arm with trainable activations tries
            at its best learning rate; the factor 1 was tried already.
        tuning_seeds: Each point is run with all of these; its score is the mean of their lowest validation losses.
        extend: Whether an arm whose best value lies at the edge of what it tried goes further, within its trials.
        seeds: Seeds of the final trials. All arms have the same, hence the same initial weights and batches.
        select: "validation": a final trial counts with its iteration of lowest validation loss. "test": with its
            lowest test loss, as the paper does, which flatters.
        test: "once": the test set is evaluated once per final trial, at that iteration. "curve": at every evaluation.
    """

    tune: bool = True
    trials: int = 8
    lr: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01)
    activation_lr: tuple[float, ...] = (0.3, 3.0)
    tuning_seeds: tuple[int, ...] = (1000, 1001)
    extend: bool = True
    seeds: tuple[int, ...] = tuple(range(10))
    select: str = "validation"
    test: str = "once"

    def __post_init__(self) -> None:
        for name in ("seeds", "tuning_seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values) or min(values) < 0:
                raise ArgumentError(f"{name} must be different whole numbers from 0, at least one, not {values}")
        for name, allowed in (("select", ("validation", "test")), ("test", ("once", "curve"))):
            value = getattr(self, name)
            if value not in allowed:
                choices = " or ".join(map(repr, allowed))
                raise ArgumentError(f"{name} must be {choices}, not {value!r}{suggestion(value, allowed)}")
        if self.select == "test" and self.test != "curve":
            raise ArgumentError("select 'test' needs test 'curve': the test loss at every evaluation")
        for name in ("lr", "activation_lr"):
            values = getattr(self, name)
            if any(not 0 < value < math.inf for value in values) or list(values) != sorted(set(values)):
                raise ArgumentError(f"{name} must be increasing positive numbers, not {values}")
        if 1.0 in self.activation_lr:
            raise ArgumentError("activation_lr must not name the factor 1: every learning rate is tried with it first")
        if not self.tune:
            return
        if not self.lr or self.trials < len(self.lr):
            raise ArgumentError(
                f"trials must be at least the number of learning rates, {len(self.lr)}, not {self.trials}"
            )
        shared = sorted(set(self.seeds) & set(self.tuning_seeds))
        if shared:
            raise ArgumentError(f"seeds must be fresh ones: {', '.join(map(str, shared))} would be tuned on too")


@dataclass(frozen=True)
class Study:
    """Arms x tasks x seeds under a protocol.

    Attributes:
        name: What it is called.
        arms: What is compared; the first is the baseline that the others are compared with.
        tasks: Where.
        protocol: How.
    """

    name: str
    arms: tuple[Arm, ...]
    tasks: tuple[Task, ...]
    protocol: Protocol = Protocol()

    def __post_init__(self) -> None:
        for what, entries in (("arm", self.arms), ("task", self.tasks)):
            names = [entry.name for entry in entries]
            if not names:
                raise ArgumentError(f"a study needs at least one {what}")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ArgumentError(f"two {what}s are called {twice[0]!r}")

    def against(self, name: str) -> Study:
        """Return the study with another of its arms as the baseline; its trials are the same.

        Raises:
            ArgumentError: If there is no such arm.

        Example:
            >>> from agileact.study.arms import arm
            >>> from agileact.study.tasks import task
            >>> study = Study("s", (arm("relu"), arm("agile-relu"), arm("prelu")), (task("paper-mlp"),))
            >>> [one.name for one in study.against("prelu").arms]
            ['prelu', 'relu', 'agile-relu']
        """
        names = [one.name for one in self.arms]
        if name not in names:
            raise ArgumentError(unknown("arm", name, names))
        return dataclasses.replace(self, arms=tuple(sorted(self.arms, key=lambda one: one.name != name)))

    @property
    def most_trials(self) -> int:
        """How many trials the study has at most: fewer if an arm stops tuning early."""
        tuning = self.protocol.trials * len(self.protocol.tuning_seeds) if self.protocol.tune else 0
        return len(self.arms) * len(self.tasks) * (tuning + len(self.protocol.seeds))

    @property
    def comparisons(self) -> int:
        """How many verdicts are read together: every arm but the baseline, on every task."""
        return (len(self.arms) - 1) * len(self.tasks)

    @property
    def least_seeds(self) -> int:
        """With how many seeds the exact paired test can reach 0.05, corrected for all comparisons.

        Example:
            >>> from agileact.study.arms import arm
            >>> from agileact.study.tasks import task
            >>> [Study("s", tuple(map(arm, names)), (task("paper-mlp"),)).least_seeds
            ...  for names in (["relu", "prelu"], ["relu", "prelu", "gelu", "silu"])]
            [6, 7]
        """
        return math.ceil(math.log2(2 * max(1, self.comparisons) / 0.05))

    def warning(self) -> str | None:
        """Say that the seeds are too few for any claim, if they are."""
        count = len(self.protocol.seeds)
        if not self.comparisons or count >= self.least_seeds:
            return None
        return (
            f"{count} seed{'s' * (count != 1)} cannot show a difference, however large it is: the exact paired test of "
            f"{self.comparisons} comparison{'s' * (self.comparisons != 1)} needs at least {self.least_seeds}"
        )


@dataclass(frozen=True)
class Point:
    """What is tuned: a learning rate, and the activation learning rate as a factor of it."""

    lr: float
    factor: float = 1.0

    @property
    def activation_lr(self) -> float | None:
        """The activation learning rate; None where it is the learning rate."""
        return None if self.factor == 1.0 else _round(self.lr * self.factor)


@dataclass(frozen=True)
class Choice:
    """The outcome of tuning one arm on one task.

    Attributes:
        arm: The arm's name.
        task: The task's name.
        point: What was chosen.
        scores: Every point that was tried, with its score: infinite if a trial diverged.
        flags: What a reader must know, such as that the best value lies at the edge of what was tried.
    """

    arm: str
    task: str
    point: Point
    scores: tuple[tuple[Point, float], ...]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What comes next.

    Attributes:
        tuning: Tuning trials that can run now.
        final: Final trials that can run now.
        done: Finished trials of this study.
        choices: What was chosen so far, by (arm, task); empty without tuning.
    """

    tuning: tuple[TrialSpec, ...]
    final: tuple[TrialSpec, ...]
    done: int
    choices: dict[tuple[str, str], Choice]

    @property
    def next(self) -> tuple[TrialSpec, ...]:
        """All trials that can run now."""
        return (*self.tuning, *self.final)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run."""
        return not self.next


def plan(study: Study, lookup: Lookup) -> Plan:
    """Return the trials that come next, given the results that exist.

    Final trials of an arm and a task come as soon as its tuning is over. Trials whose spec several arms share
    are planned once.

    Args:
        study: What is studied.
        lookup: Returns the result of a trial, or None.

    Example:
        >>> from agileact.study.arms import arm
        >>> from agileact.study.tasks import task
        >>> study = Study("s", (arm("relu"), arm("agile-relu")), (task("paper-mlp"),))
        >>> first = plan(study, lambda spec: None)  # two arms, four learning rates, two tuning seeds
        >>> len(first.tuning), len(first.final), first.finished
        (16, 0, False)
    """
    tuning: list[TrialSpec] = []
    final: list[TrialSpec] = []
    choices: dict[tuple[str, str], Choice] = {}
    done: set[TrialSpec] = set()
    for task in study.tasks:
        for arm in study.arms:
            point: Point | None = None
            if study.protocol.tune:
                scores, missing, ran = tuned(study.protocol, arm, task, lookup)
                done.update(ran)
                if missing:
                    tuning += missing
                    continue
                choice = _choose(study.protocol, arm, task, scores)
                choices[arm.name, task.name] = choice
                point = choice.point
            for spec in final_trials(study.protocol, arm, task, point):
                if lookup(spec) is None:
                    final.append(spec)
                else:
                    done.add(spec)
    return Plan(tuple(dict.fromkeys(tuning)), tuple(dict.fromkeys(final)), len(done), choices)


def final_trials(protocol: Protocol, arm: Arm, task: Task, point: Point | None) -> list[TrialSpec]:
    """Return the final trials of an arm on a task, with what was chosen or, without a choice, the arm's own rates."""
    budget = dataclasses.replace(task.spec.budget, test_curve=protocol.test == "curve", use_test=True)
    spec = arm.spec if point is None else _at(arm, point)
    return [TrialSpec(dataclasses.replace(task.spec, budget=budget), spec, seed) for seed in protocol.seeds]


def tuning_trials(protocol: Protocol, arm: Arm, task: Task, point: Point) -> list[TrialSpec]:
    """Return the trials that score a point: they see no test set."""
    budget = dataclasses.replace(task.spec.budget, test_curve=False, use_test=False, probe_every=0)
    task_spec = dataclasses.replace(task.spec, budget=budget)
    return [TrialSpec(task_spec, _at(arm, point), seed) for seed in protocol.tuning_seeds]


def score(results: Sequence[TrialResult]) -> float:
    """Return the mean of the lowest validation losses; infinite if a trial diverged.

    A trial that diverged counts as what it is, even if its loss was low before.
    """
    lowest = [
        math.inf if result.status == "diverged" else min(result.curve.validation_loss, default=math.inf)
        for result in results
    ]
    return math.inf if any(math.isnan(value) for value in lowest) else sum(lowest) / len(lowest)


def search(
    protocol: Protocol, trainable: bool, scores: Callable[[Point], float | None]
) -> tuple[list[Point], list[Point]]:
    """Return the points that an arm tries, as far as they follow from the known scores, and those without a score.

    First all learning rates. Then, with what is left of the trials: while the best learning rate is the smallest or
    largest one tried, the next beyond it; for trainable activations the factors at the best rate, and beyond
    them likewise; at last rates between the best one and its neighbours. So an arm with one rate to tune spends on a
    finer search what an arm with two spends on the second.

    Args:
        protocol: The protocol.
        trainable: Whether the arm has an activation learning rate to tune.
        scores: Returns a point's score, or None if it is not known.

    Example:
        >>> known = lambda point: abs(math.log(point.lr / 0.003)) + 1
        >>> points, missing = search(Protocol(trials=6), False, known)
        >>> [point.lr for point in points], missing
        ([0.0003, 0.001, 0.003, 0.01, 0.00173205, 0.00547723], [])
    """
    points = [Point(lr) for lr in protocol.lr]
    while True:
        known = {point: scores(point) for point in points}
        missing = [point for point, value in known.items() if value is None]
        if missing:
            return points, missing
        room = protocol.trials - len(points)
        best = _best({point: value for point, value in known.items() if value is not None})
        new = [point for point in _beyond(protocol, trainable, points, best) if point not in known][:room]
        if not new:
            return points, []
        points += new


def _beyond(protocol: Protocol, trainable: bool, points: list[Point], best: Point) -> list[Point]:
    rates = sorted({point.lr for point in points if point.factor == best.factor or point.factor == 1.0})
    if protocol.extend and len(rates) > 1:
        if best.lr == rates[-1]:
            return [Point(_round(best.lr * rates[-1] / rates[-2]), best.factor)]
        if best.lr == rates[0]:
            return [Point(_round(best.lr * rates[0] / rates[1]), best.factor)]
    if trainable and protocol.activation_lr:
        factors = sorted({1.0, *(point.factor for point in points)})
        if len(factors) == 1:
            return [Point(best.lr, factor) for factor in sorted(protocol.activation_lr, key=lambda f: abs(math.log(f)))]
        if protocol.extend:
            if best.factor == factors[-1]:
                return [Point(best.lr, _round(best.factor * factors[-1] / factors[-2]))]
            if best.factor == factors[0]:
                return [Point(best.lr, _round(best.factor * factors[0] / factors[1]))]
    at = rates.index(best.lr)
    neighbours = [rates[i] for i in (at - 1, at + 1) if 0 <= i < len(rates)]
    apart = [rate for rate in neighbours if max(rate / best.lr, best.lr / rate) > _FINEST**2]
    return [Point(_round(math.sqrt(best.lr * rate)), best.factor) for rate in apart]


def _best(scores: dict[Point, float]) -> Point:
    # Of equal scores the smaller rate: where all diverge, that is the way to go.
    return min(scores, key=lambda point: (scores[point], point.lr, point.factor))


def tuned(
    protocol: Protocol, arm: Arm, task: Task, lookup: Lookup
) -> tuple[dict[Point, float], list[TrialSpec], list[TrialSpec]]:
    """Return the scores of the points that an arm tried on a task, the tuning trials that come next, and those done."""
    done: list[TrialSpec] = []

    def known(point: Point) -> float | None:
        results = [lookup(spec) for spec in tuning_trials(protocol, arm, task, point)]
        present = [result for result in results if result is not None]
        return score(present) if len(present) == len(results) else None

    points, missing = search(protocol, has_trainable_activations(arm.spec), known)
    waiting: list[TrialSpec] = []
    for point in points:
        for spec in tuning_trials(protocol, arm, task, point):
            (done if lookup(spec) is not None else waiting).append(spec)
    scores = {point: value for point in points if point not in missing and (value := known(point)) is not None}
    return scores, waiting, done


def _choose(protocol: Protocol, arm: Arm, task: Task, scores: dict[Point, float]) -> Choice:
    best = _best(scores)
    flags = []
    lost = sum(math.isinf(value) for value in scores.values())
    if lost == len(scores):
        flags.append("every point diverged")
    elif lost:
        flags.append(f"{lost} of {len(scores)} points diverged")
    rates = [point.lr for point in scores]
    if len(set(rates)) > 1 and best.lr in (min(rates), max(rates)):
        flags.append(
            f"the best learning rate, {best.lr:g}, is the {'smallest' if best.lr == min(rates) else 'largest'} tried"
        )
    factors = [point.factor for point in scores]
    if len(set(factors)) > 1 and best.factor in (min(factors), max(factors)):
        word = "smallest" if best.factor == min(factors) else "largest"
        flags.append(f"the best factor of the activation learning rate, {best.factor:g}, is the {word} tried")
    return Choice(arm.name, task.name, best, tuple(scores.items()), tuple(flags))


def _at(arm: Arm, point: Point) -> ArmSpec:
    return dataclasses.replace(arm.spec, lr=point.lr, activation_lr=point.activation_lr)


def _round(value: float) -> float:
    """Return a number of six digits: what is printed is what is run."""
    return float(f"{value:.6g}")
