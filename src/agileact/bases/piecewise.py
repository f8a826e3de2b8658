"""Base functions that are straight, or nearly so, between a few kinks."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from agileact._common.errors import ArgumentError
from agileact.bases.base import Base, Option

# At a kink the derivatives have the value that PyTorch's backward kernels give. Comparisons are written so that
# NaN takes the side it takes there.


def _zero(x: Tensor, **options: float) -> Tensor:
    return torch.zeros_like(x)


def _between(x: Tensor, low: float, high: float, slope: float) -> Tensor:
    """Return ``slope`` strictly between ``low`` and ``high``, 0 elsewhere."""
    return torch.where((x <= low) | (x >= high), 0.0, torch.full_like(x, slope))


def _hardtanh_together(min_val: float, max_val: float) -> None:
    if min_val >= max_val:
        raise ArgumentError(f"min_val must be less than max_val, not {min_val} against {max_val}")


def _hardsigmoid(x: Tensor) -> Tensor:
    # PyTorch's own hardsigmoid has no second derivative. This has its value, bit for bit, because the difference of two
    # numbers that are this close is exact; and it has all derivatives.
    differentiable = F.relu6(x + 3) / 6
    return differentiable + (F.hardsigmoid(x) - differentiable).detach()


def _shrink_derivative(x: Tensor, lambd: float) -> Tensor:
    return torch.where((x >= -lambd) & (x <= lambd), 0.0, torch.ones_like(x))


PIECEWISE = (
    Base(
        "relu",
        F.relu,
        lambda x: torch.where(x <= 0, 0.0, torch.ones_like(x)),
        _zero,
        formula="max(0, x)",
        rounds_inside=False,
        monotone="increasing",
        positively_homogeneous=True,
        bounds=(0.0, math.inf),
        kinks=(0.0,),
    ),
    Base(
        "relu6",
        F.relu6,
        lambda x: _between(x, 0.0, 6.0, 1.0),
        _zero,
        formula="min(max(0, x), 6)",
        rounds_inside=False,
        monotone="increasing",
        bounds=(0.0, 6.0),
        kinks=(0.0, 6.0),
    ),
    Base(
        "leaky_relu",
        F.leaky_relu,
        lambda x, negative_slope: torch.where(x > 0, 1.0, torch.full_like(x, negative_slope)),
        _zero,
        formula="x where x > 0, else negative_slope x",
        options={"negative_slope": Option(0.01)},
        rounds_inside=False,
        monotone=lambda negative_slope: "increasing" if negative_slope >= 0 else None,
        positively_homogeneous=True,
        odd=lambda negative_slope: negative_slope == 1.0,
        bounds=lambda negative_slope: (-math.inf if negative_slope > 0 else 0.0, math.inf),
        kinks=(0.0,),
    ),
    Base(
        "hardtanh",
        F.hardtanh,
        lambda x, min_val, max_val: _between(x, min_val, max_val, 1.0),
        _zero,
        formula="min(max(min_val, x), max_val)",
        options={"min_val": Option(-1.0), "max_val": Option(1.0)},
        check_together=_hardtanh_together,
        rounds_inside=False,
        monotone="increasing",
        positively_homogeneous=lambda min_val, max_val: min_val in (-math.inf, 0.0) and max_val in (0.0, math.inf),
        odd=lambda min_val, max_val: min_val == -max_val,
        bounds=lambda min_val, max_val: (min_val, max_val),
        kinks=lambda min_val, max_val: tuple(kink for kink in (min_val, max_val) if math.isfinite(kink)),
    ),
    Base(
        "hardsigmoid",
        _hardsigmoid,
        lambda x: _between(x, -3.0, 3.0, 1.0 / 6.0),
        _zero,
        formula="min(max(0, x + 3), 6) / 6",
        rounds_inside=False,
        monotone="increasing",
        bounds=(0.0, 1.0),
        kinks=(-3.0, 3.0),
    ),
    Base(
        "hardswish",
        F.hardswish,
        lambda x: torch.where(x <= -3, 0.0, torch.where(x < 3, x / 3 + 0.5, 1.0)),
        lambda x: _between(x, -3.0, 3.0, 1.0 / 3.0),
        formula="x min(max(0, x + 3), 6) / 6",
        rounds_inside=False,
        bounds=(-0.375, math.inf),
        kinks=(-3.0, 3.0),
    ),
    Base(
        "softshrink",
        F.softshrink,
        _shrink_derivative,
        _zero,
        formula="sign(x) max(0, |x| - lambd)",
        options={"lambd": Option(0.5, least=0.0)},
        rounds_inside=False,
        monotone="increasing",
        positively_homogeneous=lambda lambd: lambd == 0.0,
        odd=True,
        kinks=lambda lambd: (-lambd, lambd) if lambd > 0 else (),
    ),
    Base(
        "hardshrink",
        F.hardshrink,
        _shrink_derivative,
        _zero,
        formula="x where |x| > lambd, else 0",
        options={"lambd": Option(0.5, least=0.0)},
        # In half precision PyTorch compares with lambd rounded to that precision.
        rounds_inside=True,
        monotone="increasing",
        positively_homogeneous=lambda lambd: lambd == 0.0,
        odd=True,
        kinks=lambda lambd: (-lambd, lambd) if lambd > 0 else (),
    ),
    Base(
        "threshold",
        F.threshold,
        lambda x, threshold, value: torch.where(x <= threshold, 0.0, torch.ones_like(x)),
        _zero,
        formula="x where x > threshold, else value",
        options={"threshold": Option(0.0), "value": Option(0.0)},
        rounds_inside=False,
        monotone=lambda threshold, value: "increasing" if value <= threshold else None,
        positively_homogeneous=lambda threshold, value: threshold == value == 0.0,
        bounds=lambda threshold, value: (min(threshold, value), math.inf),
        kinks=lambda threshold, value: (threshold,),
    ),
    Base(
        "identity",
        lambda x: x,
        torch.ones_like,
        _zero,
        formula="x",
        rounds_inside=False,
        monotone="increasing",
        positively_homogeneous=True,
        odd=True,
    ),
)
