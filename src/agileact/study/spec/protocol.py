"""The fair protocol, and a study: what is compared under it. :mod:`agileact.study.running.planner` carries it out."""

import dataclasses
import math
from dataclasses import dataclass

from agileact._common.errors import ArgumentError
from agileact._common.names import suggestion, unknown
from agileact.study.spec.arms import Arm, has_agile_activations, has_trainable_activations
from agileact.study.spec.space import OF_AGILE, Space, described, joined
from agileact.study.spec.tasks import Task
from agileact.study.spec.trial import check_choice

_STRIDE = 1_000_000
"""The seeds of one replicate are those of the one before and so much more."""
_MOST_REPLICATES = 1000
OPTUNA = "optuna:"
"""What stands in front of the name of a sampler of Optuna."""


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
        replicates: How often everything is done afresh: with other tuning seeds, other learning rates to begin with,
            another split into training and validation samples, and other final seeds. With several, the replicate is
            the unit of every interval and test and its seeds average, so that these hold for the whole procedure. With
            one, they hold for the learning rates that this one tuning chose.
        choose: What tuning chooses. "lowest": the point of the lowest score. "within-noise": of the points whose score
            is within the noise of the lowest, that of the smallest learning rate. None: "lowest" for one replicate,
            "within-noise" for several.
        space: What tuning looks through, instead of ``lr``, ``activation_lr`` and ``extend``: ranges and choices for
            fields of the arms (:func:`agileact.study.search_space`); it must name ``lr``. An arm's own space goes
            before it. What concerns activations alone is left out for arms whose activations learn nothing.
        sampler: How points of the space are chosen. "sobol": the first ``trials`` points of Sobol's sequence, scrambled
            by the replicate's number, the same for all arms. "optuna:TPESampler", or another sampler of Optuna, with
            options behind colons: one point after the other, from the scores of those before.
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
    replicates: int = 1
    choose: str | None = None
    space: Space = ()
    sampler: str = "sobol"

    def __post_init__(self) -> None:
        if not 1 <= self.replicates <= _MOST_REPLICATES:
            raise ArgumentError(f"replicates must be from 1 to {_MOST_REPLICATES:,}, not {self.replicates}")
        if self.choose is not None:
            check_choice("choose", self.choose, ("lowest", "within-noise"))
        if self.replicates > 1 and max(*self.seeds, *self.tuning_seeds, 0) >= _STRIDE:
            raise ArgumentError(f"with several replicates every seed must be below {_STRIDE:,}")
        for name in ("seeds", "tuning_seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values) or min(values) < 0:
                raise ArgumentError(f"{name} must be one or more different whole numbers from 0, not {values}")
        check_choice("select", self.select, ("validation", "test"))
        check_choice("test", self.test, ("once", "curve"))
        if self.select == "test" and self.test != "curve":
            raise ArgumentError("select 'test' needs test 'curve': the test loss at every evaluation")
        for name in ("lr", "activation_lr"):
            values = getattr(self, name)
            if any(not 0 < value < math.inf for value in values) or list(values) != sorted(set(values)):
                raise ArgumentError(f"{name} must be increasing positive numbers, not {values}")
        if 1.0 in self.activation_lr:
            raise ArgumentError("activation_lr must not name the factor 1: every learning rate is tried with it first")
        if self.sampler != "sobol" and not (self.sampler.startswith(OPTUNA) and self.sampler != OPTUNA):
            hint = suggestion(self.sampler, ("sobol", OPTUNA + "TPESampler"))
            raise ArgumentError(f"sampler must be 'sobol' or such as 'optuna:TPESampler', not {self.sampler!r}{hint}")
        if self.space:
            if not self.tune:
                raise ArgumentError("a space is for tuning, and tune is false")
            for name in ("lr", "activation_lr", "extend"):
                if getattr(self, name) != getattr(Protocol, name):
                    raise ArgumentError(f"{name} is for tuning without a space; put its values into the space")
            if self.trials < 1:
                raise ArgumentError(f"trials must be at least 1, not {self.trials}")
        if not self.tune:
            return
        if not self.space and (not self.lr or self.trials < len(self.lr)):
            raise ArgumentError(
                f"trials must be at least the number of learning rates, {len(self.lr)}, not {self.trials}"
            )
        shared = sorted(set(self.seeds) & set(self.tuning_seeds))
        if shared:
            raise ArgumentError(f"seeds must be fresh ones: {', '.join(map(str, shared))} would be tuned on too")

    @property
    def chooses_within_noise(self) -> bool:
        """Whether tuning takes the smallest rate within the noise of the best."""
        return self.choose == "within-noise" or (self.choose is None and self.replicates > 1)

    @property
    def units(self) -> int:
        """How many independent values of an arm on a task an interval or test is over: replicates, or seeds."""
        return self.replicates if self.replicates > 1 else len(self.seeds)

    @property
    def unit(self) -> str:
        """What the units are called: "replicate" or "seed"."""
        return "replicate" if self.replicates > 1 else "seed"

    def space_of(self, arm: Arm) -> Space:
        """Return what tuning looks through for an arm."""
        lost: tuple[str, ...] = () if has_agile_activations(arm.spec) else OF_AGILE
        lost = lost if arm.spec.updates == "own" else ("activation_decay",)
        lost = lost if has_trainable_activations(arm.spec) else (*lost, "activation_lr")
        return tuple(one for one in joined(self.space, arm.space) if one.name not in lost)

    def replicate(self, number: int) -> "Protocol":
        """Return the protocol of one replicate, for the data's split of the same number; 0 is the protocol itself.

        The learning rates are moved together, by up to half a step of them, over the places of van der Corput's
        sequence; for all arms alike.

        Example:
            >>> protocol = Protocol(replicates=3, seeds=(0,))
            >>> [protocol.replicate(number).lr[0] for number in range(3)]
            [0.0003, 0.000167228, 0.000401817]
            >>> protocol.replicate(2).seeds, protocol.replicate(2).tuning_seeds
            ((2000000,), (2001000, 2001001))
        """
        place, width, rest = 0.0, 0.5, number
        while rest:
            place, width, rest = place + width * (rest & 1), width / 2, rest >> 1
        steps = max(1, len(self.lr) - 1)
        step = (self.lr[-1] / self.lr[0]) ** (1 / steps) if len(self.lr) > 1 else math.sqrt(10)
        factor = 1.0 if self.space else step ** ((place + 0.5) % 1 - 0.5)
        return dataclasses.replace(
            self,
            lr=tuple(float(f"{rate * factor:.6g}") for rate in self.lr),
            tuning_seeds=tuple(seed + number * _STRIDE for seed in self.tuning_seeds),
            seeds=tuple(seed + number * _STRIDE for seed in self.seeds),
            choose="within-noise" if self.chooses_within_noise else "lowest",
            replicates=1,
        )


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
        spaces = {arm.name: self.space(arm) for arm in self.arms}
        if not any(spaces.values()):
            if self.protocol.sampler != "sobol":
                raise ArgumentError(f"the sampler {self.protocol.sampler!r} needs a space: name one in the protocol")
            return
        for arm in self.arms:
            if not self.protocol.tune:
                raise ArgumentError(f"arm {arm.name!r}: a space is for tuning, and tune is false")
            names = [one.name for one in spaces[arm.name]]
            if "lr" not in names:
                what = "has a search space, but it does not name lr" if names else "has no search space, others have"
                raise ArgumentError(f"arm {arm.name!r} {what}; put lr into the protocol's space, such as lr: 1e-4..0.1")
            if lost := [one.name for one in arm.space if one.name not in names]:
                raise ArgumentError(f"arm {arm.name!r}: {lost[0]} is for activations that learn, and it has none")

    def against(self, name: str) -> "Study":
        """Return the study with another of its arms as the baseline; its trials are the same.

        Example:
            >>> from agileact.study.spec.arms import arm
            >>> from agileact.study.spec.tasks import task
            >>> study = Study("s", (arm("relu"), arm("agile-relu"), arm("prelu")), (task("paper-mlp"),))
            >>> [one.name for one in study.against("prelu").arms]
            ['prelu', 'relu', 'agile-relu']
        """
        names = [one.name for one in self.arms]
        if name not in names:
            raise ArgumentError(unknown("arm", name, names))
        return dataclasses.replace(self, arms=tuple(sorted(self.arms, key=lambda one: one.name != name)))

    def replicate(self, number: int) -> "Study":
        """Return one replicate as a study of its own; its trials are a part of this one's."""
        tasks = tuple(task.with_data(dataclasses.replace(task.spec.data, split=number)) for task in self.tasks)
        return dataclasses.replace(self, tasks=tasks, protocol=self.protocol.replicate(number))

    def space(self, arm: Arm) -> Space:
        """Return what tuning looks through for an arm; nothing if its learning rates are tuned one after the other.

        Example:
            >>> from agileact.study.spec.arms import arm
            >>> from agileact.study.spec.space import search_space
            >>> from agileact.study.spec.tasks import task
            >>> space = search_space({"lr": "1e-4..0.1", "activation_lr": "0.1..10"})
            >>> study = Study("s", (arm("relu"), arm("prelu")), (task("paper-mlp"),), Protocol(space=space))
            >>> [[one.name for one in study.space(arm)] for arm in study.arms]
            [['lr'], ['lr', 'activation_lr']]
        """
        return self.protocol.space_of(arm)

    @property
    def searches(self) -> list[tuple[tuple[str, ...], str]]:
        """What tuning looks through, in words, each with the arms that share it; nothing without a space."""
        found: dict[str, list[str]] = {}
        for arm in self.arms:
            if words := described(self.space(arm)):
                found.setdefault(words, []).append(arm.name)
        return [(tuple(arms), words) for words, arms in found.items()]

    @property
    def pair_trials(self) -> int:
        """How many trials an arm has on a task at most."""
        tuning = self.protocol.trials * len(self.protocol.tuning_seeds) if self.protocol.tune else 0
        return self.protocol.replicates * (tuning + len(self.protocol.seeds))

    @property
    def most_trials(self) -> int:
        """How many trials the study has at most: fewer if an arm stops tuning early."""
        return len(self.arms) * len(self.tasks) * self.pair_trials

    @property
    def comparisons(self) -> int:
        """How many verdicts are read together: every arm but the baseline, on every task."""
        return (len(self.arms) - 1) * len(self.tasks)

    @property
    def least_seeds(self) -> int:
        """With how many seeds, or replicates, the exact paired test can reach 0.05, corrected for all comparisons.

        Example:
            >>> from agileact.study.spec.arms import arm
            >>> from agileact.study.spec.tasks import task
            >>> [Study("s", tuple(map(arm, names)), (task("paper-mlp"),)).least_seeds
            ...  for names in (["relu", "prelu"], ["relu", "prelu", "gelu", "silu"])]
            [6, 7]
        """
        return math.ceil(math.log2(2 * max(1, self.comparisons) / 0.05))

    def warning(self) -> str | None:
        """Say that the seeds, or replicates, are too few for any claim, if they are."""
        count, unit = self.protocol.units, self.protocol.unit
        if not self.comparisons or count >= self.least_seeds:
            return None
        return (
            f"{count} {unit}{'s' * (count != 1)} cannot show a difference, however large it is: the exact paired test "
            f"of {self.comparisons} comparison{'s' * (self.comparisons != 1)} needs at least {self.least_seeds}"
        )

    def caveat(self) -> str | None:
        """Say that tuning is no part of the noise, where it is done once."""
        if not self.comparisons or not self.protocol.tune or self.protocol.replicates > 1:
            return None
        return (
            "tuning was done once, so that verdicts hold for the learning rates that it chose and not for another "
            f"tuning; with 'replicates: {self.least_seeds}' or more in the protocol they hold for tuning and all"
        )
