"""Figures 11 to 14: losses, sizes and positions over training (doi 10.3745/KTSDE.2020.9.7.213, section 4)."""

import functools
from typing import Any

import numpy as np

from agileact._common.optional import require
from agileact.paper.figures.run import Band, Combination, NothingToDrawError, Run, band, is_agile, order, score, written
from agileact.paper.figures.style import (
    ACTIVATION,
    FAINT,
    INK,
    LEGEND_ABOVE,
    LEGEND_RIGHT,
    MUTED,
    WEIGHTS,
    Palette,
    new_figure,
)
from agileact.study.spec.result import TrialResult

_BEST = 5
_HEIGHT = 6.0
"""How many times the lowest loss Figure 13 reaches up."""
_UNIT = "cross-entropy (nats)"
_QUANTITIES = (("scale", "size a", 1.0, ACTIVATION), ("location", "position b", 0.0, WEIGHTS))
_ENDS = ("scale_min", "scale_max", "location_min", "location_max")
_MOMENTS = (0.05, 0.15, 0.4, 1.0)
"""Shares of the training at which a rectangle is drawn in Figure 14; the start is the point (1, 0)."""


def figure_11(run: Run) -> Any:
    """Draw training and test loss of the networks without convolution, with the span over seeds."""
    networks = run.where(lambda combination, _: combination.conv is None)
    if not networks.groups:
        raise NothingToDrawError("no fully connected trials in these results")
    palette = Palette(run.groups)
    found = {words: _bands(networks, f"{words}_loss") for words in ("train", "test")}
    panels = [("training" if words == "train" else words, bands) for words, bands in found.items() if bands]
    if not panels:
        raise NothingToDrawError("the fully connected trials hold no losses")
    both = set(networks.groups) == {Combination(None, "sigmoid"), Combination(None, "agile-sigmoid")}
    figure = new_figure(
        9.6,
        4.2,
        f"Figure 11. Fully connected network only{': sigmoid against agile sigmoid' * both}",
        f"{networks.source} {networks.lines} Training loss: mean over the "
        "batches since the evaluation before. Logarithmic vertical axis.",
    )
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (words, bands) in zip(axes, panels, strict=True):
        for place, (combination, data) in enumerate(bands.items()):
            _draw_band(axis, combination, data, palette, place / len(bands), combination.label)
        _logarithmic(axis)
        axis.set(xlabel=networks.step, ylabel=f"{words} loss, {_UNIT}", xlim=(0, None))
        axis.tick_params(labelleft=True, which="both")
    axes[0].legend(**LEGEND_ABOVE, ncols=4)
    return figure


def figure_12(run: Run) -> Any:
    """Draw the test loss of all combinations: a panel for each convolutional activation."""
    networks, bands = _test_losses(run)
    palette = Palette(run.groups)
    rows_of = sorted({combination.conv or "" for combination in bands}, key=order)
    columns = min(2, len(rows_of))
    lines = -(-len(rows_of) // columns)
    figure = new_figure(
        max(7.0, 5.0 * columns),
        0.9 + 3.1 * lines,
        f"Figure 12. Test loss of {_count(len(bands))} combination{'s' if len(bands) > 1 else ''}, "
        "by convolutional activation",
        f"{networks.source} {networks.lines.partition(';')[0].rstrip('.')}. Legend: activation of the "
        "fully connected layer. Grey: the other combinations, for comparison. Logarithmic vertical axis.",
    )
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, conv in zip(axes, rows_of, strict=False):
        here = [combination for combination in bands if combination.conv == conv]
        for combination, data in bands.items():
            if combination in here:
                look = palette.look(combination).line(len(data.iteration), here.index(combination) / len(here))
                axis.plot(data.iteration, data.mean, **look, label=written(combination.fc), zorder=3)
            else:
                axis.plot(data.iteration, data.mean, color=FAINT, linewidth=0.7, zorder=1)
        longest = max(len(written(combination.fc)) for combination in here)
        axis.legend(**LEGEND_ABOVE, ncols=max(1, min(3, 48 // (longest + 3))), columnspacing=1.4,
                    title=f"convolutional: {written(conv)}", alignment="left")  # fmt: skip
        axis.set(ylabel=f"test loss, {_UNIT}", xlim=(0, None))
        _logarithmic(axis)
        axis.tick_params(labelbottom=True, labelleft=True, which="both")
    for axis in axes[max(0, len(rows_of) - columns) : len(rows_of)]:
        axis.set_xlabel(networks.step)
    for axis in axes[len(rows_of) :]:
        axis.set_visible(False)
    return figure


def figure_13(run: Run) -> Any:
    """Draw the five combinations with the lowest test loss, and where each seed reached it."""
    networks, bands = _test_losses(run)
    palette = Palette(run.groups)
    best = [combination for combination in networks.ranked if combination in bands][:_BEST]
    seeds = max(len(networks.groups[combination]) for combination in best)
    title = "The best combination" if len(best) == 1 else f"The {_count(len(best))} best combinations"
    figure = new_figure(
        10.4,
        5.2,
        f"Figure 13. {title}: test loss",
        f"{networks.source} Best by the paper's measure: the lowest test loss over training, mean over seeds "
        "(choosing the iteration on the test set flatters every row). Left, "
        f"{networks.lines[0].lower()}{networks.lines[1:]} Logarithmic vertical axis, the start of training above the "
        "frame. Right: that lowest loss and the iteration where it was reached"
        f"{'; small: each seed, large: mean over seeds' if seeds > 1 else ''}.",
    )
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    halo = require("matplotlib.patheffects", "paper").withStroke(linewidth=2.5, foreground="white")
    for place, combination in enumerate(best):
        look = palette.look(combination)
        label = f"{place + 1}. {combination.label} ({score(networks.groups[combination]):.4f})"
        _draw_band(left, combination, bands[combination], palette, place / len(best), label)
        trials = networks.groups[combination]
        reached = np.asarray([(t.best_iteration or 0, t.best_test_loss or np.nan) for t in trials], dtype=float)
        dots = {"color": look.color, "marker": look.marker, "linestyle": "none"}
        if len(trials) > 1:
            right.plot(*reached.T, **dots, markersize=4, alpha=0.55, markeredgewidth=0)
        right.plot(*reached.mean(axis=0), **dots, markersize=9, markeredgecolor="white")
        # Ranks that follow each other are close in height: they are written on different sides.
        side = {"xytext": (-8, 0), "ha": "right"} if place % 2 else {"xytext": (8, 0), "ha": "left"}
        right.annotate(f"{place + 1}", reached.mean(axis=0), **side, va="center", textcoords="offset points",
                       fontsize=9, color=look.color, fontweight="bold", path_effects=[halo])  # fmt: skip
    _logarithmic(left)
    left.set(xlabel=networks.step, ylabel=f"test loss, {_UNIT}", xlim=(0, None))
    # The fall from the start is in Figure 12; here the height belongs to where the five differ.
    lowest, top = min(bands[c].values.min() for c in best), left.get_ylim()[1]
    left.set_ylim(top=min(top, _HEIGHT * lowest))
    right.set(xlabel=networks.step, ylabel=f"lowest test loss, {_UNIT}", xlim=(0, left.get_xlim()[1]))
    right.margins(y=0.15)
    left.legend(**LEGEND_ABOVE, ncols=2, columnspacing=1.2, handlelength=2.6, alignment="left",
                title="convolutional → fully connected (lowest test loss)")  # fmt: skip
    return figure


def _convolutional(run: Run) -> Run:
    networks = run.convolutional
    if not networks.groups:
        raise NothingToDrawError("no convolutional trials in these results")
    return networks


def _test_losses(run: Run) -> tuple[Run, dict[Combination, Band]]:
    networks = _convolutional(run)
    bands = _bands(networks, "test_loss")
    if not bands:
        raise NothingToDrawError("these results hold no test loss over iterations")
    return networks.where(lambda combination, _: combination in bands), bands


def _bands(run: Run, name: str) -> dict[Combination, Band]:
    found = {c: band(trials, lambda trial: getattr(trial.curve, name)) for c, trials in run.groups.items()}
    return {combination: data for combination, data in found.items() if data is not None}


def _draw_band(axis: Any, combination: Combination, data: Band, palette: Palette, offset: float, label: str) -> None:
    look = palette.look(combination)
    if len(data.values) > 1:
        axis.fill_between(
            data.iteration, data.values.min(0), data.values.max(0), color=look.color, alpha=0.16, linewidth=0
        )
    axis.plot(data.iteration, data.mean, **look.line(len(data.iteration), offset), label=label)


def _logarithmic(axis: Any) -> None:
    """Set a logarithmic axis of losses whose ticks are written as ordinary numbers."""
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(_minor)
    axis.tick_params(axis="y", which="minor", labelsize=7, colors=MUTED)


def _minor(value: float, _: object = None) -> str:
    """Label 0.2 and 0.5 and so on between the decades, and no more."""
    digit = f"{value:.0e}"[0]
    return f"{value:g}" if digit in "235" else ""


def _count(number: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return words[number] if number < len(words) else str(number)


def figure_14(run: Run) -> Any:
    """Draw the ranges of a and b, by layer, of the best combination with agile layers.

    Left, as the paper's text describes it: a rectangle a moment, as wide as the range of a and as high as that of b.
    Right: the ends of both ranges over training.
    """
    networks = _convolutional(run)
    agile = networks.where(lambda _, trials: is_agile(trials))
    if not agile.groups:
        raise NothingToDrawError("no combination in these results has agile layers")
    combination = agile.ranked[0]
    trials = agile.groups[combination]
    source = Run(run.dataset, {combination: trials}, run.diverged).source
    layers = list(trials[0].layers)
    mean, thin = (", mean over seeds", " Thin: each seed.") if len(trials) > 1 else ("", "")
    figure = new_figure(
        10.6,
        1.2 + 2.1 * len(layers),
        f"Figure 14. Size a and position b over training: {combination.label}",
        f"{source} The combination with agile layers whose lowest test loss is best (mean over seeds "
        f"{score(trials):.4f}). Rectangle: smallest to largest a (across) and b (up) over the layer's filters or nodes"
        f"{mean}, at one iteration. Cross and dotted lines: the start, a = 1 and b = 0.{thin}",
    )
    axes = figure.subplots(len(layers), 3, squeeze=False, sharex="col", sharey="col")
    for layer, row in zip(layers, axes, strict=True):
        ends = {name: band(trials, functools.partial(_end, layer, name)) for name in _ENDS}
        _rectangles(row[0], list(ends.values()))
        row[0].set(ylabel=f"layer {layer}\nposition b")
        for axis, (quantity, words, start, color) in zip(row[1:], _QUANTITIES, strict=True):
            for end, dashes, label in (("max", "-", "largest"), ("min", (0, (4, 1.6)), "smallest")):
                data = ends[f"{quantity}_{end}"]
                if data is None:
                    continue
                if len(data.values) > 1:
                    axis.plot(data.iteration, data.values.T, color=color, linewidth=0.5, alpha=0.4, linestyle=dashes)
                axis.plot(data.iteration, data.mean, color=color, linestyle=dashes, label=label)
            axis.axhline(start, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
            axis.set(ylabel=words, xlim=(0, None))
    for axis, words in zip(axes[-1], ("size a", run.step, run.step), strict=True):
        axis.set_xlabel(words)
    axes[0, 0].legend(**LEGEND_ABOVE, ncols=3, title="iteration", alignment="left")
    axes[0, 2].legend(**LEGEND_RIGHT, alignment="left")
    return figure


def _end(layer: str, name: str, trial: TrialResult) -> list[float]:
    return [*getattr(trial.layers[layer], name)]


def _rectangles(axis: Any, ends: list[Band | None]) -> None:
    axis.plot(1.0, 0.0, "+", color=INK, markersize=9, label="0")
    left, right, low, high = ends
    if left is None or right is None or low is None or high is None:
        return
    rectangle = require("matplotlib.patches", "paper").Rectangle
    colors = require("matplotlib", "paper").colormaps["viridis_r"]
    last = left.iteration[-1]
    for index in dict.fromkeys(int(np.abs(left.iteration - share * last).argmin()) for share in _MOMENTS):
        if left.iteration[index] == 0:  # the cross is the start already
            continue
        corner = (left.mean[index], low.mean[index])
        axis.add_patch(
            rectangle(
                corner, right.mean[index] - corner[0], high.mean[index] - corner[1], fill=False, linewidth=1.8,
                edgecolor=colors(0.15 + 0.85 * left.iteration[index] / last), label=f"{left.iteration[index]:.0f}",
            )
        )  # fmt: skip
    axis.autoscale_view()
    axis.margins(0.08)
