"""XOR by a network of two inputs, two hidden nodes and one output, plain and agile, over many starts.

The paper's Fig. 4 (doi 10.3745/KTSDE.2020.9.7.213) shows how such a network solves XOR: two fitted planes,
each bent by the activation, then combined linearly. For a point x and hidden nodes m = 1, 2::

    z_m = w_m · x + c_m            a plane over the inputs                (17)
    h_m = a_m f(z_m - b_m)         the plane, bent                        (7), (8)
    y   = v_1 h_1 + v_2 h_2 + d    both, combined linearly

The plain network has a = 1 and b = 0 for good; the agile one starts there and learns both. Every start is
trained twice, once as each, from the same weights, on all four points at once. All starts train side by
side as one batch of parameters: the loss is summed over starts, so each start's gradient is its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agileact._common import checks
from agileact._common.errors import ArgumentError
from agileact.functional import agile
from agileact.paper.xor_outcome import POINTS, TARGETS, XorArm, XorNetwork, XorOutcome
from agileact.study.training.threads import one_thread

__all__ = ["POINTS", "TARGETS", "XorArm", "XorNetwork", "XorOutcome", "XorSpec", "XorTraining", "run_xor"]

Progress = Callable[[str, int, int], None]
"""Called with the arm ("plain" or "agile"), the epochs done and the epochs in all."""

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
_LOSSES = ("mse", "logits")
_REPORTS = 50
"""How often progress is reported in one arm."""


@dataclass(frozen=True)
class XorSpec:
    """How XOR is trained.

    Attributes:
        base: Name of the base function f.
        starts: Number of random starts; start i begins with the same weights whatever their number.
        epochs: Steps of gradient descent; each sees all four points.
        lr: Learning rate of the weights.
        activation_lr: Learning rate of a and b; None means ``lr``.
        optimizer: ``"adam"`` or ``"sgd"``. Plain gradient descent is equations (5), (6), (15), (16).
        loss: ``"mse"``, the squared error of the linear output against 0 and 1, or ``"logits"``, the
            cross-entropy of its logistic function.
        margin: A start is solved when all four outputs (with ``"logits"`` their probabilities) are beyond
            0.5 by at least this much, on the right side, and stay so to the last epoch. Above 0, so that a
            network stuck at an output of 0.5 does not count by a rounding error.
        seed: Seed of the initial weights.

    Example:
        >>> XorSpec(base="tanh", starts=50).optimizer
        'adam'
        >>> XorSpec(lr=0.0)
        Traceback (most recent call last):
        ...
        agileact.ArgumentError: lr must be a finite number greater than 0, not 0.0
    """

    base: str = "sigmoid"
    starts: int = 200
    epochs: int = 3000
    lr: float = 0.01
    activation_lr: float | None = None
    optimizer: str = "adam"
    loss: str = "mse"
    margin: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("starts", 1), ("epochs", 1), ("seed", 0)):
            value = getattr(self, name)
            if not checks.is_integer(value) or value < least:
                raise ArgumentError(f"{name} must be a whole number of at least {least}, not {value!r}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ArgumentError(f"lr must be a finite number greater than 0, not {self.lr}")
        if self.activation_lr is not None and not (math.isfinite(self.activation_lr) and self.activation_lr >= 0):
            raise ArgumentError(f"activation_lr must be a finite number of at least 0, not {self.activation_lr}")
        if self.optimizer not in _OPTIMIZERS:
            raise ArgumentError(f"optimizer must be one of {sorted(_OPTIMIZERS)}, not {self.optimizer!r}")
        if self.loss not in _LOSSES:
            raise ArgumentError(f"loss must be one of {sorted(_LOSSES)}, not {self.loss!r}")
        if not 0 <= self.margin < 0.5:
            raise ArgumentError(f"margin must be at least 0 and below 0.5, not {self.margin}")
        try:
            agile(torch.zeros(1, 1), torch.ones(1), torch.zeros(1), base=self.base, dim=1)
        except (ValueError, TypeError) as error:
            raise ArgumentError(f"base {self.base!r} does not work here: {error}") from error


def initial_weights(spec: XorSpec) -> dict[str, Tensor]:
    """Return the weights that both networks start from, one row of each for every start.

    Uniform between -1/sqrt(2) and 1/sqrt(2), as ``torch.nn.Linear`` draws them for two inputs.

    Example:
        >>> {name: tuple(value.shape) for name, value in initial_weights(XorSpec(starts=7)).items()}
        {'w': (7, 2, 2), 'c': (7, 2), 'v': (7, 2), 'd': (7,)}
    """
    generator = torch.Generator().manual_seed(spec.seed)
    drawn = (2 * torch.rand(spec.starts, 9, generator=generator, dtype=torch.float64) - 1) / math.sqrt(2)
    return {
        "w": drawn[:, :4].reshape(-1, 2, 2).clone(),
        "c": drawn[:, 4:6].clone(),
        "v": drawn[:, 6:8].clone(),
        "d": drawn[:, 8].clone(),
    }


def forward(weights: dict[str, Tensor], points: Tensor, base: str) -> Tensor:
    """Return the output of every start (rows) at every point (columns).

    ``weights`` are those of :func:`initial_weights` with ``a`` and ``b``, each of shape (starts, 2).
    """
    starts = weights["c"].shape[0]
    planes = torch.einsum("px,snx->psn", points, weights["w"]) + weights["c"]
    # Every hidden node of every start is a channel of one call of the library's own operator.
    bent = agile(planes.flatten(1), weights["a"].flatten(), weights["b"].flatten(), base=base, dim=1)
    return torch.einsum("psn,sn->sp", bent.unflatten(1, (starts, 2)), weights["v"]) + weights["d"][:, None]


def losses(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """Return the loss of every start: the mean over the points of the squared error or cross-entropy."""
    if loss == "mse":
        return (outputs - targets).square().mean(dim=1)
    return torch.nn.functional.binary_cross_entropy_with_logits(
        outputs, targets.expand_as(outputs), reduction="none"
    ).mean(dim=1)


def solved(outputs: Tensor, targets: Tensor, loss: str, margin: float) -> Tensor:
    """Return for every start whether all outputs are on the right side of 0.5 by at least ``margin``."""
    values = outputs if loss == "mse" else torch.sigmoid(outputs)
    return ((values - 0.5) * (2 * targets - 1) >= margin).all(dim=1)


def run_xor(spec: XorSpec, progress: Progress | None = None) -> XorOutcome:
    """Train the plain and the agile network from the same starts and compare them.

    Args:
        spec: How to train.
        progress: Called about fifty times for each network.

    Example:
        >>> outcome = run_xor(XorSpec(starts=3, epochs=5))
        >>> outcome.plain.starts, outcome.agile.starts
        (3, 3)
        >>> sum(outcome.pairs.values())
        3
    """
    with one_thread():
        arms = {arm: _train(spec, arm, progress) for arm in ("plain", "agile")}
    return XorOutcome(options=dataclasses.asdict(spec), **arms)


class XorTraining:
    """The training of one network over all starts, one epoch at a time.

    Args:
        spec: How to train.
        arm: ``"plain"`` (a = 1 and b = 0 for good) or ``"agile"``.

    Attributes:
        epoch: Epochs done.
        losses: The loss of every start at this epoch.
        since: For every start the epoch since which it has been solved without a break; -1 while it is not.

    Example:
        >>> training = XorTraining(XorSpec(starts=3), "agile")
        >>> training.step()
        >>> training.epoch, tuple(training.losses.shape)
        (1, (3,))
    """

    def __init__(self, spec: XorSpec, arm: str) -> None:
        self.spec = spec
        weights = initial_weights(spec)
        activations = {"a": torch.ones_like(weights["c"]), "b": torch.zeros_like(weights["c"])}
        groups = [{"params": [value.requires_grad_() for value in weights.values()], "lr": spec.lr}]
        if arm == "agile":
            rate = spec.lr if spec.activation_lr is None else spec.activation_lr
            groups.append({"params": [value.requires_grad_() for value in activations.values()], "lr": rate})
        self._optimizer = _OPTIMIZERS[spec.optimizer](groups, fused=True)
        self._weights = {**weights, **activations}
        self._points = torch.tensor(POINTS, dtype=torch.float64)
        self._targets = torch.tensor(TARGETS, dtype=torch.float64)
        self.epoch = 0
        self.since = torch.full((spec.starts,), -1)
        self._measure()

    def _measure(self) -> None:
        spec = self.spec
        outputs = forward(self._weights, self._points, spec.base)
        right = solved(outputs.detach(), self._targets, spec.loss, spec.margin)
        self.since = torch.where(right, torch.where(self.since < 0, self.epoch, self.since), -1)
        self.losses = losses(outputs, self._targets, spec.loss)

    def step(self) -> None:
        """Take one step of the optimizer on all four points, and measure again."""
        self._optimizer.zero_grad()
        self.losses.sum().backward()
        self._optimizer.step()
        self.epoch += 1
        self._measure()

    def network(self, start: int) -> XorNetwork:
        """Return the weights of one start as they are now."""
        row: dict[str, Any] = {name: value.detach()[start].tolist() for name, value in self._weights.items()}
        return XorNetwork(
            base=self.spec.base,
            loss=self.spec.loss,
            start=start,
            w=tuple(tuple(line) for line in row["w"]),
            c=tuple(row["c"]),
            a=tuple(row["a"]),
            b=tuple(row["b"]),
            v=tuple(row["v"]),
            d=row["d"],
        )


def _train(spec: XorSpec, arm: str, progress: Progress | None) -> XorArm:
    training = XorTraining(spec, arm)
    report_every = max(1, spec.epochs // _REPORTS)
    while training.epoch < spec.epochs:
        training.step()
        if progress is not None and (training.epoch % report_every == 0 or training.epoch == spec.epochs):
            progress(arm, training.epoch, spec.epochs)

    since = training.since.tolist()
    first = next((start for start, epoch in enumerate(since) if epoch >= 0), None)
    return XorArm(
        name=spec.base if arm == "plain" else f"agile {spec.base}",
        epochs=tuple(None if epoch < 0 else epoch for epoch in since),
        final_losses=tuple(training.losses.detach().tolist()),
        network=None if first is None else training.network(first),
    )
