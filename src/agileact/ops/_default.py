"""Default kernels: the same operators in plain PyTorch, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from agileact import bases, reference
from agileact._broadcast import WIDE
from agileact.bases import Base, Value
from agileact.ops._fused import unfused
from agileact.ops._schema import LIBRARY

_Options = dict[str, Value]


def _base(name: str, p: float, q: float) -> tuple[Base, _Options]:
    found, options = unfused(name, p, q)
    return bases.get(found), options


def _parameters(
    x: Tensor, scale: Tensor | None, location: Tensor | None, dim: int, ndim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x and both parameters in the dtype of arithmetic, 1 and 0 where there is none."""
    wide = x.to(WIDE[x.dtype])
    size = x.shape[dim : dim + ndim].numel()
    one = torch.ones(size, dtype=wide.dtype, device=x.device)
    a = one if scale is None else scale.reshape(-1).to(wide.dtype)
    b = torch.zeros_like(one) if location is None else location.reshape(-1).to(wide.dtype)
    return wide, a, b


def like(gradient: Tensor, parameter: Tensor | None) -> Tensor:
    if parameter is None:
        return gradient.new_empty(0, dtype=torch.float32)
    return gradient.reshape(parameter.shape).to(parameter.dtype)


def _as(result: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(x).copy_(result)


def agile(
    x: Tensor,
    scale: Tensor | None,
    location: Tensor | None,
    base: str,
    p: float,
    q: float,
    dim: int,
    ndim: int,
) -> Tensor:
    """Return scale * f(x - location)."""
    found, options = _base(base, p, q)
    _, a, b = _parameters(x, scale, location, dim, ndim)
    return _as(reference.agile(x, a, b, found, options, dim, dim + ndim), x)


def agile_backward(
    grad: Tensor,
    saved: Tensor,
    scale: Tensor | None,
    location: Tensor | None,
    base: str,
    p: float,
    q: float,
    dim: int,
    ndim: int,
    from_output: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, scale and location."""
    _only_input(from_output)
    found, options = _base(base, p, q)
    x, a, b = _parameters(saved, scale, location, dim, ndim)
    to = reference.backward(grad.to(x.dtype), x, a, b, found, options, dim, dim + ndim)
    return _as(to.x, saved), like(to.scale, scale), like(to.location, location)


def agile_double_backward(
    tangent_x: Tensor | None,
    tangent_scale: Tensor | None,
    tangent_location: Tensor | None,
    grad: Tensor,
    saved: Tensor,
    scale: Tensor | None,
    location: Tensor | None,
    base: str,
    p: float,
    q: float,
    dim: int,
    ndim: int,
    from_output: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of grad, x, scale and location, from those of agile_backward's results."""
    _only_input(from_output)
    found, options = _base(base, p, q)
    x, a, b = _parameters(saved, scale, location, dim, ndim)
    zero = torch.zeros_like(a)
    cotangents = reference.Gradients(
        torch.zeros_like(x) if tangent_x is None else tangent_x.to(x.dtype),
        zero if tangent_scale is None else tangent_scale.reshape(-1).to(x.dtype),
        zero if tangent_location is None else tangent_location.reshape(-1).to(x.dtype),
    )
    to_grad, to = reference.backward_of_backward(cotangents, grad.to(x.dtype), x, a, b, found, options, dim, dim + ndim)
    return _as(to_grad, grad), _as(to.x, saved), like(to.scale, scale), like(to.location, location)


def _only_input(from_output: bool) -> None:
    if from_output:
        raise NotImplementedError("only the compiled CPU kernels work from a saved output")


for _name, _kernel in (
    ("agile", agile),
    ("agile_backward", agile_backward),
    ("agile_double_backward", agile_double_backward),
):
    LIBRARY.impl(_name, _kernel, "CompositeExplicitAutograd")
