"""Default kernels: the same operators in plain PyTorch, on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agileact import bases, reference
from agileact._common.broadcasting import WIDE
from agileact.bases import Base, Value
from agileact.ops.fused import unfused
from agileact.ops.schema import LIBRARY

_Options = dict[str, Value]


def _base(name: str, p: float, q: float) -> tuple[Base, _Options]:
    found, options = unfused(name, p, q)
    return bases.get(found), options


def _parameters(
    x: Tensor, scale: Tensor | None, location: Tensor | None, dim: int, ndim: int, terms: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x and both parameters in the dtype of arithmetic, a row a term, 1 and 0 where there is none."""
    wide = x.to(WIDE[x.dtype])
    one = torch.ones((terms, x.shape[dim : dim + ndim].numel()), dtype=wide.dtype, device=x.device)
    a = one if scale is None else scale.reshape(one.shape).to(wide.dtype)
    b = torch.zeros_like(one) if location is None else location.reshape(one.shape).to(wide.dtype)
    return wide, a, b


def like(gradient: Tensor | list[Tensor], parameter: Tensor | None) -> Tensor:
    """Return a gradient with its parameter's shape and dtype."""
    whole = torch.cat(gradient) if isinstance(gradient, list) else gradient
    if parameter is None:
        return whole.new_empty(0, dtype=torch.float32)
    return whole.reshape(parameter.shape).to(parameter.dtype)


def _as(result: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(x).copy_(result)


def agile(
    x: Tensor,
    scale: Tensor | None,
    location: Tensor | None,
    base: str,
    p: float = 0.0,
    q: float = 0.0,
    dim: int = 1,
    ndim: int = 1,
    terms: int = 1,
) -> Tensor:
    """Return scale * f(x - location), or the sum of such terms."""
    found, options = _base(base, p, q)
    _, a, b = _parameters(x, scale, location, dim, ndim, terms)
    return _as(reference.combined_agile(x, a, b, found, options, dim, dim + ndim), x)


def agile_(x: Tensor, *arguments: Any, **more: Any) -> Tensor:
    """Write scale * f(x - location) over x."""
    return x.copy_(agile(x, *arguments, **more))


def agile_backward(
    grad: Tensor,
    saved: Tensor,
    scale: Tensor | None,
    location: Tensor | None,
    base: str,
    p: float = 0.0,
    q: float = 0.0,
    dim: int = 1,
    ndim: int = 1,
    terms: int = 1,
    from_output: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, scale and location."""
    _only_input(from_output)
    found, options = _base(base, p, q)
    x, a, b = _parameters(saved, scale, location, dim, ndim, terms)
    wide = grad.to(x.dtype)
    to = [reference.backward(wide, x, *pair, found, options, dim, dim + ndim) for pair in zip(a, b, strict=True)]
    return (
        _as(_sum([one.x for one in to]), saved),
        like([one.scale for one in to], scale),
        like([one.location for one in to], location),
    )


def agile_double_backward(
    tangent_x: Tensor | None,
    tangent_scale: Tensor | None,
    tangent_location: Tensor | None,
    grad: Tensor,
    saved: Tensor,
    scale: Tensor | None,
    location: Tensor | None,
    base: str,
    p: float = 0.0,
    q: float = 0.0,
    dim: int = 1,
    ndim: int = 1,
    terms: int = 1,
    from_output: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of grad, x, scale and location, from those of agile_backward's results."""
    _only_input(from_output)
    found, options = _base(base, p, q)
    x, a, b = _parameters(saved, scale, location, dim, ndim, terms)
    u = torch.zeros_like(x) if tangent_x is None else tangent_x.to(x.dtype)
    v = torch.zeros_like(a) if tangent_scale is None else tangent_scale.reshape(a.shape).to(x.dtype)
    w = torch.zeros_like(b) if tangent_location is None else tangent_location.reshape(b.shape).to(x.dtype)
    wide = grad.to(x.dtype)
    to_grad, to = [], []
    for j in range(terms):
        cotangents = reference.Gradients(u, v[j], w[j])
        more, one = reference.backward_of_backward(cotangents, wide, x, a[j], b[j], found, options, dim, dim + ndim)
        to_grad.append(more)
        to.append(one)
    return (
        _as(_sum(to_grad), grad),
        _as(_sum([one.x for one in to]), saved),
        like([one.scale for one in to], scale),
        like([one.location for one in to], location),
    )


def _sum(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _only_input(from_output: bool) -> None:
    if from_output:
        raise NotImplementedError("only the compiled CPU kernels work from a saved output")


for _name, _kernel in (
    ("agile", agile),
    ("agile_", agile_),
    ("agile_backward", agile_backward),
    ("agile_double_backward", agile_double_backward),
):
    LIBRARY.impl(_name, _kernel, "CompositeExplicitAutograd")
