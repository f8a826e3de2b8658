"""Figure 14: how size and position move during training, by layer (doi 10.3745/KTSDE.2020.9.7.213)."""

from __future__ import annotations

from typing import Any

import numpy as np

from agileact._common.optional import require
from agileact.paper.figures.run import Band, NothingToDrawError, Run, band, is_agile, score
from agileact.paper.figures.style import ACTIVATION, INK, LEGEND_ABOVE, LEGEND_RIGHT, WEIGHTS, new_figure
from agileact.study.spec.result import TrialResult

_QUANTITIES = (("scale", "size a", 1.0, ACTIVATION), ("location", "position b", 0.0, WEIGHTS))
_MOMENTS = (0.05, 0.15, 0.4, 1.0)
"""Shares of the training at which a rectangle is drawn; the start is the point (1, 0)."""


def figure_14(run: Run) -> Any:
    """Draw the ranges of a and b, by layer, of the best combination with agile layers.

    Left, as the paper's text describes it: a rectangle a moment, as wide as the range of a and as high as that of b.
    Right: the ends of both ranges over training.
    """
    networks = run.convolutional
    if not networks.groups:
        raise NothingToDrawError("no convolutional trials in these results")
    agile = networks.where(lambda _, trials: is_agile(trials))
    if not agile.groups:
        raise NothingToDrawError("no combination in these results has agile layers")
    combination = agile.ranked[0]
    trials = agile.groups[combination]
    kept = Run(run.dataset, {combination: trials}, run.diverged)
    layers = list(trials[0].layers)
    mean, thin = (", mean over seeds", " Thin: each seed.") if len(trials) > 1 else ("", "")
    figure = new_figure(
        10.6,
        1.2 + 2.1 * len(layers),
        f"Figure 14. Size a and position b over training: {combination.label}",
        f"{kept.source} The combination with agile layers whose lowest test loss is best (mean over seeds "
        f"{score(trials):.4f}). Rectangle: smallest to largest a (across) and b (up) over the layer's filters or nodes"
        f"{mean}, at one iteration. Cross and dotted lines: the start, a = 1 and b = 0.{thin}",
    )
    axes = figure.subplots(len(layers), 3, squeeze=False, sharex="col", sharey="col")
    for layer, row in zip(layers, axes, strict=True):
        _rectangles(row[0], trials, layer)
        row[0].set(ylabel=f"layer {layer}\nposition b")
        for axis, (quantity, words, start, color) in zip(row[1:], _QUANTITIES, strict=True):
            _curves(axis, trials, layer, quantity, start, color)
            axis.set(ylabel=words, xlim=(0, None))
    for axis, words in zip(axes[-1], ("size a", run.step, run.step), strict=True):
        axis.set_xlabel(words)
    axes[0, 0].legend(**LEGEND_ABOVE, ncols=3, title="iteration", alignment="left")
    axes[0, 2].legend(**LEGEND_RIGHT, alignment="left")
    return figure


def _end(trials: list[TrialResult], layer: str, name: str) -> Band | None:
    """Return the smallest or largest a or b of a layer over training, one row a seed."""
    return band(trials, lambda trial: getattr(trial.layers[layer], name))


def _rectangles(axis: Any, trials: list[TrialResult], layer: str) -> None:
    rectangle = require("matplotlib.patches", "paper").Rectangle
    colors = require("matplotlib", "paper").colormaps["viridis_r"]
    left, right, low, high = (
        _end(trials, layer, name) for name in ("scale_min", "scale_max", "location_min", "location_max")
    )
    axis.plot(1.0, 0.0, "+", color=INK, markersize=9, label="0")
    if left is None or right is None or low is None or high is None:
        return
    last = left.iteration[-1]
    for index in dict.fromkeys(int(np.abs(left.iteration - share * last).argmin()) for share in _MOMENTS):
        x, y = left.mean[index], low.mean[index]
        color = colors(0.15 + 0.85 * left.iteration[index] / last)
        axis.add_patch(
            rectangle(
                (x, y), right.mean[index] - x, high.mean[index] - y,
                fill=False, edgecolor=color, linewidth=1.8, label=f"{left.iteration[index]:.0f}",
            )
        )  # fmt: skip
    axis.autoscale_view()
    axis.margins(0.08)


def _curves(axis: Any, trials: list[TrialResult], layer: str, quantity: str, start: float, color: str) -> None:
    for end, dashes, words in (("max", "-", "largest"), ("min", (0, (4, 1.6)), "smallest")):
        data = _end(trials, layer, f"{quantity}_{end}")
        if data is None:
            continue
        if len(data.values) > 1:
            axis.plot(data.iteration, data.values.T, color=color, linewidth=0.5, alpha=0.4, linestyle=dashes)
        axis.plot(data.iteration, data.mean, color=color, linestyle=dashes, label=words)
    axis.axhline(start, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
