"""Networks of the same depth trained live on digits: plain, agile, agile and standardised, batch-normalised."""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from agileact._common.errors import ArgumentError
from agileact.lab.content.step import load_digits
from agileact.monitor.activity import Turning
from agileact.nn import AgileModule
from agileact.study.spec.trial import ArmSpec, ModelSpec
from agileact.study.training.loop import batches, evaluate
from agileact.study.training.setup import build_optimizer, network_on

ARMS = ("plain", "agile", "standardised", "batch-normalised")
LAYERS = 6
MOST_STEPS = 5000
"""Where a run ends by itself."""
_WIDTH, _BATCH, _SAMPLES = 24, 64, 200
_ACTIVATION = "_activation"


@dataclass(frozen=True)
class LiveSpec:
    """What is trained; the learning rate is not of it, for it can be moved while a run goes on."""

    base: str = "sigmoid"
    optimizer: str = "adam"
    seed: int = 0


@dataclass(frozen=True)
class Signals:
    """What a network's layers do to samples that it has not seen: by layer, from the first on.

    ``sizes`` are deviations of an activation's outputs over the samples, means over nodes; the rest are ranges of a, b.
    """

    sizes: list[float]
    scale: list[tuple[float, float]]
    location: list[tuple[float, float]]


class LiveRun:
    """The training of the networks, from weights of one seed and on the same batches."""

    def __init__(self, spec: LiveSpec) -> None:
        self.spec = spec
        self.data = digits = load_digits()
        model = ModelSpec("mlp", (("nodes", (_WIDTH,) * LAYERS),))
        arms = {
            arm: ArmSpec(
                (("fc", f"agile-{spec.base}" if arm in ("agile", "standardised") else spec.base),),
                optimizer=spec.optimizer,
                weights="hidden-standardized" if arm == "standardised" else "free",
                normalisation="batch" if arm == "batch-normalised" else "none",
            )
            for arm in ARMS
        }
        self.models = {
            arm: network_on(digits, model, of, spec.seed, lambda: digits.train_x) for arm, of in arms.items()
        }
        self._optimizers = {arm: build_optimizer(self.models[arm], of) for arm, of in arms.items()}
        self._batches = batches(len(digits.train_y), _BATCH, spec.seed)
        self._turning = Turning(self.models["standardised"])
        self.losses: dict[str, list[float]] = {arm: [] for arm in ARMS}

    @property
    def taken(self) -> int:
        """Steps taken."""
        return len(self.losses["plain"])

    @property
    def ended(self) -> bool:
        """Whether no more steps are taken."""
        return self.taken >= MOST_STEPS

    def advance(self, steps: int, lr: float) -> None:
        """Take up to ``steps`` steps with each network, at a learning rate."""
        for optimizer in self._optimizers.values():
            assert isinstance(optimizer, torch.optim.Optimizer)
            for group in optimizer.param_groups:
                group["lr"] = lr
        for left in reversed(range(min(steps, MOST_STEPS - self.taken))):
            if not left:  # the last step's angle alone is shown
                self._turning.note()
            chosen = next(self._batches)
            x, y = self.data.train_x[chosen], self.data.train_y[chosen]
            for arm, model in self.models.items():
                self._optimizers[arm].zero_grad(set_to_none=True)
                loss = self.data.objective.mean(model(x), y)
                loss.backward()
                self._optimizers[arm].step()
                self.losses[arm].append(float(loss.detach()))

    def accuracy(self, arm: str) -> float:
        """Return the network's accuracy on digits that it was not trained on."""
        return evaluate(self.models[arm], self.data.validation_x, self.data.validation_y)[1] or 0.0

    def signals(self, arm: str) -> Signals:
        """Return what the network's layers do now."""
        model, seen = self.models[arm], dict[str, float]()

        def note(name: str, module: torch.nn.Module, given: object, output: Tensor) -> None:
            seen[name] = float(output.std(0).mean())

        named = [(name, module) for name, module in model.named_modules() if name.endswith(_ACTIVATION)]
        hooks = [module.register_forward_hook(functools.partial(note, name)) for name, module in named]
        training = model.training
        with torch.no_grad():
            model.eval()(self.data.validation_x[:_SAMPLES])
        model.train(training)
        for hook in hooks:
            hook.remove()
        agile = [module for _, module in named if isinstance(module, AgileModule)]
        scale, location = (
            [
                (float(values.min()), float(values.max()))
                for values in (one.get_parameter(name).detach() for one in agile)
            ]
            for name in ("scale", "location")
        )
        return Signals([seen[name] for name, _ in named], scale, location)

    def turned(self) -> float:
        """Return by what angle, in degrees, the last step turned the standardised network's rows: the mean over layers.

        Of each layer it is the median over rows.
        """
        measured = self._turning.measure()
        return math.nan if measured is None else math.degrees(float(measured.view(-1, 4)[:, 2].mean()))

    def sentence(self) -> str:
        """Say how far the networks are."""
        if not self.taken:
            return "No step yet."
        parts = []
        for arm in ARMS:
            loss = self.losses[arm][-1]
            parts.append(
                f"{arm}: loss {loss:.3g}, {100 * self.accuracy(arm):.0f} % of unseen digits right"
                if math.isfinite(loss)
                else f"{arm}: diverged; reset, and take a smaller learning rate"
            )
        end = f" The run ends here, after {MOST_STEPS:,} steps." if self.ended else ""
        turned = f" The last step turned the standardised rows by {self.turned():.2g} degrees."
        return f"Step {self.taken:,}. {'. '.join(part[0].upper() + part[1:] for part in parts)}.{turned}{end}"


def learning_rate(exponent: float) -> float:
    """Return the rate at a place of the slider, of two digits: what is written is what is used."""
    if not -5 <= exponent <= 1:
        raise ArgumentError("the learning rate must be a number from 0.00001 to 10")
    return float(f"{10**exponent:.2g}")
