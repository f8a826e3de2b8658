"""Figure 4: how the trained 2-2-1 network solves XOR (doi 10.3745/KTSDE.2020.9.7.213, section 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agileact.paper.figures.run import NothingToDrawError, Run
from agileact.paper.figures.style import INK, new_figure
from agileact.paper.xor_outcome import POINTS, TARGETS

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
        10.6,
        6.0,
        f"Figure 4. XOR by a 2-2-1 network with {arm.name}: planes, bent, combined",
        f"Data set: the four points of XOR; start {network.start + 1} of {arm.starts} (seed "
        f"{run.xor.options['seed']}), the first that was solved; {arm.solved} of {arm.starts} were. "
        "White disc: target 1; black disc: target 0; beside it, the surface's height there. "
        "Thick line: the threshold between the two answers.",
    )
    line = torch.linspace(-_REACH, 1 + _REACH, _GRID, dtype=torch.float64)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    grid = torch.stack([columns.flatten(), rows.flatten()], dim=1)
    points = torch.tensor(POINTS, dtype=torch.float64)

    layout = figure.add_gridspec(2, 4)
    planes, bent = (network.planes, network.bent)
    for node in (0, 1):
        for column, (surface, symbol, words) in enumerate(((planes, "z", "plane"), (bent, "h", "bent"))):
            axis = figure.add_subplot(layout[node, column])
            _surface(
                figure,
                axis,
                line.numpy(),
                surface(grid)[:, node].reshape(_GRID, _GRID).numpy(),
                surface(points)[:, node].numpy(),
            )
            sizes = f"\na = {network.a[node]:.2f}, b = {network.b[node]:.2f}".replace("-", "−") if column else ""
            axis.set_title(f"{symbol}{'₁₂'[node]}: node {node + 1}, {words}{sizes}", fontsize=8.5)
    axis = figure.add_subplot(layout[:, 2:])
    output = network.output(grid).reshape(_GRID, _GRID).numpy()
    _surface(figure, axis, line.numpy(), output, network.output(points).numpy(), large=True)
    axis.contour(line.numpy(), line.numpy(), output, levels=[network.threshold], colors=INK, linewidths=2.4)
    v, d = network.v, network.d
    formula = f"y = {v[0]:.2f} h₁ {'+' if v[1] >= 0 else '−'} {abs(v[1]):.2f} h₂ {'+' if d >= 0 else '−'} {abs(d):.2f}"
    axis.set_title(f"combined: {formula}".replace("-", "−"))
    return figure


def _surface(
    figure: Any, axis: Any, line: np.ndarray, height: np.ndarray, at_points: np.ndarray, *, large: bool = False
) -> None:
    filled = axis.contourf(line, line, height, levels=18, cmap="cividis")
    # On the edges of the bands, every second one: lines at levels of their own would make a plane look bent.
    axis.contour(
        line, line, height, levels=filled.levels[::2], colors="white", linewidths=0.5, linestyles="solid", alpha=0.7
    )
    bar = figure.colorbar(filled, ax=axis, shrink=0.72, aspect=22, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    for (x, y), target, value in zip(POINTS, TARGETS, at_points, strict=True):
        axis.plot(
            x, y, "o", markersize=10 if large else 7, color="white" if target else "black",
            markeredgecolor="black" if target else "white", markeredgewidth=1.2, zorder=5,
        )  # fmt: skip
        axis.annotate(
            # Never "−0.00".
            f"{round(float(value), 2) + 0.0:.2f}".replace("-", "−"),
            (x, y),
            xytext=(0, 9 if large else 7),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9 if large else 7.5,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
            zorder=6,
        )
    axis.set(xlabel="x₁", ylabel="x₂", aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axis.grid(False)
