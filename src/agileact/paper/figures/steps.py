"""Figures 5 and 9: the loss along single training steps, as measured (doi 10.3745/KTSDE.2020.9.7.213).

The paper draws them as sketches; these are measurements of the same three moments. Figure 5: networks whose
activations have nothing to learn. Figure 9: networks with agile layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agileact.paper.figures.run import Combination, NothingToDrawError, Run, is_agile, written
from agileact.paper.figures.step_share import Steps, StepShare, probed, step_share
from agileact.paper.figures.style import (
    ACTIVATION,
    INK,
    LEGEND_ABOVE,
    MUTED,
    WEIGHTS,
    new_figure,
)

_SHOWN_STEPS = 8
_BINS = 24
Values = NDArray[np.float64]


def figure_5(run: Run) -> Any:
    """Draw what the weights' step does to the loss in networks without agile layers."""
    return _draw(run, agile=False)


def figure_9(run: Run) -> Any:
    """Draw what the weights' half and the activation's half of a step do to the loss in agile networks."""
    return _draw(run, agile=True)


def _draw(run: Run, *, agile: bool) -> Any:
    kind = "agile" if agile else "plain"
    networks = run.where(lambda _, trials: is_agile(trials) == agile)
    if not networks.groups:
        raise NothingToDrawError(f"no {kind} networks in these results")
    networks = networks.where(lambda combination, _: bool(probed(networks, combination)))
    if not networks.groups:
        raise NothingToDrawError(f"the {kind} networks' trials probed no steps")
    shares = {c: row for c in networks.groups if (row := step_share(networks, c)) is not None}
    convolutional = networks.convolutional
    featured = (convolutional if convolutional.groups else networks).ranked[0]

    rows = len(shares)
    intervals = next(iter(shares.values())).interval
    how = (
        "Student's interval over seeds, or Wilson's over steps where that is wider"
        if intervals.startswith("Student")
        else "Wilson's interval over steps, which takes the steps of one run as independent and so is too narrow"
    )
    lower = 0.75 + 0.3 * rows
    figure = new_figure(
        11.0,
        4.7 + lower,
        "Figure 9. One training step in two halves: weights, then size and position of the activations"
        if agile
        else "Figure 5. One training step of networks whose activations learn nothing: the weights move",
        f"{networks.source} Loss: of the same training batch, before the step"
        f"{', between the halves, after it' if agile else ' and after it'}. Upper row: "
        f"{_name(featured)}, the {kind} combination with the lowest test loss"
        f"{' (left: the first seed)' if len(networks.groups[featured]) > 1 else ''}. "
        "Lower left: line from lower to upper quartile over all probed steps, mark at the median"
        f"{'; axis linear around 0, logarithmic beyond' if agile else ''}. Share: 95 % {how}.",
    )
    upper_grid, lower_grid = figure.add_gridspec(2, 1, height_ratios=(3.2, lower))
    grid = upper_grid.subgridspec(1, 2, width_ratios=(1, 1.15))
    stairs, course = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    _staircase(stairs, probed(networks, featured)[0], agile=agile)
    _over_training(course, probed(networks, featured), networks.step, agile=agile)
    stairs.legend(**LEGEND_ABOVE, ncols=3, columnspacing=1.2, handlelength=1.8, alignment="left",
                  title=f"{_name(featured)}: a few steps")  # fmt: skip
    course.legend(**LEGEND_ABOVE, ncols=2, alignment="left",
                  title=f"{_name(featured)}: median, and band between the quartiles")  # fmt: skip
    grid = lower_grid.subgridspec(1, 2, width_ratios=(1.5, 1))
    changes = figure.add_subplot(grid[0])
    _by_combination(changes, networks, shares, agile=agile)
    _shares(figure.add_subplot(grid[1], sharey=changes), list(shares.values()), agile=agile)
    return figure


def _name(combination: Combination) -> str:
    if combination.conv is None:
        return f"fully connected: {written(combination.fc)}"
    return combination.label


def _staircase(axis: Any, steps: Steps, *, agile: bool) -> None:
    """Draw a few consecutive probed steps, from a quarter of the training on."""
    first = min(len(steps.iteration) // 4, max(0, len(steps.iteration) - _SHOWN_STEPS))
    chosen = slice(first, first + _SHOWN_STEPS)
    weights = steps.weights[chosen]
    # Both halves relative to the loss before the step, so that the stairs add up.
    after = 100 * ((1 + weights / 100) * (1 + steps.activation[chosen] / 100) - 1)
    place = np.arange(len(weights), dtype=float)
    width = 0.27 if agile else 0.4
    begin = place - width * (1.5 if agile else 1.0)
    for index, (x, low, end) in enumerate(zip(begin, weights, after, strict=True)):
        label = index == 0
        axis.plot([x, x + width, x + width], [0, 0, low], color=MUTED, linewidth=1.1,
                  label="before" if label else None)  # fmt: skip
        axis.plot([x + width, x + 2 * width], [low, low], color=WEIGHTS, linewidth=3,
                  label="weights moved" if label else None)  # fmt: skip
        if agile:
            axis.plot([x + 2 * width] * 2, [low, end], color=MUTED, linewidth=1.1)
            axis.plot([x + 2 * width, x + 3 * width], [end, end], color=ACTIVATION, linewidth=3,
                      linestyle=(0, (1.2, 0.5)), label="then a and b" if label else None)  # fmt: skip
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.set_xticks(
        place, [f"{i:.0f}\n{b:.3g}" for i, b in zip(steps.iteration[chosen], steps.before[chosen], strict=True)]
    )
    axis.grid(axis="x", visible=False)
    axis.set(
        xlabel="iteration, and below it the loss before the step (nats)",
        ylabel="change since before the step, %",
    )
    axis.tick_params(axis="x", labelsize=7.5)


def _over_training(axis: Any, seeds: list[Steps], unit: str, *, agile: bool) -> None:
    """Draw median and quartiles of the changes over training, all seeds together, in bins of iterations."""
    iteration = np.concatenate([steps.iteration for steps in seeds])
    edges = np.linspace(iteration.min(), iteration.max(), min(_BINS, max(1, len(seeds[0].iteration) // 6)) + 1)
    bins = np.clip(np.digitize(iteration, edges) - 1, 0, len(edges) - 2)
    halves: list[tuple[str, str, str, Any, str]] = [("weights", "by the weights' step", WEIGHTS, "-", "o")]
    if agile:
        halves.append(("activation", "by the activation's step", ACTIVATION, (0, (4, 1.6)), "^"))
    for name, words, color, dashes, marker in halves:
        values = np.concatenate([getattr(steps, name) for steps in seeds])
        filled = [b for b in range(len(edges) - 1) if (bins == b).any()]
        low, middle, high = np.asarray([np.percentile(values[bins == b], (25, 50, 75)) for b in filled]).T
        centres = np.asarray([iteration[bins == b].mean() for b in filled])
        axis.fill_between(centres, low, high, color=color, alpha=0.2, linewidth=0)
        axis.plot(centres, middle, color=color, linestyle=dashes, marker=marker, markersize=3.5, label=words)
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.set(xlabel=unit, ylabel="relative change of the loss, %", xlim=(0, None))


def _by_combination(axis: Any, run: Run, shares: dict[Combination, StepShare], *, agile: bool) -> None:
    """Draw for each combination the quartiles of the change by each half, over all probed steps."""
    medians, edges = [], [0.0]
    for place, combination in enumerate(shares):
        halves = [("weights", WEIGHTS, "o", -0.16 if agile else 0.0, "the weights' step")]
        if agile:
            halves.append(("activation", ACTIVATION, "^", 0.16, "the activation's step"))
        for name, color, marker, shift, words in halves:
            values = np.concatenate([getattr(steps, name) for steps in probed(run, combination)])
            low, middle, high = np.percentile(values, (25, 50, 75))
            medians.append(abs(middle))
            edges += [low, high]
            axis.plot([low, high], [place + shift] * 2, color=color, linewidth=2.2, solid_capstyle="butt", alpha=0.55)
            axis.plot(middle, place + shift, marker, color=color, markersize=6, markeredgecolor="white",
                      linestyle="none", label=words if place == 0 else None)  # fmt: skip
    axis.axvline(0, color=INK, linewidth=0.8)
    if agile:
        # Linear up to a power of ten below the smallest median, so that small and large changes both show.
        smallest = min((value for value in medians if value > 0), default=1.0)
        threshold = max(float(10.0 ** np.floor(np.log10(smallest))), 1e-3)
        axis.set_xscale("symlog", linthresh=threshold, linscale=0.6)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlim(min(1.4 * min(edges), -threshold), max(1.4 * max(edges), threshold))
    axis.set_yticks(range(len(shares)), [_name(combination) for combination in shares])
    axis.set_ylim(len(shares) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("relative change of the loss in one step, %")
    axis.legend(**LEGEND_ABOVE, ncols=2, handlelength=1.0)


def _shares(axis: Any, rows: list[StepShare], *, agile: bool) -> None:
    """Draw the share of steps in which a half lowered the loss; it is also written beside each mark."""
    for place, row in enumerate(rows):
        halves = [(row.weights_share, row.weights_interval, WEIGHTS, "o", -0.16 if agile else 0.0)]
        if row.activation_share is not None and row.activation_interval is not None:
            halves.append((row.activation_share, row.activation_interval, ACTIVATION, "^", 0.16))
        for share, (low, high), color, marker, shift in halves:
            axis.plot([100 * low, 100 * high], [place + shift] * 2, color=color, linewidth=2.2, alpha=0.55)
            axis.plot(
                100 * share, place + shift, marker, color=color, markersize=6, markeredgecolor="white", clip_on=False
            )
        share, (low, high), color = halves[-1][:3]
        axis.annotate(
            f"{100 * share:.0f} % [{100 * low:.0f}, {100 * high:.0f}]",
            (1.04, place + halves[-1][4]),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            color=color,
            va="center",
        )
    axis.axvline(50, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
    axis.set(xlim=(0, 100), xlabel="share of steps that lowered the loss, %")
    axis.tick_params(labelleft=False)
    axis.grid(axis="y", visible=False)
    words = "of the activation's step" if agile else "of the weights' step"
    axis.set_title(f"written: share {words}", fontsize=8, color=MUTED)
