"""One operator, several kernels; PyTorch's dispatcher chooses by device.

``torch.ops.agileact.agile`` has a default kernel in plain PyTorch for every device (``_default``), compiled ones for
the CPU (``csrc/``, loaded by ``_cpu``) and Triton ones for CUDA. A base function that is not fused does not become an
operator at all: it is the expression in :mod:`agileact.reference`, which PyTorch differentiates.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from agileact import reference
from agileact._common.broadcasting import WIDE, spread
from agileact.bases import Base, Value
from agileact.ops import cpu as _cpu
from agileact.ops import pool as _pool
from agileact.ops import triton as _triton
from agileact.ops.fused import FUSED, fused_name
from agileact.ops.pool import Pair
from agileact.ops.pool import output_size as pooled_size

CPU = _cpu.load()
"""What became of the compiled kernels."""

_LOADED = CPU.loaded
_channels = _cpu.load_binding() if _LOADED else None
_TRITON = _triton.register()
_STRIDED = torch.strided
# What an operator object calls; skipping the object saves a tenth of a small call. A compiler knows only the object.
_agile, _agile_ = torch.ops.agileact.agile.default._op, torch.ops.agileact.agile_.default._op

__all__ = ["CPU", "Call", "agile", "agile_channels", "agile_gain", "agile_max_pool2d", "call_of", "pooled_size"]

Call = tuple[Any, ...]
"""An operator's name for a base function, and its numbers if it has some."""


def _forward_mode() -> bool:
    # The fused operators have no rule for forward mode over backward: within it the expression, which has all rules.
    return forward_ad._current_level >= 0


def _served(x: Tensor) -> bool:
    """Return whether a fused kernel serves the device of ``x``: elsewhere the expression does more, and as fast."""
    # A compiler fuses the expression with what is around it, which it cannot do with an operator. An exported program
    # runs where this package is not.
    if torch.compiler.is_compiling():
        return False
    # The autograd of the compiled library serves every device.
    return _LOADED and (x.is_cpu or x.is_meta or (_TRITON and x.is_cuda))


def agile(
    x: Tensor,
    scale: Tensor,
    location: Tensor,
    base: Base,
    options: Mapping[str, Value],
    start: int,
    stop: int,
    terms: int = 1,
    inplace: bool = False,
) -> Tensor:
    """Do what :func:`agileact.reference.agile` does, by the operator where the base function is fused.

    With several terms ``scale`` and ``location`` are flat, term after term. In place, ``x`` becomes the result.
    """
    fused = fused_name(base.name, options)
    if fused is None or not _served(x) or _forward_mode():
        if terms == 1:
            result = reference.agile(x, scale, location, base, options, start, stop)
        else:
            a, b = scale.reshape(terms, -1), location.reshape(terms, -1)
            result = reference.combined_agile(x, a, b, base, options, start, stop)
    else:
        operator = torch.ops.agileact.agile_ if inplace else torch.ops.agileact.agile
        done: Tensor = operator(x, scale, location, *fused, start, stop - start, terms)
        return done
    return x.copy_(result) if inplace else result


def agile_gain(
    x: Tensor,
    scale: Tensor,
    location: Tensor,
    gain: Tensor,
    base: Base,
    options: Mapping[str, Value],
    start: int,
    stop: int,
    inplace: bool = False,
) -> Tensor:
    """Return scale * f(gain * (x - location)): by one kernel on the CPU, else by :func:`agile` on gain * x."""
    fused = fused_name(base.name, options)
    if fused is not None and not inplace and _served(x) and not _forward_mode():
        done: Tensor = torch.ops.agileact.agile_gain(x, scale, location, gain, *fused, start, stop - start)
        return done
    wide = WIDE[x.dtype]
    along = (x.to(wide) * spread(gain, x.shape, start, stop, wide)).to(x.dtype)
    result = agile(along, scale, gain * location, base, options, start, stop)
    return x.copy_(result) if inplace else result


def call_of(base: str, options: Mapping[str, Value]) -> Call | None:
    """Return what :func:`agile_channels` wants to know of a base function; None if there is no compiled kernel for it.

    Example:
        >>> call_of("sine", {}) is None
        True
    """
    fused = fused_name(base, options) if CPU.loaded else None
    return None if fused is None else fused[: 1 + len(FUSED[fused[0]])]


def agile_channels(
    x: Tensor, parameters: Mapping[str, Any], call: Call, dim: int, terms: int = 1, inplace: bool = False
) -> Tensor | None:
    """Do what :func:`agile` does, if it plainly can: one 1-D pair a channel, on the CPU. None if a check is due.

    For a small tensor checks cost more than the kernel. The few here tell the usual case, for which the kernel has no
    reason to refuse: what it raises is passed on.
    """
    if not _LOADED or torch.compiler.is_compiling() or forward_ad._current_level >= 0:
        return None
    if _channels is not None:
        done: Tensor | None = _channels(x, parameters, call, dim, terms, inplace)
        if done is not None:
            return done
    scale, location = parameters.get("scale"), parameters.get("location")
    # A parametrised or pruned scale is no longer among the parameters.
    if (
        type(x) is not Tensor
        or type(scale) is not Parameter
        or type(location) is not Parameter
        or not (x.dtype in WIDE and scale.dtype in WIDE and location.dtype in WIDE)
        or not (x.is_cpu and scale.is_cpu and location.is_cpu)
        or x.layout is not _STRIDED
        or x.is_nested
    ):
        return None
    shape = x.shape
    ndim = len(shape)
    if ndim < 2 or not -ndim <= dim < ndim:
        return None
    count = shape[dim] * terms
    if scale.shape != (count,) or location.shape != (count,):
        return None
    if dim == 1 and terms == 1 and not inplace:
        return _agile(x, scale, location, *call)  # type: ignore[no-any-return]
    operator = _agile_ if inplace else _agile
    return operator(x, scale, location, *(*call, 0.0, 0.0)[:3], dim % ndim, 1, terms)  # type: ignore[no-any-return]


def agile_max_pool2d(
    x: Tensor,
    scale: Tensor | None,
    location: Tensor | None,
    base: Base,
    options: Mapping[str, Value],
    window: tuple[Pair, Pair, Pair, Pair],
    ceil: bool,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the max pooling of scale * f(x - location), and the indices as ``max_pool2d`` gives them.

    The parameters have one number for each channel, or one for all; None stands for 1 and for 0.
    """
    fused = fused_name(base.name, options)
    if fused is not None and _served(x) and not _forward_mode() and _pool.fits(x, window[0]):
        out = _pool.output_size(x.shape[2:], *window, ceil)
        value, _, places = torch.ops.agileact.agile_max_pool2d(x, scale, location, *fused, *window, out)
        return value, _pool.indices_of(places, x.shape[3], *window) if return_indices else None
    if scale is None and location is None:
        y = base.function(x, **options)
    else:
        one = scale if scale is not None else torch.ones_like(location)  # type: ignore[arg-type]
        zero = location if location is not None else torch.zeros_like(one)
        start, stop = (1, 2) if one.numel() == x.shape[1] else (0, 0)
        y = agile(x, one.reshape(-1), zero.reshape(-1), base, options, start, stop)
    if not return_indices:
        return torch.nn.functional.max_pool2d(y, *window, ceil), None
    pooled: tuple[Tensor, Tensor] = torch.nn.functional.max_pool2d_with_indices(y, *window, ceil)
    return pooled
