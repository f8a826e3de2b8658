"""The paper's experiment (section 4) as a list of trials."""

import itertools
from dataclasses import dataclass, replace
from typing import Any

from agileact._common.errors import ArgumentError
from agileact._common.names import unknown
from agileact.study.spec.activation_names import parse_activation
from agileact.study.spec.arms import Arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.tasks import Task
from agileact.study.spec.trial import ArmSpec, Budget, DataSpec, ModelSpec, TaskSpec, TrialSpec, freeze
from agileact.study.training import optimizers

CONV = ("sigmoid", "agile-sigmoid", "relu", "agile-relu")
FC = ("relu", "agile-relu", "agile-sigmoid")
FIGURE_11 = ("sigmoid", "agile-sigmoid")


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's Table 1; which names belong to a row is our reading of it."""

    n: int
    conv: str
    fc: str
    loss: float
    iterations: int


_REPORTED = (
    *((0.18850, 5030), (0.16094, 5045), (0.14456, 9908), (0.16259, 5036), (0.16684, 4317), (0.15600, 7808)),
    *((0.18127, 1187), (0.17529, 1187), (0.16031, 3400), (0.17666, 1050), (0.18261, 809), (0.15027, 3261)),
)
PAPER_TABLE = tuple(
    PaperRow(n, *names, *numbers)
    for n, (names, numbers) in enumerate(zip(itertools.product(CONV, FC), _REPORTED, strict=True), start=1)
)
"""Table 1 of doi 10.3745/KTSDE.2020.9.7.213: loss and iterations of the twelve combinations."""


@dataclass(frozen=True)
class Recipe:
    """Settings of the paper's experiment; what the paper does not say is our choice and an option.

    One network is trained for each seed and pair of ``conv``, the activations of the convolutional layers, and ``fc``,
    those of the hidden layers; ``figure_11`` are activations of the network without convolution. ``filters``, ``nodes``
    (a number for each layer) and ``batch_size`` are the paper's. ``kernel``, ``pooling`` and ``optimizer`` it does not
    give; its equations are plain gradient descent. ``probe_every`` counts steps between probes of a single step, for
    Figs. 5 and 9. None for ``activation_lr``, the rate of scale and location, means ``lr``.
    """

    data: str = "mnist5k-split"
    seeds: tuple[int, ...] = (0,)
    iterations: int = 2000
    evaluate_every: int = 50
    probe_every: int = 10
    conv: tuple[str, ...] = CONV
    fc: tuple[str, ...] = FC
    figure_11: tuple[str, ...] = FIGURE_11
    filters: tuple[int, ...] = (16, 8, 4)
    nodes: tuple[int, ...] = (30,)
    kernel: int = 3
    pooling: int = 2
    batch_size: int = 100
    validation: int = 500
    optimizer: str = "adam"
    lr: float = 0.001
    activation_lr: float | None = None

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ArgumentError("at least one seed is needed")
        for text in (*self.conv, *self.fc, *self.figure_11):
            parse_activation(text)
        if self.optimizer not in optimizers.names():
            raise ArgumentError(unknown("optimizer", self.optimizer, optimizers.names()))

    def trials(self, fingerprint: str = "") -> list[TrialSpec]:
        """Return all trials, seed after seed, so that a run that is cut short has whole seeds.

        The fingerprint of the loaded data is part of each trial's identity.
        """
        mlp, study = self._task(fingerprint, "mlp"), self.study(fingerprint)
        pairs = [(study.tasks[0].spec, arm.spec) for arm in study.arms]
        pairs += [(mlp, self._arm(fc=fc)) for fc in self.figure_11]
        return [TrialSpec(task, arm, seed) for seed in self.seeds for task, arm in pairs]

    def study(self, fingerprint: str = "") -> Study:
        """Return the trials of the paper's network as a study: untuned, with the lowest test loss over iterations.

        The first combination is its baseline. The fully connected networks of Fig. 11 are other arms on another task,
        and no part of it.
        """
        cnn = self._task(fingerprint, "cnn", filters=self.filters, kernel=self.kernel, pooling=self.pooling)
        arms = tuple(
            Arm(f"{conv} / {fc}", self._arm(conv=conv, fc=fc)) for conv, fc in itertools.product(self.conv, self.fc)
        )
        protocol = Protocol(tune=False, seeds=self.seeds, select="test", test="curve")
        return Study("The paper's twelve networks", arms, (Task(f"CNN on {self.data}", cnn),), protocol)

    def _task(self, fingerprint: str, model: str, **options: Any) -> TaskSpec:
        return TaskSpec(
            DataSpec(self.data, self.validation, fingerprint),
            ModelSpec(model, freeze({"nodes": self.nodes, **options})),
            Budget(self.iterations, self.batch_size, self.evaluate_every, self.probe_every, test_curve=True),
        )

    def _arm(self, **roles: str) -> ArmSpec:
        return ArmSpec(freeze(roles), self.optimizer, self.lr, self.activation_lr)


PRESETS: dict[str, Recipe] = {
    "smoke": Recipe(iterations=60, evaluate_every=20, probe_every=5),
    "quick": Recipe(iterations=1000),
    "full": Recipe(seeds=tuple(range(10)), iterations=10_000, evaluate_every=200, probe_every=50),
}
"""``smoke`` proves that everything runs, ``quick`` shows the picture, ``full`` is the experiment."""


def preset(name: str, **changes: Any) -> Recipe:
    """Return the preset ``name`` with ``changes``."""
    if name not in PRESETS:
        raise ArgumentError(unknown("preset", name, PRESETS))
    return replace(PRESETS[name], **changes)
