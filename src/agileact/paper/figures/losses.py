"""Figures 11, 12 and 13: losses over training (doi 10.3745/KTSDE.2020.9.7.213, section 4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from agileact._common.optional import require
from agileact.paper.figures.run import Band, Combination, NothingToDrawError, Run, band, order, score, written
from agileact.paper.figures.style import FAINT, LEGEND_ABOVE, MUTED, Palette, new_figure

_BEST = 5
_HEIGHT = 6.0
"""How many times the lowest loss Figure 13 reaches up."""
_UNIT = "cross-entropy (nats)"


def figure_11(run: Run) -> Any:
    """Draw training and test loss of the networks without convolution, with the span over seeds."""
    networks = run.fully_connected
    if not networks.groups:
        raise NothingToDrawError("no fully connected trials in these results")
    palette = Palette(run.groups)
    panels = []
    for words, name in (
        ("training loss", "train_loss"),
        ("test loss", "test_loss"),
    ):
        bands = _bands(networks, name)
        if bands:
            panels.append((words, bands))
    if not panels:
        raise NothingToDrawError("the fully connected trials hold no losses")

    figure = new_figure(
        9.6,
        4.2,
        "Figure 11. Fully connected network only: sigmoid against agile sigmoid"
        if set(networks.groups) == {Combination(None, "sigmoid"), Combination(None, "agile-sigmoid")}
        else "Figure 11. Fully connected network only",
        f"{networks.source} {networks.lines} Training loss: mean over the "
        "batches since the evaluation before. Logarithmic vertical axis.",
    )
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (words, bands) in zip(axes, panels, strict=True):
        for place, (combination, data) in enumerate(bands.items()):
            _draw_band(axis, combination, data, palette, place / len(bands), combination.label)
        _logarithmic(axis)
        axis.set(xlabel=networks.step, ylabel=f"{words}, {_UNIT}", xlim=(0, None))
        axis.tick_params(labelleft=True, which="both")
    axes[0].legend(**LEGEND_ABOVE, ncols=4)
    return figure


def figure_12(run: Run) -> Any:
    """Draw the test loss of all combinations: a panel for each convolutional activation."""
    networks, bands = _test_losses(run)
    palette = Palette(run.groups)
    rows_of = sorted({combination.conv or "" for combination in bands}, key=order)
    columns = 1 if len(rows_of) == 1 else 2
    lines = -(-len(rows_of) // columns)
    figure = new_figure(
        max(7.0, 5.0 * columns),
        0.9 + 3.1 * lines,
        f"Figure 12. Test loss of {_count(len(bands))} combination{'s' if len(bands) > 1 else ''}, "
        "by convolutional activation",
        f"{networks.source} {networks.lines.partition(';')[0].rstrip('.')}. Legend: activation of the "
        "fully connected layer. Grey: the other combinations, "
        "for comparison. Logarithmic vertical axis.",
    )
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, conv in zip(axes, rows_of, strict=False):
        here = {c: data for c, data in bands.items() if c.conv == conv}
        for combination, data in bands.items():
            if combination not in here:
                axis.plot(data.iteration, data.mean, color=FAINT, linewidth=0.7, zorder=1)
        for place, (combination, data) in enumerate(here.items()):
            axis.plot(
                data.iteration,
                data.mean,
                **palette.look(combination).line(len(data.iteration), place / len(here)),
                label=written(combination.fc),
                zorder=3,
            )
        longest = max(len(written(combination.fc)) for combination in here)
        axis.legend(
            **LEGEND_ABOVE,
            ncols=max(1, min(3, 48 // (longest + 3))),
            columnspacing=1.4,
            title=f"convolutional: {written(conv)}",
            alignment="left",
        )
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
        right.annotate(
            f"{place + 1}",
            reached.mean(axis=0),
            # Ranks that follow each other are close in height: they are written on different sides.
            xytext=(-8 if place % 2 else 8, 0),
            ha="right" if place % 2 else "left",
            va="center",
            textcoords="offset points",
            fontsize=9,
            color=look.color,
            fontweight="bold",
            path_effects=[require("matplotlib.patheffects", "paper").withStroke(linewidth=2.5, foreground="white")],
        )
    _logarithmic(left)
    left.set(xlabel=networks.step, ylabel=f"test loss, {_UNIT}", xlim=(0, None))
    # The fall from the start is in Figure 12; here the height belongs to where the five differ.
    lowest, top = min(bands[c].low.min() for c in best), left.get_ylim()[1]
    left.set_ylim(top=min(top, _HEIGHT * lowest))
    right.set(xlabel=networks.step, ylabel=f"lowest test loss, {_UNIT}", xlim=(0, left.get_xlim()[1]))
    right.margins(y=0.15)
    left.legend(**LEGEND_ABOVE, ncols=2, columnspacing=1.2, handlelength=2.6, alignment="left",
                title="convolutional → fully connected (lowest test loss)")  # fmt: skip
    return figure


def _test_losses(run: Run) -> tuple[Run, dict[Combination, Band]]:
    networks = run.convolutional
    if not networks.groups:
        raise NothingToDrawError("no convolutional trials in these results")
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
        axis.fill_between(data.iteration, data.low, data.high, color=look.color, alpha=0.16, linewidth=0)
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
