"""The results of one run, grouped by combination and laid over each other by seed."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agileact._common.errors import ArgumentError
from agileact.paper.xor import XorOutcome
from agileact.study.spec.result import TrialResult

_WRITTEN = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "leaky_relu": "leaky ReLU",
    "elu": "ELU",
    "celu": "CELU",
    "selu": "SELU",
    "gelu": "GELU",
    "silu": "SiLU",
}

CONV_ORDER = ("sigmoid", "agile-sigmoid", "relu", "agile-relu")
"""Convolutional activations in the order of the paper's table; other names follow, sorted."""

FC_ORDER = ("sigmoid", "relu", "agile-relu", "agile-sigmoid")
"""The same for the fully connected layer; plain sigmoid is in the paper's Fig. 11 only."""


class NothingToDrawError(Exception):
    """A figure's data is missing from the results; the message says what. Never leaves this package."""


def written(activation: str) -> str:
    """Return an activation's name as it is written in text, such as "agile leaky ReLU (negative_slope=0.2)"."""
    name, _, options = activation.partition(":")
    prefix, base = ("agile ", name[6:]) if name.startswith("agile-") else ("", name)
    return prefix + _WRITTEN.get(base, base) + (f" ({options.replace(':', ', ')})" if options else "")


def order(activation: str, known: tuple[str, ...] = CONV_ORDER) -> tuple[int, str]:
    """Return a sort key: first the known names in their order, then the others."""
    return known.index(activation) if activation in known else len(known), activation


@dataclass(frozen=True)
class Combination:
    """The activations of one network; ``conv`` is None if it is fully connected only."""

    conv: str | None
    fc: str

    @classmethod
    def of(cls, result: TrialResult) -> "Combination":
        """Return the combination that a trial ran."""
        arm = result.spec.arm
        conv = None if result.spec.task.model.name == "mlp" else arm.activation("conv")
        return cls(conv, arm.activation("fc") or "identity")

    @property
    def hue(self) -> str:
        """The activation that decides hue and line style."""
        return self.fc if self.conv is None else self.conv

    @property
    def label(self) -> str:
        """Convolutional → fully connected, as written in text."""
        return written(self.fc) if self.conv is None else f"{written(self.conv)} → {written(self.fc)}"

    @property
    def full_label(self) -> str:
        """The label, which says of a network without convolution that it is one."""
        return self.label if self.conv is not None else f"fully connected: {self.label}"

    @property
    def order(self) -> tuple[object, ...]:
        """A sort key: networks with convolution first, in the paper's order."""
        return (self.conv is None, order(self.conv or ""), order(self.fc, FC_ORDER))


@dataclass(frozen=True)
class Band:
    """One quantity over iterations: one row of ``values`` for each seed."""

    iteration: NDArray[np.float64]
    values: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over seeds."""
        return np.asarray(self.values.mean(axis=0))


def band(trials: Sequence[TrialResult], values: Callable[[TrialResult], Sequence[float]]) -> Band | None:
    """Lay ``values`` of the trials over each other at the iterations that all of them have.

    Returns None if that leaves nothing, as where the test set was touched only once.
    """
    rows = [dict(zip(trial.curve.iteration, values(trial), strict=False)) for trial in trials]
    shared = sorted(set(rows[0]).intersection(*rows[1:])) if rows else []
    if not shared:
        return None
    return Band(np.asarray(shared, np.float64), np.asarray([[row[i] for i in shared] for row in rows], np.float64))


@dataclass(frozen=True)
class Run:
    """What the figures are drawn from: the finished trials of each combination, by seed; how many others there were."""

    dataset: str
    groups: dict[Combination, list[TrialResult]]
    diverged: int = 0
    xor: XorOutcome | None = field(default=None, repr=False)

    @classmethod
    def of(cls, results: Iterable[TrialResult], dataset: str, xor: XorOutcome | None = None) -> "Run":
        """Group the results of one run; an error if one has a twin, whose spread would not be that of seeds."""
        found: dict[tuple[Combination, int], TrialResult] = {}
        for result in results:
            combination, seed = Combination.of(result), result.spec.seed
            if (combination, seed) in found:
                raise ArgumentError(
                    f"two results for {combination.label!r} with seed {seed}: figures are drawn from one run, "
                    "one learning rate and one budget at a time; pass only the results of one"
                )
            found[combination, seed] = result
        groups: dict[Combination, list[TrialResult]] = {}
        finished = {key: result for key, result in found.items() if result.status == "finished"}
        for combination, seed in sorted(finished, key=lambda key: (key[0].order, key[1])):
            groups.setdefault(combination, []).append(finished[combination, seed])
        return cls(dataset, groups, len(found) - len(finished), xor)

    def where(self, keep: Callable[[Combination, list[TrialResult]], bool]) -> "Run":
        """Return the run with only those combinations that ``keep`` accepts."""
        kept = {c: trials for c, trials in self.groups.items() if keep(c, trials)}
        return Run(self.dataset, kept, self.diverged, self.xor)

    @property
    def convolutional(self) -> "Run":
        """Only the networks with convolutional layers."""
        return self.where(lambda combination, _: combination.conv is not None)

    @property
    def ranked(self) -> list[Combination]:
        """Combinations by the paper's measure: mean over seeds of the lowest test loss, best first.

        Where no test curve was measured, by the test loss at the iteration that validation chose.
        """
        return sorted(self.groups, key=lambda c: (score(self.groups[c]), c.order))

    @property
    def source(self) -> str:
        """Data set and number of seeds, as every caption begins."""
        counts = sorted({len(trials) for trials in self.groups.values()})
        if not counts:
            seeds = "no finished trial"
        elif len(counts) == 1:
            seeds = f"{counts[0]} seed" + ("s" if counts[0] > 1 else "")
        else:
            seeds = f"{counts[0]} to {counts[-1]} seeds, not all trials finished"
        left_out = "trial that diverged is" if self.diverged == 1 else "trials that diverged are"
        diverged = f" {self.diverged} {left_out} left out." if self.diverged else ""
        return f"Data set {self.dataset}, {seeds}.{diverged}"

    @property
    def lines(self) -> str:
        """What a line and its band are, for the captions."""
        if all(len(trials) == 1 for trials in self.groups.values()):
            return "Line: the one seed."
        return "Line: mean over seeds; band: smallest to largest."

    @property
    def step(self) -> str:
        """The label of an axis of iterations, with its unit."""
        sizes = {trial.spec.task.budget.batch_size for trials in self.groups.values() for trial in trials}
        return f"iteration (steps of {sizes.pop()} digits)" if len(sizes) == 1 else "iteration (steps)"


def score(trials: Sequence[TrialResult]) -> float:
    """Return the mean over seeds of the lowest test loss (else of the selected one; else infinity)."""
    for name in ("best_test_loss", "selected_test_loss"):
        values = [getattr(trial, name) for trial in trials]
        if values and None not in values:
            return statistics.fmean(values)
    return float("inf")


def is_agile(trials: Sequence[TrialResult]) -> bool:
    """Return whether these networks have agile layers."""
    return any(trial.layers for trial in trials)
