"""Curves of an activation: f and f' beside a f(g (x - b)) and its slope, for one term or, with g = 1, several."""

from __future__ import annotations

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


def curves(
    base: str,
    scales: Sequence[float],
    locations: Sequence[float],
    options: Mapping[str, Any],
    gain: float | None = None,
) -> Curves:
    """Return the curves of f and of its agile form."""
    x = torch.linspace(-REACH, REACH, _POINTS, dtype=torch.float64)
    f = bases.get(base)
    return Curves(
        x=x.tolist(),
        plain=_finite(f.function(x, **options)),
        plain_slope=_finite(f.derivative(x, **options)),
        agile=_finite(_values(x, base, scales, locations, options, gain)),
        agile_slope=_finite(_slopes(x, base, scales, locations, options, gain)),
    )


def reading(
    base: str,
    scales: Sequence[float],
    locations: Sequence[float],
    options: Mapping[str, Any],
    at: float,
    gain: float | None = None,
) -> Reading:
    """Return values and derivatives at x = ``at``."""
    x = torch.tensor([at], dtype=torch.float64)
    f, g = bases.get(base), 1.0 if gain is None else gain
    slopes = [a * float(f.derivative(g * (x - b), **options)) for a, b in zip(scales, locations, strict=True)]
    return Reading(
        plain=float(f.function(x, **options)),
        plain_slope=float(f.derivative(x, **options)),
        value=float(_values(x, base, scales, locations, options, gain)),
        slope=float(_slopes(x, base, scales, locations, options, gain)),
        by_scale=tuple(float(f.function(g * (x - b), **options)) for b in locations),
        by_location=tuple(-g * slope for slope in slopes),
        by_gain=None if gain is None else sum(s * (at - b) for s, b in zip(slopes, locations, strict=True)),
    )


def agile_curves(x: Tensor, a: Tensor, b: Tensor, base: str, options: Mapping[str, Any]) -> Tensor:
    """Return the curves (points, units) of a and b of shape (terms, units), by the operators that networks use."""
    return combined_agile(x[:, None].expand(-1, a.shape[1]).contiguous(), a, b, base=base, dim=1, **options)


def _values(
    x: Tensor,
    base: str,
    scales: Sequence[float],
    locations: Sequence[float],
    options: Mapping[str, Any],
    gain: float | None,
) -> Tensor:
    a, b = (torch.tensor(values, dtype=torch.float64)[:, None] for values in (scales, locations))
    if gain is None:
        return agile_curves(x, a, b, base, options)[:, 0]
    return agile(x, a[0, 0], b[0, 0], base, gain=torch.tensor(gain, dtype=torch.float64), **options)


def _slopes(
    x: Tensor,
    base: str,
    scales: Sequence[float],
    locations: Sequence[float],
    options: Mapping[str, Any],
    gain: float | None,
) -> Tensor:
    f, g = bases.get(base), 1.0 if gain is None else gain
    terms = [a * g * f.derivative(g * (x - b), **options) for a, b in zip(scales, locations, strict=True)]
    return torch.stack(terms).sum(0)


def _finite(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
