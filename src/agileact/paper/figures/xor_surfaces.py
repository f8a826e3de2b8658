"""Figure 4: how the trained 2-2-1 network solves XOR (doi 10.3745/KTSDE.2020.9.7.213, section 2)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agileact._common.optional import require
from agileact.paper.figures.run import NothingToDrawError, Run
from agileact.paper.figures.style import INK, new_figure
from agileact.paper.xor import POINTS, TARGETS

_GRID = 121
_REACH = 0.35
"""How far beyond the unit square the surfaces are drawn."""


def figure_4(run: Run) -> Any:
    """Draw the two planes, the two bent surfaces and their combination, of the first solved agile start."""
    if run.xor is None:
        raise NothingToDrawError("XOR was not run")
    arm = run.xor.agile
    network = arm.network
    if network is None:
        raise NothingToDrawError(f"none of the {arm.starts} starts of {arm.name} solved XOR")

    figure = new_figure(
        13.0,
        5.9,
        f"Figure 4. XOR by a 2-2-1 network with {arm.name}: planes, bent, combined",
        f"Data set: the four points of XOR; start {network.start + 1} of {arm.starts} (seed "
        f"{run.xor.options['seed']}), the first that was solved; {arm.solved} of {arm.starts} were. "
        "Above: each surface over the inputs. Below: the same as a map. "
        "White disc: target 1; black disc: target 0; below with the surface's height there. "
        "Thick line: the threshold between the two answers.",
    )
    line = torch.linspace(-_REACH, 1 + _REACH, _GRID, dtype=torch.float64)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    grid = torch.stack([columns.flatten(), rows.flatten()], dim=1)
    points = torch.tensor(POINTS, dtype=torch.float64)
    v, d = network.v, network.d
    formula = f"y = {v[0]:.2f} h₁ {'+' if v[1] >= 0 else '-'} {abs(v[1]):.2f} h₂ {'+' if d >= 0 else '-'} {abs(d):.2f}"
    sizes = [f"\na = {a:.2f}, b = {b:.2f}" for a, b in zip(network.a, network.b, strict=True)]
    surfaces: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        ("z₁: node 1, plane", lambda at: network.planes(at)[:, 0]),
        ("z₂: node 2, plane", lambda at: network.planes(at)[:, 1]),
        (f"h₁: node 1, bent{sizes[0]}", lambda at: network.bent(at)[:, 0]),
        (f"h₂: node 2, bent{sizes[1]}", lambda at: network.bent(at)[:, 1]),
        (f"combined\n{formula}", network.output),
    ]
    layout = figure.add_gridspec(2, len(surfaces), height_ratios=(1.25, 1.0))
    require("mpl_toolkits.mplot3d", "paper")  # the projection "3d" is known from here on
    for column, (title, surface) in enumerate(surfaces):
        height, at_points = surface(grid).reshape(_GRID, _GRID).numpy(), surface(points).numpy()
        level = network.threshold if column == len(surfaces) - 1 else None
        above = figure.add_subplot(layout[0, column], projection="3d")
        above.set_title(title.replace("-", "−"), fontsize=8.5, loc="center")
        _relief(above, columns.numpy(), rows.numpy(), height, at_points, level)
        below = figure.add_subplot(layout[1, column])
        _map(figure, below, line.numpy(), height, at_points)
        if level is not None:
            below.contour(line.numpy(), line.numpy(), height, levels=[level], colors=INK, linewidths=2.4)
    return figure


def _disc(target: float) -> dict[str, Any]:
    inside, edge = ("white", "black") if target else ("black", "white")
    return {"color": inside, "markeredgecolor": edge, "zorder": 5}


def _relief(
    axis: Any, x: np.ndarray, y: np.ndarray, height: np.ndarray, at_points: np.ndarray, level: float | None
) -> None:
    """Draw a surface in three dimensions, seen from the same side each time."""
    axis.computed_zorder = False  # else matplotlib hides points that are on the surface
    axis.plot_surface(x, y, height, cmap="cividis", rstride=4, cstride=4, linewidth=0.1, edgecolor="white")
    if level is not None:
        axis.contour(x, y, height, levels=[level], colors=INK, linewidths=2.0, zorder=4)
    for (x1, x2), target, value in zip(POINTS, TARGETS, at_points, strict=True):
        axis.plot([x1], [x2], [value], "o", **_disc(target), markersize=6, markeredgewidth=1.0)
    axis.view_init(elev=28, azim=-58)
    axis.set_box_aspect((1.0, 1.0, 0.8), zoom=1.1)
    axis.set(xlabel="x₁", ylabel="x₂", xticks=[0, 1], yticks=[0, 1])
    axis.tick_params(labelsize=7, pad=-1)
    axis.xaxis.labelpad = axis.yaxis.labelpad = -6


def _map(figure: Any, axis: Any, line: np.ndarray, height: np.ndarray, at_points: np.ndarray) -> None:
    filled = axis.contourf(line, line, height, levels=18, cmap="cividis")
    # On the edges of the bands, every second one: lines at levels of their own would make a plane look bent.
    axis.contour(
        line, line, height, levels=filled.levels[::2], colors="white", linewidths=0.5, linestyles="solid", alpha=0.7
    )
    bar = figure.colorbar(filled, ax=axis, orientation="horizontal", aspect=22, pad=0.02)
    bar.locator = require("matplotlib.ticker", "paper").MaxNLocator(4)
    bar.ax.tick_params(labelsize=7)
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    for (x, y), target, value in zip(POINTS, TARGETS, at_points, strict=True):
        axis.plot(x, y, "o", **_disc(target), markersize=7, markeredgewidth=1.2)
        words = f"{round(float(value), 2) + 0.0:.2f}".replace("-", "−")  # never "−0.00"
        axis.annotate(words, (x, y), xytext=(0, 7), textcoords="offset points", ha="center", va="bottom",
                      fontsize=7.5, bbox=box, zorder=6)  # fmt: skip
    axis.set(xlabel="x₁", ylabel="x₂", aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axis.grid(False)
