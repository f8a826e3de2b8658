"""Figures 2 and 6: what an activation looks like, and what a and b do to it.

Drawn from the formula a f(x - b), equations (7) and (8) of doi 10.3745/KTSDE.2020.9.7.213, as
:func:`agileact.functional.agile` computes it; no data set enters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agileact.functional import agile
from agileact.paper.figures.run import Run, written
from agileact.paper.figures.style import ACTIVATION, INK, LEGEND_RIGHT, WEIGHTS, new_figure, shade

_BASES = ("sigmoid", "relu")
_SCALES = (-1.0, 0.5, 1.0, 1.5, 2.0)
_LOCATIONS = (-2.0, -1.0, 0.0, 1.0, 2.0)
# From light to dark, so that the order of the values is seen without colour as well.
_LIGHTNESS = (0.62, 0.4, 0.0, -0.3, -0.6)

Values = NDArray[np.float64]


def evaluate(base: str, x: Values, scale: float = 1.0, location: float = 0.0) -> tuple[Values, Values]:
    """Return a f(x - b) and its derivative by x.

    Example:
        >>> value, slope = evaluate("sigmoid", np.zeros(1), scale=2.0)
        >>> float(value[0]), float(slope[0])
        (1.0, 0.5)
    """
    points = torch.tensor(x, dtype=torch.float64).reshape(-1, 1).requires_grad_()
    a, b = (torch.tensor([value], dtype=torch.float64) for value in (scale, location))
    value = agile(points, a, b, base=base, dim=1)
    (slope,) = torch.autograd.grad(value.sum(), points)
    return value.detach().numpy().ravel(), slope.numpy().ravel()


def _with_gaps(values: Values) -> Values:
    """Break the line where it jumps: a jump is not a steep slope."""
    broken = values.copy()
    broken[1:][np.abs(np.diff(values)) > 0.3] = np.nan
    return broken


def _run_note(run: Run) -> str:
    return f"No data enters this figure. The run beside it: {run.source[0].lower()}{run.source[1:]}"


def figure_2(run: Run) -> Any:
    """Draw sigmoid and ReLU with their derivatives."""
    figure = new_figure(
        8.4, 3.5, "Figure 2. An activation f and its shape", f"Computed by agileact.functional.agile. {_run_note(run)}"
    )
    x = np.linspace(-6, 6, 1200)
    axes = figure.subplots(1, 2)
    for axis, base in zip(axes, _BASES, strict=True):
        value, slope = evaluate(base, x)
        axis.plot(x, value, color=WEIGHTS, label="f(x)")
        axis.plot(x, _with_gaps(slope), color=ACTIVATION, linestyle=(0, (4, 1.6)), label="f′(x)")
        axis.set(title=written(base), xlabel="x (input of the activation)", ylabel="f(x), f′(x)")
    axes[1].set_ylim(-0.3, 6.3)
    axes[1].legend(**LEGEND_RIGHT)
    return figure


def figure_6(run: Run) -> Any:
    """Draw families of agile sigmoid and agile ReLU over a and over b."""
    figure = new_figure(
        9.2,
        6.2,
        "Figure 6. What the size a and the position b do: a f(x − b)",
        "Black: a = 1, b = 0, which is f itself and where training starts. "
        f"Computed by agileact.functional.agile. {_run_note(run)}",
    )
    x = np.linspace(-6, 6, 1200)
    axes = figure.subplots(2, 2)
    for row, base in zip(axes, _BASES, strict=True):
        for axis, symbol, values in ((row[0], "a", _SCALES), (row[1], "b", _LOCATIONS)):
            for value, lightness in zip(values, _LIGHTNESS, strict=True):
                options = {"scale": value} if symbol == "a" else {"location": value}
                start = value == (1.0 if symbol == "a" else 0.0)
                axis.plot(
                    x,
                    evaluate(base, x, **options)[0],
                    color=INK if start else shade(ACTIVATION if symbol == "a" else WEIGHTS, lightness),
                    linewidth=2.2 if start else 1.5,
                    linestyle="-" if start or lightness < 0 else (0, (4, 1.6)),
                    label=f"{symbol} = {value:g}".replace("-", "−"),
                )
            held = "b = 0" if symbol == "a" else "a = 1"
            axis.set(
                title=f"agile {written(base)}: {symbol} varies, {held}",
                xlabel="x (input of the activation)",
                ylabel="a f(x − b)",
            )
            axis.legend(**LEGEND_RIGHT)
    return figure
