"""Curves of an activation: f and f' beside a f(x - b) and its slope, for one term or a sum of several."""

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
    """Values over ``x``, all of the same length; a value that is not finite is None.

    Attributes:
        x: Where the curves are drawn.
        plain: f(x).
        plain_slope: f'(x).
        agile: The sum of a_j f(x - b_j).
        agile_slope: Its slope, the sum of a_j f'(x - b_j).
    """

    x: list[float]
    plain: list[float | None]
    plain_slope: list[float | None]
    agile: list[float | None]
    agile_slope: list[float | None]


@dataclass(frozen=True)
class Reading:
    """What happens at one x.

    Attributes:
        plain: f(x).
        plain_slope: f'(x).
        value: The sum of a_j f(x - b_j).
        slope: Its slope.
        by_scale: The derivatives by each a_j, f(x - b_j): equations (11) and (19) of the paper.
        by_location: The derivatives by each b_j, -a_j f'(x - b_j): equations (12) and (20).
    """

    plain: float
    plain_slope: float
    value: float
    slope: float
    by_scale: tuple[float, ...]
    by_location: tuple[float, ...]


def curves(base: str, scales: Sequence[float], locations: Sequence[float], options: Mapping[str, Any]) -> Curves:
    """Return the curves of f and of its agile form.

    Args:
        base: The name of f.
        scales: a of each term.
        locations: b of each term.
        options: All options of f.

    Example:
        >>> drawn = curves("relu", [2.0], [1.0], {})
        >>> drawn.x[-1], drawn.plain[-1], drawn.agile[-1], drawn.agile_slope[-1]
        (6.0, 6.0, 10.0, 2.0)
    """
    x = torch.linspace(-REACH, REACH, _POINTS, dtype=torch.float64)
    f = bases.get(base)
    return Curves(
        x=x.tolist(),
        plain=_finite(f.function(x, **options)),
        plain_slope=_finite(f.derivative(x, **options)),
        agile=_finite(_values(x, base, scales, locations, options)),
        agile_slope=_finite(_slopes(x, base, scales, locations, options)),
    )


def reading(
    base: str, scales: Sequence[float], locations: Sequence[float], options: Mapping[str, Any], at: float
) -> Reading:
    """Return values and derivatives at x = ``at``.

    Example:
        >>> reading("relu", [2.0], [1.0], {}, 4.0)
        Reading(plain=4.0, plain_slope=1.0, value=6.0, slope=2.0, by_scale=(3.0,), by_location=(-2.0,))
    """
    x = torch.tensor([at], dtype=torch.float64)
    f = bases.get(base)
    return Reading(
        plain=float(f.function(x, **options)),
        plain_slope=float(f.derivative(x, **options)),
        value=float(_values(x, base, scales, locations, options)),
        slope=float(_slopes(x, base, scales, locations, options)),
        by_scale=tuple(float(f.function(x - b, **options)) for b in locations),
        by_location=tuple(-a * float(f.derivative(x - b, **options)) for a, b in zip(scales, locations, strict=True)),
    )


def _values(
    x: Tensor, base: str, scales: Sequence[float], locations: Sequence[float], options: Mapping[str, Any]
) -> Tensor:
    # The library's own operators, so that what is drawn is what a network computes.
    a, b = (torch.tensor(values, dtype=torch.float64) for values in (scales, locations))
    if len(scales) == 1:
        return agile(x[:, None], a, b, base=base, dim=1, **options)[:, 0]
    return combined_agile(x[:, None], a[:, None], b[:, None], base=base, dim=1, **options)[:, 0]


def _slopes(
    x: Tensor, base: str, scales: Sequence[float], locations: Sequence[float], options: Mapping[str, Any]
) -> Tensor:
    f = bases.get(base)
    terms = [a * f.derivative(x - b, **options) for a, b in zip(scales, locations, strict=True)]
    return torch.stack(terms).sum(0)


def _finite(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
