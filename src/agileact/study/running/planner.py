"""The planner of the fair protocol: the same tuning budget for every arm, fresh paired seeds, the test set once.

:func:`plan` says, from a study and the results that exist, which trials come next. It keeps nothing: a study that was
stopped goes on where it stood, and the same results give the same plan.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agileact.study.running.naming import said
from agileact.study.running.sampling import Values, asked, quasi_random
from agileact.study.spec.arms import Arm, has_trainable_activations
from agileact.study.spec.protocol import OPTUNA, Protocol, Study
from agileact.study.spec.reading import Options
from agileact.study.spec.result import TrialResult
from agileact.study.spec.space import FACTORS, OPTION, Space, rounded, with_values
from agileact.study.spec.tasks import Task
from agileact.study.spec.trial import ArmSpec, TrialSpec

Lookup = Callable[[TrialSpec], TrialResult | None]
"""Returns the result of a trial, or None if it was not run yet."""

_SATURATED = 1e-3
"""A validation loss below this share of the loss before training cannot tell learning rates apart."""
_FINEST = 1.1
"""Learning rates closer than this factor are not told apart."""


@dataclass(frozen=True)
class Point:
    """What is tuned: a learning rate, the activation learning rate as a factor of it, and what else a space names.

    Attributes:
        lr: The learning rate.
        factor: The activation learning rate, as a factor of it.
        rest: Pairs of what else was tuned, by its name in the space, and its value.
    """

    lr: float
    factor: float = 1.0
    rest: Options = ()

    @property
    def activation_lr(self) -> float | None:
        """The activation learning rate; None where it is the learning rate."""
        return None if self.factor == 1.0 else rounded(self.lr * self.factor)

    def spec(self, arm: Arm) -> ArmSpec:
        """Return the arm as it is trained with these values.

        Example:
            >>> from agileact.study.spec.arms import arm
            >>> spec = Point(0.01, rest=(("scale_lr", 0.1), ("optimizer_options.eps", 1e-6))).spec(arm("agile-relu"))
            >>> spec.lr, spec.scale_lr, spec.optimizer_options
            (0.01, 0.001, (('eps', 1e-06),))
        """
        return with_values(arm.spec, {"lr": self.lr, "activation_lr": self.factor, **dict(self.rest)})

    def describe(self) -> str:
        """Return the values in words.

        Example:
            >>> Point(0.01, 3.0, (("weight_decay", 0.001), ("schedule", "cosine"))).describe()
            'learning rate 0.01, activations 0.03, weight decay 0.001, schedule cosine'
        """
        parts = [f"learning rate {self.lr:g}"]
        parts += [] if self.activation_lr is None else [f"activations {self.activation_lr:g}"]
        for name, value in self.rest:
            value = rounded(self.lr * value) if name in FACTORS else value
            parts.append(said(name.removeprefix(OPTION), value))
        return ", ".join(parts)


@dataclass(frozen=True)
class Choice:
    """The outcome of tuning one arm on one task, in one replicate.

    Attributes:
        arm: The arm's name.
        task: The task's name.
        point: What was chosen.
        scores: Every point that was tried, with its score: infinite if a trial diverged.
        flags: What a reader must know, such as that the best value lies at the edge of what was tried.
        replicate: The replicate's number.
    """

    arm: str
    task: str
    point: Point
    scores: tuple[tuple[Point, float], ...]
    flags: tuple[str, ...]
    replicate: int = 0


@dataclass(frozen=True)
class Part:
    """The trials of one arm on one task in one replicate, as far as they are known.

    Attributes:
        task: The task's name.
        arm: The arm's name.
        replicate: The replicate's number.
        tried: The tuning trials that are done.
        choice: What tuning chose; None without tuning, and while it is not over.
        final: The final trials, done or not; none while tuning is not over.
    """

    task: str
    arm: str
    replicate: int
    tried: tuple[TrialSpec, ...]
    choice: Choice | None
    final: tuple[TrialSpec, ...]


@dataclass(frozen=True)
class Plan:
    """What comes next.

    Attributes:
        tuning: Tuning trials that can run now.
        final: Final trials that can run now.
        done: Finished trials of this study.
        parts: What each arm did on each task in each replicate: task after task, arm after arm.
    """

    tuning: tuple[TrialSpec, ...]
    final: tuple[TrialSpec, ...]
    done: int
    parts: tuple[Part, ...]

    @property
    def choices(self) -> dict[tuple[str, str, int], Choice]:
        """What was chosen so far, by arm, task and replicate; empty without tuning."""
        return {(part.arm, part.task, part.replicate): part.choice for part in self.parts if part.choice is not None}

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
        >>> from agileact.study.spec.arms import arm
        >>> from agileact.study.spec.tasks import task
        >>> study = Study("s", (arm("relu"), arm("agile-relu")), (task("paper-mlp"),))
        >>> first = plan(study, lambda spec: None)  # two arms, four learning rates, two tuning seeds
        >>> len(first.tuning), len(first.final), first.finished
        (16, 0, False)
    """
    tuning: list[TrialSpec] = []
    final: list[TrialSpec] = []
    done: set[TrialSpec] = set()
    parts: list[Part] = []
    replicates = [study.replicate(number) for number in range(study.protocol.replicates)]
    for at in range(len(study.tasks)):
        for arm in study.arms:
            for number, one in enumerate(replicates):
                part, waiting = _part(one.protocol, arm, one.tasks[at], number, lookup)
                parts.append(part)
                tuning += waiting
                done.update(part.tried)
                missing = [spec for spec in part.final if lookup(spec) is None]
                final += missing
                done.update(set(part.final).difference(missing))
    # Replicate after replicate, seed after seed: what is cut short has whole ones, of all arms alike.
    tuning.sort(key=lambda spec: spec.task.data.split)
    final.sort(key=lambda spec: spec.seed)
    return Plan(tuple(dict.fromkeys(tuning)), tuple(dict.fromkeys(final)), len(done), tuple(parts))


def _part(protocol: Protocol, arm: Arm, task: Task, replicate: int, lookup: Lookup) -> tuple[Part, list[TrialSpec]]:
    """Return what an arm did on a task in one replicate, and the tuning trials that come next."""
    if not protocol.tune:
        return Part(task.name, arm.name, replicate, (), None, tuple(final_trials(protocol, arm, task, None))), []
    tried, waiting, done = tuned(protocol, arm, task, lookup)
    if waiting:
        return Part(task.name, arm.name, replicate, tuple(done), None, ()), waiting
    choice = dataclasses.replace(_choose(protocol, arm, task, tried), replicate=replicate)
    final = tuple(final_trials(protocol, arm, task, choice.point))
    return Part(task.name, arm.name, replicate, tuple(done), choice, final), []


def final_trials(protocol: Protocol, arm: Arm, task: Task, point: Point | None) -> list[TrialSpec]:
    """Return the final trials of an arm on a task, with what was chosen or, without a choice, the arm's own rates."""
    budget = dataclasses.replace(task.spec.budget, test_curve=protocol.test == "curve", use_test=True)
    spec = arm.spec if point is None else point.spec(arm)
    return [TrialSpec(dataclasses.replace(task.spec, budget=budget), spec, seed) for seed in protocol.seeds]


def tuning_trials(protocol: Protocol, arm: Arm, task: Task, point: Point) -> list[TrialSpec]:
    """Return the trials that score a point: they see no test set."""
    budget = dataclasses.replace(task.spec.budget, test_curve=False, use_test=False, probe_every=0)
    task_spec = dataclasses.replace(task.spec, budget=budget)
    return [TrialSpec(task_spec, point.spec(arm), seed) for seed in protocol.tuning_seeds]


@dataclass(frozen=True)
class Score:
    """How a point did while tuning.

    Attributes:
        lowest: The lowest validation loss of each trial, a value a tuning seed; infinite for one that diverged, which
            counts as what it is, even if its loss was low before.
        start: The mean validation loss before the first step.
    """

    lowest: tuple[float, ...]
    start: float = math.inf

    @property
    def mean(self) -> float:
        """What points are compared by; infinite if a trial diverged."""
        return sum(self.lowest) / len(self.lowest)

    def ties(self, best: "Score") -> bool:
        """Return whether this score is within the noise of the lowest one.

        It is if the mean difference over the tuning seeds is at most its own standard error, or at most a thousandth of
        the loss before training: on a task that every rate solves, what is left of the loss says nothing.
        """
        if math.isinf(self.mean):
            return math.isinf(best.mean)
        differences = [own - other for own, other in zip(self.lowest, best.lowest, strict=True)]
        mean, count = sum(differences) / len(differences), len(differences)
        error = math.sqrt(sum((one - mean) ** 2 for one in differences) / (count - 1) / count) if count > 1 else 0.0
        return mean <= max(error, _SATURATED * best.start if math.isfinite(best.start) else 0.0)


def score(results: Sequence[TrialResult]) -> Score:
    """Return the score of a point from its trials."""
    lowest = [
        math.inf if result.status == "diverged" else min(result.curve.validation_loss, default=math.inf)
        for result in results
    ]
    starts = [result.curve.validation_loss[0] for result in results if result.curve.validation_loss]
    return Score(
        tuple(math.inf if math.isnan(value) else value for value in lowest),
        sum(starts) / len(starts) if starts else math.inf,
    )


def search(
    protocol: Protocol, trainable: bool, scores: Callable[[Point], Score | None]
) -> tuple[list[Point], list[Point]]:
    """Return the points that an arm tries, as far as they follow from the known scores, and those without a score.

    First all learning rates. Then, with what is left of the trials: while the best learning rate is the smallest or
    largest one tried, the next beyond it; for trainable activations the factors at the best rate, and beyond
    them too; at last rates between the best one and its neighbours. So an arm with one rate to tune spends on a finer
    search what an arm with two spends on the second.

    Args:
        protocol: The protocol.
        trainable: Whether the arm has an activation learning rate to tune.
        scores: Returns a point's score, or None if it is not known.

    Example:
        >>> known = lambda point: Score((abs(math.log(point.lr / 0.003)) + 1,))
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
        best = _best(protocol, {point: value for point, value in known.items() if value is not None})
        new = [point for point in _beyond(protocol, trainable, points, best) if point not in known][:room]
        if not new:
            return points, []
        points += new


def search_in(
    space: Space, protocol: Protocol, number: int, scores: Callable[[Point], Score | None]
) -> tuple[list[Point], list[Point]]:
    """Return the points of a space that an arm tries, as far as they follow from the known scores, and those without.

    Args:
        space: What is looked through.
        protocol: Says how many points there are, and how they are chosen.
        number: The replicate's number, where random numbers begin.
        scores: Returns a point's score, or None if it is not known.
    """

    def point(values: Values) -> Point:
        given = dict(zip((one.name for one in space), values, strict=True))
        return Point(given.pop("lr"), given.pop("activation_lr", 1.0), tuple(given.items()))

    if not protocol.sampler.startswith(OPTUNA):
        points = list(map(point, quasi_random(space, protocol.trials, number)))
        return points, [one for one in points if scores(one) is None]
    points, known = [], list[float]()
    while len(points) < protocol.trials:
        points.append(point(asked(space, protocol.sampler, number, tuple(known))))
        found = scores(points[-1])
        if found is None:
            return list(dict.fromkeys(points)), points[-1:]
        known.append(found.mean)
    return list(dict.fromkeys(points)), []


def _beyond(protocol: Protocol, trainable: bool, points: list[Point], best: Point) -> list[Point]:
    rates = sorted({point.lr for point in points if point.factor == best.factor or point.factor == 1.0})
    if protocol.extend and len(rates) > 1:
        if best.lr == rates[-1]:
            return [Point(rounded(best.lr * rates[-1] / rates[-2]), best.factor)]
        if best.lr == rates[0]:
            return [Point(rounded(best.lr * rates[0] / rates[1]), best.factor)]
    if trainable and protocol.activation_lr:
        factors = sorted({1.0, *(point.factor for point in points)})
        if len(factors) == 1:
            return [Point(best.lr, factor) for factor in sorted(protocol.activation_lr, key=lambda f: abs(math.log(f)))]
        if protocol.extend:
            if best.factor == factors[-1]:
                return [Point(best.lr, rounded(best.factor * factors[-1] / factors[-2]))]
            if best.factor == factors[0]:
                return [Point(best.lr, rounded(best.factor * factors[0] / factors[1]))]
    at = rates.index(best.lr)
    neighbours = [rates[i] for i in (at - 1, at + 1) if 0 <= i < len(rates)]
    apart = [rate for rate in neighbours if max(rate / best.lr, best.lr / rate) > _FINEST**2]
    return [Point(rounded(math.sqrt(best.lr * rate)), best.factor) for rate in apart]


def _best(protocol: Protocol, scores: dict[Point, Score]) -> Point:
    # Of equal scores the smaller rate: where all diverge, that is the way to go.
    best = min(scores, key=lambda point: (scores[point].mean, point.lr, point.factor))
    if protocol.chooses_within_noise:
        tied = [point for point in scores if point.lr <= best.lr and scores[point].ties(scores[best])]
        return min(tied, key=lambda point: (point.lr, point.factor != best.factor, point.factor))
    return best


def tuned(
    protocol: Protocol, arm: Arm, task: Task, lookup: Lookup
) -> tuple[dict[Point, Score], list[TrialSpec], list[TrialSpec]]:
    """Return the scores of the points that an arm tried on a task, the tuning trials that come next, and those done."""
    done: list[TrialSpec] = []

    def known(point: Point) -> Score | None:
        results = [lookup(spec) for spec in tuning_trials(protocol, arm, task, point)]
        present = [result for result in results if result is not None]
        return score(present) if len(present) == len(results) else None

    if space := protocol.space_of(arm):
        points, missing = search_in(space, protocol, task.spec.data.split, known)
    else:
        points, missing = search(protocol, has_trainable_activations(arm.spec), known)
    waiting: list[TrialSpec] = []
    for point in points:
        for spec in tuning_trials(protocol, arm, task, point):
            (done if lookup(spec) is not None else waiting).append(spec)
    scores = {point: value for point in points if point not in missing and (value := known(point)) is not None}
    return scores, waiting, done


def _choose(protocol: Protocol, arm: Arm, task: Task, scores: dict[Point, Score]) -> Choice:
    best = _best(protocol, scores)
    flags = []
    lost = sum(math.isinf(value.mean) for value in scores.values())
    if lost == len(scores):
        flags.append("every point diverged")
    elif lost:
        flags.append(f"{lost} of {len(scores)} points diverged")
    space = protocol.space_of(arm)
    for name, value in (("lr", best.lr), ("activation_lr", best.factor), *best.rest):
        for one in space:
            if one.name == name and (side := one.edge(value)):
                flags.append(f"the best {name}, {value:g}, is at the {side} edge of the space, {one.text}")
    rates = [] if space else [point.lr for point in scores]
    if len(set(rates)) > 1 and best.lr in (min(rates), max(rates)):
        flags.append(
            f"the best learning rate, {best.lr:g}, is the {'smallest' if best.lr == min(rates) else 'largest'} tried"
        )
    factors = [] if space else [point.factor for point in scores]
    if len(set(factors)) > 1 and best.factor in (min(factors), max(factors)):
        word = "smallest" if best.factor == min(factors) else "largest"
        flags.append(f"the best factor of the activation learning rate, {best.factor:g}, is the {word} tried")
    if math.isfinite(scores[best].start) and scores[best].mean < _SATURATED * scores[best].start:
        flags.append(
            f"the validation loss fell to {scores[best].mean:.2g} from {scores[best].start:.2g}, too low to choose a "
            "learning rate by; take fewer iterations, or a harder task"
        )
    means = tuple((point, value.mean) for point, value in scores.items())
    return Choice(arm.name, task.name, best, means, tuple(flags))
