"""One operator, several kernels; PyTorch's dispatcher chooses by device.

``torch.ops.agileact.agile`` has a default kernel in plain PyTorch for every device (``_default``), compiled ones for
the CPU (``csrc/``, loaded by ``_cpu``) and Triton ones for CUDA. A base function that is not fused does not become an
operator at all: it is the expression in :mod:`agileact.reference`, which PyTorch differentiates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from agileact import reference
from agileact._broadcast import WIDE
from agileact.bases import Base, Value
from agileact.ops import _autograd, _cpu, _pool, _triton
from agileact.ops._fused import FUSED, fused_name
from agileact.ops._pool import Pair
from agileact.ops._pool import output_size as pooled_size

CPU = _cpu.load()
"""What became of the compiled kernels."""

_autograd.register(compiled=CPU.loaded)
# The autograd of the compiled library serves every device; the one in Python knows no torch.func.
_TRITON = _triton.register() and CPU.loaded
_agile = torch.ops.agileact.agile.default
_FLOATING = frozenset(WIDE)

__all__ = ["CPU", "agile", "agile_channels", "agile_max_pool2d", "pooled_size"]


def _forward_mode() -> bool:
    # The fused operators have no rule for forward mode over backward: within it the expression, which has all rules.
    return forward_ad._current_level >= 0


# PyTorch 2.6 does not have it yet.
_is_exporting = getattr(torch.compiler, "is_exporting", bool)


def _served(x: Tensor) -> bool:
    """Return whether a fused kernel serves the device of ``x``: elsewhere the expression does more, and as fast."""
    # An exported program runs where this package is not, and ONNX knows its operators as little.
    if _is_exporting():
        return False
    return CPU.loaded if x.is_cpu or x.is_meta else _TRITON and x.is_cuda


def agile(
    x: Tensor,
    scale: Tensor,
    location: Tensor,
    base: Base,
    options: Mapping[str, Value],
    start: int,
    stop: int,
) -> Tensor:
    """Do what :func:`agileact.reference.agile` does, by the operator where the base function is fused."""
    fused = fused_name(base.name, options)
    if fused is None or not _served(x) or _forward_mode():
        return reference.agile(x, scale, location, base, options, start, stop)
    result: Tensor = _agile(x, scale, location, *fused, start, stop - start)
    return result


def agile_channels(
    x: Tensor, scale: Any, location: Any, base: str, options: Mapping[str, Value], dim: int
) -> Tensor | None:
    """Do what :func:`agile` does, if it plainly can: one 1-D pair a channel, on the CPU. None if a check is due."""
    name = base if CPU.loaded and not options and base in FUSED else None
    if (
        name is None
        or _forward_mode()
        or type(x) is not Tensor
        or x.dtype not in _FLOATING
        or type(scale) is not Parameter
        or type(location) is not Parameter
    ):
        return None
    ndim = x.dim()
    if not -ndim <= dim < ndim or ndim < 2 or not (x.is_cpu and scale.is_cpu and location.is_cpu):
        return None
    axis = dim % ndim
    if scale.shape != x.shape[axis : axis + 1] or location.shape != scale.shape:
        return None
    result: Tensor = _agile(x, scale, location, name, 0.0, 0.0, axis, 1)
    return result


def agile_max_pool2d(
    x: Tensor,
    scale: Tensor | None,
    location: Tensor | None,
    base: Base,
    options: Mapping[str, Value],
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil: bool,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the max pooling of scale * f(x - location), and the indices as ``max_pool2d`` gives them.

    The parameters have one number for each channel, or one for all; None stands for 1 and for 0.
    """
    fused = fused_name(base.name, options)
    if fused is None or not _served(x) or _forward_mode() or not _pool.fits(x, kernel):
        if scale is None and location is None:
            y = base.function(x, **options)
        else:
            one = scale if scale is not None else torch.ones_like(location)  # type: ignore[arg-type]
            zero = location if location is not None else torch.zeros_like(one)
            start, stop = (1, 2) if one.numel() == x.shape[1] else (0, 0)
            y = agile(x, one.reshape(-1), zero.reshape(-1), base, options, start, stop)
        if not return_indices:
            return torch.nn.functional.max_pool2d(y, kernel, stride, padding, dilation, ceil), None
        pooled: tuple[Tensor, Tensor] = torch.nn.functional.max_pool2d_with_indices(
            y, kernel, stride, padding, dilation, ceil
        )
        return pooled
    out = _pool.output_size(x.shape[2:], kernel, stride, padding, dilation, ceil)
    value, _, places = torch.ops.agileact.agile_max_pool2d(
        x, scale, location, *fused, kernel, stride, padding, dilation, out
    )
    if not return_indices:
        return value, None
    return value, _pool.indices_of(places, x.shape[3], kernel, stride, padding, dilation)
