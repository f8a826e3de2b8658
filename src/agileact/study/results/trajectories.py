"""What happened while a cell's trials trained: losses, scales and locations over iterations, summarised over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agileact.study.spec.result import TrialResult

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Band:
    """A quantity over iterations, over the runs that did not diverge; ``lower`` and ``upper`` are their quartiles."""

    iterations: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    curves: tuple[tuple[float, ...], ...]
    runs: int
    diverged: int


def loss_band(results: Sequence[TrialResult], part: Part) -> Band | None:
    """Return the loss on a part of the data over iterations, over the runs that did not diverge.

    None if there is no such curve: no run, only diverged ones, or a test set that was evaluated once. The training loss
    is a mean over the batches since the last evaluation.
    """
    whole = _whole(results)
    curves = [getattr(result.curve, f"{part}_loss") for result in whole]
    if not curves or any(not curve or not all(map(math.isfinite, curve)) for curve in curves):
        return None
    values = _even(curves)
    ends = (values.mean(0), values.min(0), values.max(0), *np.quantile(values, [0.25, 0.75], axis=0))
    mean, low, high, lower, upper = (tuple(end.tolist()) for end in ends)
    runs = tuple(map(tuple, values.tolist()))
    return Band(_longest(whole), mean, low, high, lower, upper, runs, len(whole), len(results) - len(whole))


@dataclass(frozen=True)
class TraceBand:
    """What was traced of one layer over iterations, over the runs that did not diverge; each end is a mean over runs.

    ``ends`` by name: ``scale_min`` of the layer's smallest scale, and so on (the paper's Fig. 14); or ``turn_median``
    and ``turn_max`` of how far one step turns the rows of a standardised layer, in radians.
    """

    iterations: tuple[int, ...]
    ends: dict[str, tuple[float, ...]]
    runs: int


def trace_bands(results: Sequence[TrialResult], what: Literal["layers", "directions"]) -> dict[str, TraceBand]:
    """Return one band for each layer of which something was traced, in order of the network."""
    whole = _whole(results)
    # No step was taken before the first evaluation, so that nothing had turned.
    iterations = _longest(whole)[1 if what == "directions" else 0 :]
    bands = {}
    for name in getattr(whole[0], what) if whole else ():
        traces = [vars(getattr(result, what)[name]) for result in whole if name in getattr(result, what)]
        if all(traces[0].values()):
            ends = {end: tuple(_even([one[end] for one in traces]).mean(axis=0).tolist()) for end in traces[0]}
            bands[name] = TraceBand(iterations, ends, len(traces))
    return bands


def _even(curves: Sequence[Sequence[float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return curves in rows; a run that stopped early stays where it was."""
    length = max(map(len, curves))
    return np.array([[*curve, *[curve[-1]] * (length - len(curve))] for curve in curves], dtype=np.float64)


def _longest(results: Sequence[TrialResult]) -> tuple[int, ...]:
    return max((tuple(result.curve.iteration) for result in results), key=len, default=())


def _whole(results: Sequence[TrialResult]) -> list[TrialResult]:
    return [result for result in results if result.status != "diverged"]
