"""What the XOR experiment returns: how often and how fast each network solved it, compared in pairs."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agileact._common.optional import require
from agileact.functional import agile

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
    """The trained weights of one start; symbols as in :mod:`agileact.paper.xor`.

    Attributes:
        base: Name of the base function f.
        loss: The loss it was trained on; it decides where the output's threshold is.
        start: Number of the start, from 0.
        w: Weights of the two planes.
        c: Biases of the two planes.
        a: Sizes.
        b: Positions.
        v: Weights of the output.
        d: Bias of the output.
    """

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

    Attributes:
        name: The activation, such as ``"sigmoid"`` or ``"agile sigmoid"``.
        epochs: For each start the epoch from which it stayed solved to the end, or None if it did not.
        final_losses: For each start the loss after the last epoch; not finite if it diverged.
        network: The first solved start's trained weights, or None if none was solved.
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
        """Return numbers and lists that JSON can hold; a loss that is not finite becomes None."""
        return {
            "name": self.name,
            "starts": self.starts,
            "solved": self.solved,
            "rate": self.rate,
            "interval": list(self.interval),
            "epochs_quartiles": None if self.epochs_quartiles is None else list(self.epochs_quartiles),
            "loss_quartiles": None if self.loss_quartiles is None else list(self.loss_quartiles),
            "epochs": list(self.epochs),
            "final_losses": [loss if math.isfinite(loss) else None for loss in self.final_losses],
            "network": None if self.network is None else vars(self.network),
        }


@dataclass(frozen=True)
class XorOutcome:
    """The plain and the agile network over the same starts.

    Attributes:
        options: The fields of the :class:`~agileact.paper.xor.XorSpec` that was run.
        plain: Starts trained with a = 1 and b = 0 for good.
        agile: The same starts with a and b learned.
    """

    options: dict[str, Any]
    plain: XorArm
    agile: XorArm

    @property
    def pairs(self) -> dict[str, int]:
        """How many starts were solved by both networks, by only one, by neither."""
        counts = {"both": 0, "only_plain": 0, "only_agile": 0, "neither": 0}
        names = {(True, True): "both", (True, False): "only_plain", (False, True): "only_agile"}
        for plain, agile_ in zip(self.plain.epochs, self.agile.epochs, strict=True):
            counts[names.get((plain is not None, agile_ is not None), "neither")] += 1
        return counts

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
        return {
            "options": dict(self.options),
            "plain": self.plain.to_dict(),
            "agile": self.agile.to_dict(),
            "pairs": self.pairs,
            "p_value": self.p_value,
            "epochs_saved": None if self.epochs_saved is None else list(self.epochs_saved),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Return the two networks as text, one cell for each name in ``HEADER``."""
        found: list[tuple[str, ...]] = []
        for arm in (self.plain, self.agile):
            low, high = arm.interval
            found.append(
                (
                    arm.name,
                    f"{arm.solved} of {arm.starts}",
                    f"{100 * arm.rate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]",
                    _spread(arm.epochs_quartiles, ".0f"),
                    _spread(arm.loss_quartiles, ".2g"),
                )
            )
        return found

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
    """Return lower quartile, median and upper quartile, or None without values.

    Example:
        >>> quartiles([1, 2, 3, 4, 5])
        (2.0, 3.0, 4.0)
    """
    if not values:
        return None
    if len(values) == 1:
        return (float(values[0]),) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return float(low), float(middle), float(high)


def _spread(three: tuple[float, float, float] | None, form: str) -> str:
    if three is None:
        return "–"
    low, middle, high = (format(value, form) for value in three)
    return f"{middle} [{low}, {high}]"
