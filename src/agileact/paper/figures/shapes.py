"""Figures 2 and 6: what an activation looks like, and what a and b do to it.

Drawn from the formula a f(x - b), equations (7) and (8) of doi 10.3745/KTSDE.2020.9.7.213, as
:func:`agileact.functional.agile` computes it; no data set enters.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agileact.functional import agile
from agileact.paper.figures.run import Run, written
from agileact.paper.figures.style import ACTIVATION, INK, LEGEND_RIGHT, WEIGHTS, new_figure, shade

_BASES = ("sigmoid", "relu")
_FAMILIES = (
    ("a", "scale", 1.0, "b = 0", ACTIVATION, (-1.0, 0.5, 1.0, 1.5, 2.0)),
    ("b", "location", 0.0, "a = 1", WEIGHTS, (-2.0, -1.0, 0.0, 1.0, 2.0)),
)
_INPUT = "x (input of the activation)"
# From light to dark, so that the order of the values is seen without colour as well.
_LIGHTNESS = (0.62, 0.4, 0.0, -0.3, -0.6)

Values = NDArray[np.float64]


def evaluate(base: str, x: Values, scale: float = 1.0, location: float = 0.0) -> tuple[Values, Values]:
    """Return a f(x - b) and its derivative by x."""
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
        axis.set(title=written(base), xlabel=_INPUT, ylabel="f(x), f′(x)")
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
        for axis, (symbol, name, start, held, color, values) in zip(row, _FAMILIES, strict=True):
            for value, lightness in zip(values, _LIGHTNESS, strict=True):
                y = evaluate(base, x, **{name: value})[0]
                label = f"{symbol} = {value:g}".replace("-", "−")
                if value == start:
                    axis.plot(x, y, color=INK, linewidth=2.2, label=label)
                else:
                    dashes = "-" if lightness < 0 else (0, (4, 1.6))
                    axis.plot(x, y, color=shade(color, lightness), linestyle=dashes, label=label)
            axis.set(title=f"agile {written(base)}: {symbol} varies, {held}", xlabel=_INPUT, ylabel="a f(x − b)")
            axis.legend(**LEGEND_RIGHT)
    return figure
