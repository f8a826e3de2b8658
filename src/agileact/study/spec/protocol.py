"""The fair protocol, and a study: what is compared under it. :mod:`agileact.study.running.planner` carries it out."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from agileact._common.errors import ArgumentError
from agileact._common.names import suggestion, unknown
from agileact.study.spec.arms import Arm
from agileact.study.spec.tasks import Task

_STRIDE = 1_000_000
"""The seeds of one replicate are those of the one before and so much more."""
_MOST_REPLICATES = 1000


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

    def __post_init__(self) -> None:
        if not 1 <= self.replicates <= _MOST_REPLICATES:
            raise ArgumentError(f"replicates must be from 1 to {_MOST_REPLICATES:,}, not {self.replicates}")
        if self.choose not in (None, "lowest", "within-noise"):
            hint = suggestion(self.choose, ("lowest", "within-noise"))
            raise ArgumentError(f"choose must be 'lowest' or 'within-noise', not {self.choose!r}{hint}")
        if self.replicates > 1 and max(*self.seeds, *self.tuning_seeds, 0) >= _STRIDE:
            raise ArgumentError(f"with several replicates every seed must be below {_STRIDE:,}")
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

    def replicate(self, number: int) -> Protocol:
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
        factor = step ** ((place + 0.5) % 1 - 0.5)
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

    def against(self, name: str) -> Study:
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

    def replicate(self, number: int) -> Study:
        """Return one replicate as a study of its own; its trials are a part of this one's."""
        tasks = [
            Task(task.name, dataclasses.replace(task.spec, data=dataclasses.replace(task.spec.data, split=number)))
            for task in self.tasks
        ]
        return dataclasses.replace(self, tasks=tuple(tasks), protocol=self.protocol.replicate(number))

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
