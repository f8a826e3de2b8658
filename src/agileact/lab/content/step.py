"""One training step at a time, with the batch's loss before it, after the weights moved, after a and b moved."""

import functools
import math
from dataclasses import dataclass

from agileact.nn import AgileModule
from agileact.study.data.dataset import DataSet, load
from agileact.study.spec.activation_names import parse_activation
from agileact.study.spec.trial import ArmSpec, DataSpec, ModelSpec
from agileact.study.training.loop import batches, halved_step
from agileact.study.training.setup import build_optimizer, network_on

NETWORKS: dict[str, tuple[str, ModelSpec, tuple[str, ...]]] = {
    "mlp": ("one hidden layer of 16 nodes", ModelSpec("mlp", (("nodes", (16,)),)), ("fc",)),
    "cnn": (
        "two convolutions of 8 and 4 filters, then 16 nodes",
        ModelSpec("cnn", (("filters", (8, 4)), ("nodes", (16,)))),
        ("conv", "fc"),
    ),
}
"""The networks by name: in words, as a spec, and the roles that activations have in them."""

FORMS = ("plain", "agile", "combined")
OPTIMIZERS = ("adam", "sgd", "momentum")
MOST_STEPS = 2000
"""Where a run ends by itself."""


@dataclass(frozen=True)
class StepSpec:
    """What is trained, and how."""

    base: str = "sigmoid"
    form: str = "agile"
    network: str = "mlp"
    lr: float = 0.01
    activation_lr: float = 0.01
    batch: int = 32
    seed: int = 0
    optimizer: str = "adam"

    def __post_init__(self) -> None:
        parse_activation(self.activation)

    @property
    def activation(self) -> str:
        """The activation's name, as a spec of a trial has it."""
        return self.base if self.form == "plain" else f"{self.form}-{self.base}"


@dataclass(frozen=True)
class Moment:
    """The loss of one batch around one step; the same three as in :class:`agileact.study.spec.result.Probe`."""

    before: float
    after_weights: float
    after_activations: float

    @property
    def by_weights(self) -> float:
        """The relative change of the loss by the weights' half of the step."""
        return self.after_weights / self.before - 1

    @property
    def by_activations(self) -> float:
        """The relative change of the loss by the activations' half, of the loss between the halves."""
        return self.after_activations / self.after_weights - 1


@functools.lru_cache(maxsize=1)
def load_digits() -> DataSet:
    """Return the digits that come with scikit-learn."""
    return load(DataSpec("digits", validation=200))


class StepRun:
    """The training of one network, a step at a time, with every step measured."""

    def __init__(self, spec: StepSpec) -> None:
        self.spec = spec
        digits = self.data = load_digits()
        _, model, roles = NETWORKS[spec.network]
        activations = tuple((role, spec.activation) for role in roles)
        arm = ArmSpec(activations, optimizer=spec.optimizer, lr=spec.lr, activation_lr=spec.activation_lr)
        self.model = network_on(digits, model, arm, spec.seed, lambda: digits.train_x)
        self._optimizer = build_optimizer(self.model, arm)
        self._loss = digits.objective.mean
        self._agile = [
            parameter
            for module in self.model.modules()
            if isinstance(module, AgileModule)
            for parameter in (module.scale, module.location)
        ]
        self._batches = batches(len(digits.train_y), spec.batch, spec.seed)
        self.moments: list[Moment] = []

    @property
    def taken(self) -> int:
        """Steps taken."""
        return len(self.moments)

    @property
    def ended(self) -> bool:
        """Whether no more steps are taken: enough of them, or the loss is not finite."""
        return len(self.moments) >= MOST_STEPS or self.diverged

    @property
    def diverged(self) -> bool:
        """Whether the loss is no longer finite."""
        return bool(self.moments) and not math.isfinite(self.moments[-1].after_activations)

    def step(self) -> Moment:
        """Take one step of the optimizer and return the batch's three losses."""
        chosen = next(self._batches)
        x, y = self.data.train_x[chosen], self.data.train_y[chosen]
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self.model(x), y)
        loss.backward()
        halves = halved_step(self._optimizer, self._agile, lambda: self._loss(self.model(x), y))
        moment = Moment(float(loss.detach()), *halves)
        self.moments.append(moment)
        return moment

    def sentence(self) -> str:
        """Say what the steps so far did to the loss."""
        if not self.moments:
            return "No step yet."
        last, count = self.moments[-1], len(self.moments)
        said = f"Step {count:,}: loss {last.before:.4g} before"
        if self.diverged:
            return f"{said}; then it was not finite (diverged). Reset, and try smaller learning rates."
        said += f", {last.after_weights:.4g} when the weights had moved ({_percent(last.by_weights)})"
        if not self._agile:
            return f"{said}. A plain activation has nothing to move: the step ends there."
        lowered = sum(moment.after_activations < moment.after_weights for moment in self.moments)
        return (
            f"{said}, {last.after_activations:.4g} when a and b had moved ({_percent(last.by_activations)}). "
            f"So far a and b lowered the loss further in {lowered:,} of {count:,} steps."
        )


def _percent(change: float) -> str:
    return f"{100 * change:+.2g} %".replace("-", "−")
