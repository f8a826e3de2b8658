"""Default kernels: the same operators in plain PyTorch, on any device."""

from typing import Any

import torch
from torch import Tensor

from agileact import bases, reference
from agileact._common.broadcasting import WIDE
from agileact.bases import Base, Value
from agileact.ops.fused import Settings, unfused
from agileact.ops.schema import LIBRARY

_Function = tuple[Base, dict[str, Value], int, int]
"""A base function with its options, and the axes of the parameters: what :mod:`agileact.reference` is called with."""


def _function(call: Settings) -> _Function:
    if call.from_output:
        raise NotImplementedError("only the compiled CPU kernels work from a saved output")
    found, options = unfused(call.base, call.p, call.q)
    return bases.get(found), options, call.dim, call.dim + call.ndim


def _parameters(
    x: Tensor, scale: Tensor | None, location: Tensor | None, call: Settings
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x and both parameters in the dtype of arithmetic, a row a term, 1 and 0 where there is none."""
    wide = x.to(WIDE[x.dtype])
    size = x.shape[call.dim : call.dim + call.ndim].numel()
    one = torch.ones((call.terms, size), dtype=wide.dtype, device=x.device)
    a = one if scale is None else scale.reshape(one.shape).to(wide.dtype)
    b = torch.zeros_like(one) if location is None else location.reshape(one.shape).to(wide.dtype)
    return wide, a, b


def like(gradient: Tensor | list[Tensor], parameter: Tensor | None) -> Tensor:
    """Return a gradient with its parameter's shape and dtype."""
    whole = torch.cat(gradient) if isinstance(gradient, list) else gradient
    if parameter is None:
        return whole.new_empty(0, dtype=torch.float32)
    return whole.reshape(parameter.shape).to(parameter.dtype)


def _sum(terms: list[Tensor], x: Tensor) -> Tensor:
    """Return the sum, laid out and typed as x."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return torch.empty_like(x).copy_(total)


def agile(x: Tensor, scale: Tensor | None, location: Tensor | None, *given: Any) -> Tensor:
    """Return scale * f(x - location), or the sum of such terms."""
    call = Settings(*given)
    _, a, b = _parameters(x, scale, location, call)
    return _sum([reference.combined_agile(x, a, b, *_function(call))], x)


def agile_(x: Tensor, *arguments: Any) -> Tensor:
    """Write scale * f(x - location) over x."""
    return x.copy_(agile(x, *arguments))


def agile_backward(
    grad: Tensor, saved: Tensor, scale: Tensor | None, location: Tensor | None, *given: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, scale and location."""
    call = Settings(*given)
    function = _function(call)
    x, a, b = _parameters(saved, scale, location, call)
    wide = grad.to(x.dtype)
    to = [reference.backward(wide, x, a[j], b[j], *function) for j in range(call.terms)]
    return (
        _sum([one.x for one in to], saved),
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
    *given: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of grad, x, scale and location, from those of agile_backward's results."""
    call = Settings(*given)
    function = _function(call)
    x, a, b = _parameters(saved, scale, location, call)
    u = torch.zeros_like(x) if tangent_x is None else tangent_x.to(x.dtype)
    v = torch.zeros_like(a) if tangent_scale is None else tangent_scale.reshape(a.shape).to(x.dtype)
    w = torch.zeros_like(b) if tangent_location is None else tangent_location.reshape(b.shape).to(x.dtype)
    wide = grad.to(x.dtype)
    both = [
        reference.backward_of_backward(reference.Gradients(u, v[j], w[j]), wide, x, a[j], b[j], *function)
        for j in range(call.terms)
    ]
    return (
        _sum([to_grad for to_grad, _ in both], grad),
        _sum([to.x for _, to in both], saved),
        like([to.scale for _, to in both], scale),
        like([to.location for _, to in both], location),
    )


for _kernel in (agile, agile_, agile_backward, agile_double_backward):
    LIBRARY.impl(_kernel.__name__, _kernel, "CompositeExplicitAutograd")
