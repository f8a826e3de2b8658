"""Curves of an activation: f and f' beside a f(g (x - b)) and its slope, for one term or, with g = 1, several."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agileact import bases
from agileact.functional import agile, combined_agile

REACH = 6.0
"""Curves are drawn from -REACH to REACH."""

_POINTS = 481


@dataclass(frozen=True)
class Form:
    """The agile form of f: all a and b, one for each term, the options of f, and of a single term perhaps a gain."""

    base: str
    scales: Sequence[float]
    locations: Sequence[float]
    options: Mapping[str, Any]
    gain: float | None = None

    def f(self, x: Tensor) -> Tensor:
        """Return what f gives at x."""
        return bases.get(self.base).function(x, **self.options)

    def slope(self, x: Tensor) -> Tensor:
        """Return the slope of f at x."""
        return bases.get(self.base).derivative(x, **self.options)

    def values(self, x: Tensor) -> Tensor:
        """Return the agile form at x, by the operators that networks use."""
        a, b = (torch.tensor(values, dtype=torch.float64)[:, None] for values in (self.scales, self.locations))
        if self.gain is None:
            return agile_curves(x, a, b, self.base, self.options)[:, 0]
        gain = torch.tensor(self.gain, dtype=torch.float64)
        return agile(x, a[0, 0], b[0, 0], self.base, gain=gain, **self.options)


@dataclass(frozen=True)
class Curves:
    """Values over ``x``, all of the same length; a value that is not finite is None."""

    x: list[float]
    plain: list[float | None]
    plain_slope: list[float | None]
    agile: list[float | None]
    agile_slope: list[float | None]


@dataclass(frozen=True)
class Reading:
    """What happens at one x; the derivatives by each a_j are equations (11) and (19), by each b_j (12) and (20).

    ``by_gain`` is the derivative by g, None without one.
    """

    plain: float
    plain_slope: float
    value: float
    slope: float
    by_scale: tuple[float, ...]
    by_location: tuple[float, ...]
    by_gain: float | None = None


def curves(form: Form) -> Curves:
    """Return the curves of f and of its agile form."""
    x = torch.linspace(-REACH, REACH, _POINTS, dtype=torch.float64)
    g = 1.0 if form.gain is None else form.gain
    slopes = [a * g * form.slope(g * (x - b)) for a, b in zip(form.scales, form.locations, strict=True)]
    drawn = (form.f(x), form.slope(x), form.values(x), torch.stack(slopes).sum(0))
    return Curves(x.tolist(), *([v if math.isfinite(v) else None for v in values.tolist()] for values in drawn))


def reading(form: Form, at: float) -> Reading:
    """Return values and derivatives at x = ``at``."""
    x = torch.tensor([at], dtype=torch.float64)
    g = 1.0 if form.gain is None else form.gain
    slopes = [a * float(form.slope(g * (x - b))) for a, b in zip(form.scales, form.locations, strict=True)]
    return Reading(
        plain=float(form.f(x)),
        plain_slope=float(form.slope(x)),
        value=float(form.values(x)),
        slope=g * sum(slopes),
        by_scale=tuple(float(form.f(g * (x - b))) for b in form.locations),
        by_location=tuple(-g * slope for slope in slopes),
        by_gain=None if form.gain is None else sum(s * (at - b) for s, b in zip(slopes, form.locations, strict=True)),
    )


def agile_curves(x: Tensor, a: Tensor, b: Tensor, base: str, options: Mapping[str, Any]) -> Tensor:
    """Return the curves (points, units) of a and b of shape (terms, units)."""
    return combined_agile(x[:, None].expand(-1, a.shape[1]).contiguous(), a, b, base=base, dim=1, **options)
