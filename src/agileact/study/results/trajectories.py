"""What happened while a cell's trials trained: losses, scales and locations over iterations, summarised over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agileact.study.spec.result import TrialResult

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Band:
    """A quantity over iterations, summarised over runs.

    Attributes:
        iterations: Where it was measured.
        mean: Mean over the runs.
        low: The lowest run.
        high: The highest run.
        lower: The first quartile of the runs.
        upper: The third.
        curves: Each run by itself.
        runs: How many runs are in it.
        diverged: How many runs diverged and are left out: no mean can be taken over them.
    """

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

    None if there is no such curve: no run, only diverged ones, or a test set that was evaluated once.

    Args:
        results: Trials of one arm on one task.
        part: "train" (mean over the batches since the last evaluation), "validation" or "test".
    """
    whole = _whole(results)
    curves = [getattr(result.curve, f"{part}_loss") for result in whole]
    if not curves or any(not curve or not all(map(math.isfinite, curve)) for curve in curves):
        return None
    return _band(whole, curves, len(results) - len(whole))


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
            bands[name] = LayerBand(
                _longest(whole),
                _mean([trace.scale_min for trace in traces]),
                _mean([trace.scale_max for trace in traces]),
                _mean([trace.location_min for trace in traces]),
                _mean([trace.location_max for trace in traces]),
                len(traces),
            )
    return bands


def _mean(curves: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(_even(curves).mean(axis=0).tolist())


def _even(curves: Sequence[Sequence[float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return curves in rows; a run that stopped early stays where it was."""
    length = max(map(len, curves))
    return np.array([[*curve, *[curve[-1]] * (length - len(curve))] for curve in curves], dtype=np.float64)


def _longest(results: Sequence[TrialResult]) -> tuple[int, ...]:
    return max((tuple(result.curve.iteration) for result in results), key=lambda one: len(one))


def _whole(results: Sequence[TrialResult]) -> list[TrialResult]:
    return [result for result in results if result.status != "diverged"]


def _band(results: Sequence[TrialResult], curves: Sequence[Sequence[float]], diverged: int) -> Band:
    values = _even(curves)
    return Band(
        _longest(results),
        tuple(values.mean(axis=0).tolist()),
        tuple(values.min(axis=0).tolist()),
        tuple(values.max(axis=0).tolist()),
        tuple(np.quantile(values, 0.25, axis=0).tolist()),
        tuple(np.quantile(values, 0.75, axis=0).tolist()),
        tuple(map(tuple, values.tolist())),
        len(results),
        diverged,
    )
