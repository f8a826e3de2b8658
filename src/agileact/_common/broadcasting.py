"""Lay a parameter along axes of an input, and sum a gradient back over all others in a fixed order.

Both are linear, and each is the transpose of the other. What is summed here are the sums of the paper's equations
(13), (14), (21) and (22). PyTorch's own sum may use another order for another number of threads, when it sums over
an axis that is not the innermost one or when a single number is left; sums over the innermost axis of
a contiguous tensor are independent of each other and always go the same way.
"""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WIDE = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}
"""The dtype of arithmetic for each dtype of input; no other dtype is supported."""

# Below this size ATen sums with one thread (its GRAIN_SIZE), whatever the number of threads.
_SERIAL = 32768
_BLOCK = 4096
_ROWS = 256


def spread(parameter: Tensor, shape: torch.Size, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    """Lay a flat parameter along the axes from ``start`` to before ``stop`` of ``shape``, repeated along all others.

    With ``start == stop`` it has one element for all. The result is a view, without memory of its own if ``dtype`` is
    the parameter's. Its gradient arrives in the parameter's dtype, summed in a fixed order in the wider of the two.
    """
    if _plain():
        return _spread(parameter, shape, start, stop, dtype)
    result: Tensor = _Spread.apply(parameter, _Place(shape, start, stop, dtype))
    return result


def collect(gradient: Tensor, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    """Sum over all axes but those from ``start`` to before ``stop``, in a fixed order; the transpose of :func:`spread`.

    The result has one axis; the sum is done in the wider of its dtype and the gradient's.
    """
    if _plain():
        return _collect(gradient, start, stop, dtype)
    result: Tensor = _Collect.apply(gradient, _Place(gradient.shape, start, stop, dtype))
    return result


def _plain() -> bool:
    """Return whether the plain expression will do: nothing is recorded, or a compiler records it."""
    # A compiler makes its own sums, and cannot look into an autograd function that has a rule for forward mode.
    return (
        not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    )


def _spread(parameter: Tensor, shape: torch.Size, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    wide = parameter.to(torch.promote_types(dtype, parameter.dtype))
    aligned = wide.reshape((1,) * start + tuple(shape[start:stop]) + (1,) * (len(shape) - stop))
    return aligned.expand(shape).to(dtype)


def _collect(gradient: Tensor, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    shape = gradient.shape
    outer, kept, inner = math.prod(shape[:start]), math.prod(shape[start:stop]), math.prod(shape[stop:])
    wide = torch.promote_types(gradient.dtype, dtype)
    if kept > 1:
        last = gradient.movedim(tuple(range(start, stop)), tuple(range(len(shape) - stop + start, len(shape))))
        if last.is_contiguous():
            # The kept axes are the innermost ones in memory, as in (N, C) and in channels last: no copy is needed.
            return _sum_columns(last.reshape(-1, kept), wide).to(dtype)
    rows = _sum_rows(gradient.reshape(outer * kept, inner), wide)
    return _sum_rows(rows.reshape(outer, kept).t().contiguous(), wide).to(dtype)


def _sum_columns(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum each column of a contiguous matrix of several columns, independently of the number of threads."""
    length, columns = matrix.shape
    if length <= _ROWS or length * columns < _SERIAL:
        return matrix.sum(0, dtype=dtype)
    # Threads share blocks of rows among them, and each block has one size whoever sums it.
    whole = length - length % _ROWS
    total = _sum_columns(matrix[:whole].reshape(-1, _ROWS, columns).sum(1, dtype=dtype), dtype)
    return total if whole == length else total + matrix[whole:].sum(0, dtype=dtype)


def _sum_rows(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum each row of a contiguous matrix, independently of the number of threads."""
    rows, length = matrix.shape
    if length == 1:
        return matrix.reshape(rows).to(dtype)
    if rows != 1 or length < _SERIAL:
        return matrix.sum(1, dtype=dtype)
    # One long row would be cut into as many pieces as there are threads; cut it into pieces of one size instead.
    whole = length - length % _BLOCK
    blocks = _sum_rows(matrix[:, :whole].reshape(-1, _BLOCK), dtype)
    return _sum_rows(blocks.reshape(1, -1), dtype) + matrix[:, whole:].sum(1, dtype=dtype)


@dataclass(frozen=True)
class _Place:
    """Where a parameter lies in an input, and the dtype of the result.

    In one object, because torch.func takes the tuple of a shape apart when forward mode and vmap meet.
    """

    shape: torch.Size
    start: int
    stop: int
    dtype: torch.dtype


class _Spread(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(parameter: Tensor, place: _Place) -> Tensor:
        return _spread(parameter, place.shape, place.start, place.stop, place.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, _Place], output: Tensor) -> None:
        parameter, ctx.place = inputs
        ctx.dtype = parameter.dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return collect(gradient, ctx.place.start, ctx.place.stop, ctx.dtype), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _spread(tangent, ctx.place.shape, ctx.place.start, ctx.place.stop, ctx.place.dtype)


class _Collect(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, place: _Place) -> Tensor:
        return _collect(gradient, place.start, place.stop, place.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, _Place], output: Tensor) -> None:
        gradient, ctx.place = inputs
        ctx.dtype = gradient.dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return spread(gradient, ctx.place.shape, ctx.place.start, ctx.place.stop, ctx.dtype), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _collect(tangent, ctx.place.start, ctx.place.stop, ctx.place.dtype)


# Function.apply() looks up the signature of forward() in every call, which takes longer than all else in it.
for _forward in (_Spread.forward, _Collect.forward):
    setattr(_forward, "__signature__", inspect.signature(_forward))  # noqa: B010
