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

import dataclasses
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agileact._common import checks
from agileact._common.errors import ArgumentError
from agileact._common.optional import require
from agileact.functional import agile
from agileact.study.training.threads import one_thread

POINTS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
"""The four inputs."""

TARGETS = (0.0, 1.0, 1.0, 0.0)
"""Their exclusive or."""

HEADER = (
    "network",
    "solved",
    "share [95 % interval]",
    "epochs needed: median [quartiles]",
    "final loss: median [quartiles]",
)
"""The columns of the table over both networks."""


@dataclass(frozen=True)
class XorNetwork:
    """The trained weights of one start, counted from 0, of a network with the base function ``base``."""

    base: str
    loss: str
    start: int
    w: tuple[tuple[float, ...], ...]
    c: tuple[float, ...]
    a: tuple[float, ...]
    b: tuple[float, ...]
    v: tuple[float, ...]
    d: float

    @property
    def threshold(self) -> float:
        """The output that separates 0 from 1: 0.5 for the squared error, 0 for the cross-entropy."""
        return 0.5 if self.loss == "mse" else 0.0

    def planes(self, points: Tensor) -> Tensor:
        """Return z, one row for each of the (n, 2) points and one column for each hidden node."""
        w = torch.tensor(self.w, dtype=points.dtype)
        return points @ w.T + torch.tensor(self.c, dtype=points.dtype)

    def bent(self, points: Tensor) -> Tensor:
        """Return h = a f(z - b), of the same shape as :meth:`planes`."""
        a, b = torch.tensor(self.a, dtype=points.dtype), torch.tensor(self.b, dtype=points.dtype)
        return agile(self.planes(points), a, b, base=self.base, dim=1)

    def output(self, points: Tensor) -> Tensor:
        """Return y = v · h + d, one value for each point."""
        return self.bent(points) @ torch.tensor(self.v, dtype=points.dtype) + self.d


@dataclass(frozen=True)
class XorArm:
    """What became of every start of one network.

    ``epochs`` has for each start the epoch from which it stayed solved to the end, or None; ``final_losses`` the loss
    after the last epoch, not finite if it diverged. ``network`` is the first start that was solved, if any was.
    """

    name: str
    epochs: tuple[int | None, ...]
    final_losses: tuple[float, ...]
    network: XorNetwork | None

    @property
    def starts(self) -> int:
        """Number of starts."""
        return len(self.epochs)

    @property
    def solved(self) -> int:
        """Number of starts that were solved at the end."""
        return sum(epoch is not None for epoch in self.epochs)

    @property
    def rate(self) -> float:
        """Share of the starts that were solved."""
        return self.solved / self.starts

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of :attr:`rate`."""
        found = require("scipy.stats", "study").binomtest(self.solved, self.starts).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    @property
    def epochs_quartiles(self) -> tuple[float, float, float] | None:
        """Lower quartile, median and upper quartile of the epochs needed, over the solved starts."""
        return quartiles([epoch for epoch in self.epochs if epoch is not None])

    @property
    def loss_quartiles(self) -> tuple[float, float, float] | None:
        """Lower quartile, median and upper quartile of the final loss, over the starts that stayed finite."""
        return quartiles([loss for loss in self.final_losses if math.isfinite(loss)])

    def to_dict(self) -> dict[str, Any]:
        """Return numbers and tuples that JSON can hold; a loss that is not finite becomes None."""
        names = ("name", "starts", "solved", "rate", "interval", "epochs_quartiles", "loss_quartiles", "epochs")
        return {
            **{name: getattr(self, name) for name in names},
            "final_losses": [loss if math.isfinite(loss) else None for loss in self.final_losses],
            "network": None if self.network is None else vars(self.network),
        }


@dataclass(frozen=True)
class XorOutcome:
    """The plain and the agile network over the same starts, and the fields of the spec that was run."""

    options: dict[str, Any]
    plain: XorArm
    agile: XorArm

    @property
    def pairs(self) -> dict[str, int]:
        """How many starts were solved by both networks, by only one, by neither."""
        solved = [(p is not None, a is not None) for p, a in zip(self.plain.epochs, self.agile.epochs, strict=True)]
        names = {"both": (True, True), "only_plain": (True, False), "only_agile": (False, True)}
        return {name: solved.count(pair) for name, pair in (*names.items(), ("neither", (False, False)))}

    @property
    def p_value(self) -> float:
        """McNemar's exact p: could the starts that only one network solved be a fair coin's?

        The two-sided binomial test of "only agile" among the starts on which the networks differ.
        Source: Q. McNemar, Psychometrika 12 (1947), doi 10.1007/BF02295996.
        """
        differing = self.pairs["only_plain"] + self.pairs["only_agile"]
        if differing == 0:
            return 1.0
        return float(require("scipy.stats", "study").binomtest(self.pairs["only_agile"], differing).pvalue)

    @property
    def epochs_saved(self) -> tuple[float, float, float] | None:
        """Quartiles of (epochs of plain - epochs of agile) over the starts that both solved.

        Comparing the same starts, it is free of what :attr:`XorArm.epochs_quartiles` suffers from: each
        network's median is taken over the starts that this network happens to solve.
        """
        both = zip(self.plain.epochs, self.agile.epochs, strict=True)
        return quartiles([p - a for p, a in both if p is not None and a is not None])

    def to_dict(self) -> dict[str, Any]:
        """Return numbers and lists that JSON can hold."""
        arms = {"plain": self.plain.to_dict(), "agile": self.agile.to_dict()}
        found = {"pairs": self.pairs, "p_value": self.p_value, "epochs_saved": self.epochs_saved}
        return {"options": dict(self.options), **arms, **found}

    def rows(self) -> list[tuple[str, ...]]:
        """Return the two networks as text, one cell for each name in ``HEADER``."""
        return [
            (
                arm.name,
                f"{arm.solved} of {arm.starts}",
                "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * share for share in (arm.rate, *arm.interval))),
                _spread(arm.epochs_quartiles, ".0f"),
                _spread(arm.loss_quartiles, ".2g"),
            )
            for arm in (self.plain, self.agile)
        ]

    def sentences(self) -> list[str]:
        """Return what the table says in words, no stronger than the numbers."""
        pairs = self.pairs
        words = [
            f"Same starts: {pairs['both']} solved by both, {pairs['only_plain']} only by {self.plain.name}, "
            f"{pairs['only_agile']} only by {self.agile.name}, {pairs['neither']} by neither; "
            f"McNemar's exact p = {self.p_value:.2g}.",
            self._verdict(),
        ]
        saved = self.epochs_saved
        if saved is not None:
            faster = "fewer" if saved[1] >= 0 else "more"
            words.append(
                f"On the starts that both solved, {self.agile.name} needed {abs(saved[1]):.0f} epochs {faster} "
                f"in the median (quartiles of the saving: {saved[0]:.0f} to {saved[2]:.0f})."
            )
        return [*words, self._settings()]

    def _verdict(self) -> str:
        if self.p_value >= 0.05:
            return "These starts do not show that either network solves XOR more often."
        more, less = (self.agile, self.plain) if self.agile.solved > self.plain.solved else (self.plain, self.agile)
        return f"With these settings {more.name} solves XOR more often than {less.name}."

    def _settings(self) -> str:
        options = self.options
        rate = options["lr"] if options["activation_lr"] is None else options["activation_lr"]
        return (
            f"Settings: {options['epochs']} epochs of {options['optimizer']}, learning rate {options['lr']:g} "
            f"({rate:g} for a and b), loss {options['loss']}, margin {options['margin']:g}, "
            f"seed {options['seed']}. The outcome depends on the learning rate; compare several."
        )


def quartiles(values: list[int] | list[float]) -> tuple[float, float, float] | None:
    """Return lower quartile, median and upper quartile, or None without values."""
    if not values:
        return None
    low, middle, high = statistics.quantiles(values * (1 + (len(values) == 1)), n=4, method="inclusive")
    return float(low), float(middle), float(high)


def _spread(three: tuple[float, float, float] | None, form: str) -> str:
    if three is None:
        return "–"
    low, middle, high = (format(value, form) for value in three)
    return f"{middle} [{low}, {high}]"


_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
_LOSSES = ("mse", "logits")


@dataclass(frozen=True)
class XorSpec:
    """How XOR is trained.

    Start i begins with the same weights whatever their number. An epoch is a step on all four points; ``"sgd"`` takes
    those of equations (5), (6), (15), (16). None for ``activation_lr``, the rate of a and b, means ``lr``. The loss is
    ``"mse"``, the squared error of the linear output against 0 and 1, or ``"logits"``, the cross-entropy of its
    logistic function. A start is solved when all four outputs (with ``"logits"`` their probabilities) are beyond 0.5 by
    ``margin``, on the right side, and stay so to the last epoch. Above 0, so that a network stuck at an output of 0.5
    does not count by a rounding error.
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
    """
    generator = torch.Generator().manual_seed(spec.seed)
    drawn = (2 * torch.rand(spec.starts, 9, generator=generator, dtype=torch.float64) - 1) / math.sqrt(2)
    parts = {"w": drawn[:, :4].reshape(-1, 2, 2), "c": drawn[:, 4:6], "v": drawn[:, 6:8], "d": drawn[:, 8]}
    return {name: part.clone() for name, part in parts.items()}


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


def run_xor(spec: XorSpec) -> XorOutcome:
    """Train the plain and the agile network from the same starts and compare them."""
    with one_thread():
        arms = {arm: _train(spec, arm) for arm in ("plain", "agile")}
    return XorOutcome(options=dataclasses.asdict(spec), **arms)


class XorTraining:
    """The training of one network, "plain" (a = 1 and b = 0 for good) or "agile", over all starts, epoch by epoch.

    ``losses`` has the loss of every start at this ``epoch``, ``since`` the epoch since which it has been solved without
    a break; -1 while it is not.
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
        row["w"] = tuple(map(tuple, row["w"]))
        return XorNetwork(
            self.spec.base, self.spec.loss, start, d=row.pop("d"), **{name: tuple(row[name]) for name in row}
        )


def _train(spec: XorSpec, arm: str) -> XorArm:
    training = XorTraining(spec, arm)
    while training.epoch < spec.epochs:
        training.step()
    since = training.since.tolist()
    first = next((start for start, epoch in enumerate(since) if epoch >= 0), None)
    return XorArm(
        name=spec.base if arm == "plain" else f"agile {spec.base}",
        epochs=tuple(None if epoch < 0 else epoch for epoch in since),
        final_losses=tuple(training.losses.detach().tolist()),
        network=None if first is None else training.network(first),
    )
