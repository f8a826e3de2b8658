"""Shapes for tracing, and vmap."""

from typing import Any

import torch
from torch import Tensor

from agileact.ops.fused import Settings
from agileact.ops.schema import LIBRARY

_ops = torch.ops.agileact


def empty(parameter: Tensor | None, x: Tensor) -> Tensor:
    """Return memory for a parameter's gradient."""
    if parameter is None:
        return x.new_empty(0, dtype=torch.float32)
    return torch.empty_like(parameter, memory_format=torch.contiguous_format)


def _fake_forward(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _fake_backward(
    grad: Tensor, saved: Tensor, scale: Tensor | None, location: Tensor | None, *_: Any
) -> tuple[Tensor, ...]:
    return torch.empty_like(saved), empty(scale, saved), empty(location, saved)


def _fake_double_backward(*arguments: Any) -> tuple[Tensor, ...]:
    _, _, _, grad, saved, scale, location, *_ = arguments
    return torch.empty_like(grad), torch.empty_like(saved), empty(scale, saved), empty(location, saved)


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


def _behind(call: Settings) -> Settings:
    """The call with the axis of samples among the parameters' axes."""
    return call._replace(ndim=call.ndim + 1)


def _vmap_forward(info: Any, axes: Any, x: Any, scale: Any, location: Any, *given: Any) -> Any:
    call = Settings(*given)
    size, dim, terms = info.batch_size, call.dim, call.terms
    if axes[1] is None and axes[2] is None:
        return _ops.agile(x.movedim(axes[0], 0), scale, location, *call._replace(dim=dim + 1)[:-1]), 0
    a, b = _flat(scale, axes[1], size, terms), _flat(location, axes[2], size, terms)
    return _ops.agile(_to_front(x, axes[0], size, dim), a, b, *_behind(call)[:-1]), dim


def _vmap_backward(info: Any, axes: Any, grad: Any, saved: Any, scale: Any, location: Any, *given: Any) -> Any:
    call = Settings(*given)
    size, dim, terms = info.batch_size, call.dim, call.terms
    to_x, to_scale, to_location = _ops.agile_backward(
        _to_front(grad, axes[0], size, dim),
        _to_front(saved, axes[1], size, dim),
        _flat(scale, axes[2], size, terms),
        _flat(location, axes[3], size, terms),
        *_behind(call),
    )
    results = to_x, _unflat(to_scale, scale, axes[2], size, terms), _unflat(to_location, location, axes[3], size, terms)
    return results, (dim, None if scale is None else 0, None if location is None else 0)


def _vmap_double_backward(info: Any, axes: Any, *arguments: Any) -> Any:
    tangent_x, tangent_scale, tangent_location, grad, saved, scale, location = arguments[:7]
    call = Settings(*arguments[7:])
    size, dim, terms = info.batch_size, call.dim, call.terms
    to_grad, to_x, to_scale, to_location = _ops.agile_double_backward(
        _to_front(tangent_x, axes[0], size, dim),
        _flat(tangent_scale, axes[1], size, terms),
        _flat(tangent_location, axes[2], size, terms),
        _to_front(grad, axes[3], size, dim),
        _to_front(saved, axes[4], size, dim),
        _flat(scale, axes[5], size, terms),
        _flat(location, axes[6], size, terms),
        *_behind(call),
    )
    results = (
        to_grad,
        to_x,
        _unflat(to_scale, scale, axes[5], size, terms),
        _unflat(to_location, location, axes[6], size, terms),
    )
    return results, (dim, dim, None if scale is None else 0, None if location is None else 0)


for _name, _fake, _map in (
    ("agile", _fake_forward, _vmap_forward),
    ("agile_backward", _fake_backward, _vmap_backward),
    ("agile_double_backward", _fake_double_backward, _vmap_double_backward),
):
    torch.library.register_fake(f"agileact::{_name}", _fake, lib=LIBRARY)
    torch.library.register_vmap(f"agileact::{_name}", _map, lib=LIBRARY)
