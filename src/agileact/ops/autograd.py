"""Shapes for tracing, vmap, and, without the compiled library, autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agileact.ops.schema import LIBRARY

_ops = torch.ops.agileact


def _empty(parameter: Tensor | None, x: Tensor) -> Tensor:
    if parameter is None:
        return x.new_empty(0, dtype=torch.float32)
    return torch.empty_like(parameter, memory_format=torch.contiguous_format)


def _fake_forward(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _fake_backward(
    grad: Tensor, saved: Tensor, scale: Tensor | None, location: Tensor | None, *_: Any
) -> tuple[Tensor, ...]:
    return torch.empty_like(saved), _empty(scale, saved), _empty(location, saved)


def _fake_double_backward(
    tangent_x: Tensor | None,
    tangent_scale: Tensor | None,
    tangent_location: Tensor | None,
    grad: Tensor,
    saved: Tensor,
    scale: Tensor | None,
    location: Tensor | None,
    *_: Any,
) -> tuple[Tensor, ...]:
    return (
        torch.empty_like(saved),
        torch.empty_like(saved),
        _empty(scale, saved),
        _empty(location, saved),
    )


# --- vmap -----------------------------------------------------------------------------------------------------------
# The axis of samples becomes one more axis of the parameters, right before theirs and behind that of the terms: then
# each sample has parameters, and gradients of them, of its own.


def _to_front(t: Tensor | None, axis: int | None, size: int, place: int) -> Tensor | None:
    """Move the axis of samples to ``place``, repeating a tensor that has none."""
    if t is None:
        return None
    if axis is None:
        return t.unsqueeze(place).expand(*t.shape[:place], size, *t.shape[place:])
    return t.movedim(axis, place)


def _flat(t: Tensor | None, axis: int | None, size: int, terms: int) -> Tensor | None:
    front = _to_front(t, axis, size, 0)
    return None if front is None else front.reshape(size, terms, -1).transpose(0, 1).reshape(-1)


def _unflat(gradient: Tensor, parameter: Tensor | None, axis: int | None, size: int, terms: int) -> Tensor:
    if parameter is None:
        return gradient
    shape = parameter.shape if axis is None else parameter.movedim(axis, 0).shape[1:]
    return gradient.reshape(terms, size, -1).transpose(0, 1).reshape(size, *shape)


_DEFAULTS = (0.0, 0.0, 1, 1, 1)
"""p, q, dim, ndim and terms, where a call leaves them out."""


def _call(base: str, *given: Any) -> tuple[Any, ...]:
    return (base, *given, *_DEFAULTS[len(given) :])


def _vmap_forward(info: Any, axes: Any, x: Any, scale: Any, location: Any, *given: Any) -> Any:
    base, p, q, dim, ndim, terms = _call(*given)
    size = info.batch_size
    if axes[1] is None and axes[2] is None:
        return _ops.agile(x.movedim(axes[0], 0), scale, location, base, p, q, dim + 1, ndim, terms), 0
    moved = _to_front(x, axes[0], size, dim)
    a, b = _flat(scale, axes[1], size, terms), _flat(location, axes[2], size, terms)
    return _ops.agile(moved, a, b, base, p, q, dim, ndim + 1, terms), dim


def _vmap_backward(info: Any, axes: Any, grad: Any, saved: Any, scale: Any, location: Any, *given: Any) -> Any:
    base, p, q, dim, ndim, terms = _call(*given[:6])
    from_output = given[6] if len(given) > 6 else False
    size = info.batch_size
    to_x, to_scale, to_location = _ops.agile_backward(
        _to_front(grad, axes[0], size, dim),
        _to_front(saved, axes[1], size, dim),
        _flat(scale, axes[2], size, terms),
        _flat(location, axes[3], size, terms),
        *(base, p, q, dim, ndim + 1, terms, from_output),
    )
    results = to_x, _unflat(to_scale, scale, axes[2], size, terms), _unflat(to_location, location, axes[3], size, terms)
    return results, (dim, None if scale is None else 0, None if location is None else 0)


def _vmap_double_backward(info: Any, axes: Any, *arguments: Any) -> Any:
    tensors, given = arguments[:7], arguments[7:]
    base, p, q, dim, ndim, terms = _call(*given[:6])
    from_output = given[6] if len(given) > 6 else False
    size = info.batch_size
    tangent_x, tangent_scale, tangent_location, grad, saved, scale, location = tensors
    to_grad, to_x, to_scale, to_location = _ops.agile_double_backward(
        _to_front(tangent_x, axes[0], size, dim),
        _flat(tangent_scale, axes[1], size, terms),
        _flat(tangent_location, axes[2], size, terms),
        _to_front(grad, axes[3], size, dim),
        _to_front(saved, axes[4], size, dim),
        _flat(scale, axes[5], size, terms),
        _flat(location, axes[6], size, terms),
        *(base, p, q, dim, ndim + 1, terms, from_output),
    )
    results = (
        to_grad,
        to_x,
        _unflat(to_scale, scale, axes[5], size, terms),
        _unflat(to_location, location, axes[6], size, terms),
    )
    return results, (dim, dim, None if scale is None else 0, None if location is None else 0)


# --- autograd without the compiled library ----------------------------------------------------------------------------


def _keep_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, location, *ctx.call = inputs
    ctx.save_for_backward(x, scale, location)


def _forward_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, scale, location = ctx.saved_tensors
    to_x, to_scale, to_location = _ops.agile_backward(grad, x, scale, location, *ctx.call)
    return (
        to_x,
        to_scale if scale is not None else None,
        to_location if location is not None else None,
        *(None,) * len(ctx.call),
    )


def _keep_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad, saved, scale, location, *ctx.call = inputs
    ctx.save_for_backward(grad, saved, scale, location)


def _backward_backward(
    ctx: Any, tangent_x: Tensor | None, tangent_scale: Tensor | None, tangent_location: Tensor | None
) -> tuple[Any, ...]:
    grad, saved, scale, location = ctx.saved_tensors
    if scale is None:
        tangent_scale = None
    if location is None:
        tangent_location = None
    to_grad, to_x, to_scale, to_location = _ops.agile_double_backward(
        tangent_x, tangent_scale, tangent_location, grad, saved, scale, location, *ctx.call
    )
    return (
        to_grad,
        to_x,
        to_scale if scale is not None else None,
        to_location if location is not None else None,
        *(None,) * len(ctx.call),
    )


def register(*, compiled: bool) -> None:
    """Register everything but the kernels.

    Args:
        compiled: Whether the compiled library is there, which brings its own autograd.
    """
    fakes: dict[str, Any] = {
        "agile": _fake_forward,
        "agile_backward": _fake_backward,
        "agile_double_backward": _fake_double_backward,
    }
    maps: dict[str, Any] = {
        "agile": _vmap_forward,
        "agile_backward": _vmap_backward,
        "agile_double_backward": _vmap_double_backward,
    }
    for name in fakes:
        torch.library.register_fake(f"agileact::{name}", fakes[name], lib=LIBRARY)
        torch.library.register_vmap(f"agileact::{name}", maps[name], lib=LIBRARY)
    if not compiled:
        torch.library.register_autograd("agileact::agile", _forward_backward, setup_context=_keep_forward, lib=LIBRARY)
        torch.library.register_autograd(
            "agileact::agile_backward", _backward_backward, setup_context=_keep_backward, lib=LIBRARY
        )
