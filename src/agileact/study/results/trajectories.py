"""What happened while a cell's trials trained: losses, scales and locations over iterations, summarised over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agileact.study.spec.result import DirectionTrace, LayerTrace, TrialResult

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
class LayerBand:
    """Scales and locations of one layer over iterations, over the runs that did not diverge.

    Each end is a mean over runs: ``scale_min`` of the layer's smallest scale, and so on (the paper's Fig. 14).
    """

    iterations: tuple[int, ...]
    scale_min: tuple[float, ...]
    scale_max: tuple[float, ...]
    location_min: tuple[float, ...]
    location_max: tuple[float, ...]
    runs: int


def layer_bands(results: Sequence[TrialResult]) -> dict[str, LayerBand]:
    """Return one band for each layer that has a scale and a location, in order of the forward pass."""
    whole = _whole(results)
    if not whole:
        return {}
    bands = {}
    for name in whole[0].layers:
        traces = [result.layers[name] for result in whole if name in result.layers]
        if traces[0].scale_min:
            bands[name] = LayerBand(iterations=_longest(whole), runs=len(traces), **_means(traces))
    return bands


@dataclass(frozen=True)
class TurnBand:
    """How far one step turns the rows of a standardised layer, over iterations, over the runs that did not diverge.

    Each is a mean over runs, in radians: ``turn_median`` of the median row's angle, ``turn_max`` of the largest.
    """

    iterations: tuple[int, ...]
    turn_median: tuple[float, ...]
    turn_max: tuple[float, ...]
    runs: int


def turn_bands(results: Sequence[TrialResult]) -> dict[str, TurnBand]:
    """Return one band for each layer whose rows of weights are put back after each step, in order of the network."""
    whole = _whole(results)
    bands = {}
    for name in whole[0].directions if whole else ():
        traces = [result.directions[name] for result in whole if name in result.directions]
        # No step was taken before the first evaluation.
        bands[name] = TurnBand(iterations=_longest(whole)[1:], runs=len(traces), **_means(traces))
    return bands


def _means(traces: Sequence[LayerTrace] | Sequence[DirectionTrace]) -> dict[str, Any]:
    """Return each end of some traces as its mean over them."""
    return {
        end: tuple(_even([getattr(trace, end) for trace in traces]).mean(axis=0).tolist()) for end in vars(traces[0])
    }


def _even(curves: Sequence[Sequence[float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return curves in rows; a run that stopped early stays where it was."""
    length = max(map(len, curves))
    return np.array([[*curve, *[curve[-1]] * (length - len(curve))] for curve in curves], dtype=np.float64)


def _longest(results: Sequence[TrialResult]) -> tuple[int, ...]:
    return max((tuple(result.curve.iteration) for result in results), key=lambda one: len(one))


def _whole(results: Sequence[TrialResult]) -> list[TrialResult]:
    return [result for result in results if result.status != "diverged"]
