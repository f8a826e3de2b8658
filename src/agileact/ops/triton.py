"""Launches the Triton kernels for CUDA tensors. Not measured on a GPU; tested under Triton's interpreter.

Triton is imported when the first CUDA tensor comes, so that importing Agileact neither needs it nor touches a GPU.
"""

import importlib
import importlib.util
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agileact.ops import default as _default
from agileact.ops import pool as _pool
from agileact.ops.fused import FUSED, Settings
from agileact.ops.schema import LIBRARY

# The numbers by which the kernels know the base functions.
CODES = {
    name: code
    for code, name in enumerate(
        (
            "relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "identity",
            "silu", "gelu", "gelu_tanh", "mish", "hardswish", "hardsigmoid",
        )
    )
}  # fmt: skip
assert set(CODES) == set(FUSED)
TILE = 1024
"""Elements that a program works on at a time."""


def _kernels() -> Any:
    return importlib.import_module("agileact.ops.triton_kernels")


def supported(x: Tensor) -> bool:
    """Return whether the kernels take it; float64 and empty tensors are left to the default kernels."""
    return x.dtype in (torch.float32, torch.bfloat16, torch.float16) and x.numel() > 0


class _View(NamedTuple):
    """A dense tensor as the kernels see it, and how its work is cut: by shape class, for few kernels to compile."""

    x: Tensor
    outer: int
    params: int
    inner: int
    terms: int
    meta: dict[str, Any]

    @property
    def blocks(self) -> int:
        return 1 if self.meta["COLUMNS"] else -(-self.inner // self.meta["WIDTH"])

    @property
    def grid(self) -> tuple[int, int]:
        lanes = -(-self.params // self.meta["WIDTH"]) if self.meta["COLUMNS"] else self.params * self.blocks
        return lanes, -(-self.outer // (self.meta["ROWS"] * self.meta["STEPS"]))

    @property
    def slices(self) -> int:
        return self.grid[1] * self.blocks

    @property
    def numbers(self) -> tuple[int, ...]:
        return self.outer, self.params, self.inner, self.blocks, self.x.numel()

    def table(self, parameter: Tensor | None, fill: float) -> Tensor:
        if parameter is None:
            return torch.full((self.params * self.terms,), fill, dtype=torch.float32, device=self.x.device)
        return parameter.reshape(-1).to(torch.float32).contiguous()

    def partial(self) -> Tensor:
        size = (2, self.params * self.terms, self.slices)
        return torch.empty(size, dtype=torch.float32, device=self.x.device)

    def like(self, t: Tensor) -> Tensor:
        return t if t.stride() == self.x.stride() and t.dtype == self.x.dtype else torch.empty_like(self.x).copy_(t)


def _power(n: int, most: int) -> int:
    """The power of two that n fits into, but not more than ``most``."""
    return min(1 << max(0, n - 1).bit_length(), most)


def _view(x: Tensor, call: Settings) -> _View:
    shape, dim, ndim = x.shape, call.dim, call.ndim
    params = shape[dim : dim + ndim].numel()
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    if not x.is_contiguous() and not (last and (ndim == 0 or (ndim, dim) == (1, 1))):
        x, last = x.contiguous(), False
    inner = 1 if last and ndim else shape[dim + ndim :].numel()
    outer = x.numel() // max(1, params * inner)
    k = _power(call.terms, 1 << 20)
    room = max(32, TILE // k)
    columns = inner == 1 and params > 1
    if params == 1:
        # One pair for all: rows of any length will do.
        width = room
        outer, inner = -(-x.numel() // width), width
    else:
        width = _power(params, 128) if columns else _power(inner, room)
    rows = _power(outer, max(1, room // width))
    # The second axis of a grid has at most 65,535 programs.
    steps = max(_power(-(-outer // rows), 8), _power(-(-outer // (rows * 65535)), 1 << 30))
    meta = {"BASE": CODES[call.base], "TERMS": call.terms, "K": k, "COLUMNS": columns, "WIDTH": width, "ROWS": rows}
    return _View(x, outer, params, inner, call.terms, {**meta, "STEPS": steps})


def _like(result: Tensor, x: Tensor) -> Tensor:
    wanted = torch.empty_like(x)
    return result if result.stride() == wanted.stride() else wanted.copy_(result)


def _added(view: _View, partial: Tensor, a: Tensor, scaled: bool) -> tuple[Tensor, Tensor]:
    """Return the sums over all slices, as gradients of scale and location."""
    count = view.params * view.terms
    both = torch.empty((2, count), dtype=torch.float32, device=a.device)
    _kernels().add_slices[(count,)](partial, a, both[0], both[1], count, view.slices, SCALED=scaled, BLOCK=256)
    return both[0], both[1]


def agile(x: Tensor, scale: Tensor | None, location: Tensor | None, *given: Any) -> Tensor:
    """Return scale * f(x - location), or the sum of such terms."""
    call = Settings(*given)
    if not supported(x):
        return _default.agile(x, scale, location, *given)
    view = _view(x, call)
    y = torch.empty_like(view.x)
    _kernels().forward[view.grid](
        view.x, y, view.table(scale, 1.0), view.table(location, 0.0), *view.numbers, call.p, call.q, **view.meta
    )
    return _like(y, x)


def agile_backward(
    grad: Tensor, saved: Tensor, scale: Tensor | None, location: Tensor | None, *given: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, scale and location: partial sums first, then a small reduction."""
    call = Settings(*given)
    if not supported(saved):
        return _default.agile_backward(grad, saved, scale, location, *given)
    view = _view(saved, call)
    a, b, partial, grad_x = view.table(scale, 1.0), view.table(location, 0.0), view.partial(), torch.empty_like(view.x)
    _kernels().backward[view.grid](
        view.like(grad), view.x, grad_x, a, b, partial, *view.numbers, view.slices, call.p, call.q,
        FROM_OUTPUT=call.from_output, **view.meta,
    )  # fmt: skip
    to_scale, to_location = _added(view, partial, a, True)
    return _like(grad_x, saved), _default.like(to_scale, scale), _default.like(to_location, location)


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
    if not supported(saved):
        tangents = tangent_x, tangent_scale, tangent_location
        return _default.agile_double_backward(*tangents, grad, saved, scale, location, *given)
    view = _view(saved, call)
    u = torch.zeros_like(view.x) if tangent_x is None else view.like(tangent_x)
    a, b = view.table(scale, 1.0), view.table(location, 0.0)
    tangents_of = view.table(tangent_scale, 0.0), view.table(tangent_location, 0.0)
    partial, grad_grad, grad_x = view.partial(), torch.empty_like(view.x), torch.empty_like(view.x)
    _kernels().double_backward[view.grid](
        u, view.like(grad), view.x, grad_grad, grad_x, a, b, *tangents_of, partial, *view.numbers, view.slices,
        call.p, call.q, FROM_OUTPUT=call.from_output, **view.meta,
    )  # fmt: skip
    to_scale, to_location = _added(view, partial, a, False)
    gradients = _default.like(to_scale, scale), _default.like(to_location, location)
    return _like(grad_grad, grad), _like(grad_x, saved), *gradients


def _images(x: Tensor) -> tuple[Tensor, dict[str, int]]:
    """Return x, dense, and how many windows and channels a program takes: lanes lie along what is innermost."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    dense = x if last or x.is_contiguous() else x.contiguous()
    channels = _power(x.shape[1], 64) if last else 1
    return dense, {"CHANNELS": channels, "WIDTH": _power(x.shape[3], 256 // channels if last else 256)}


def _grid(t: Tensor, tile: dict[str, int]) -> tuple[int, int, int]:
    n, c, h, w = t.shape
    return n * h, -(-w // tile["WIDTH"]), -(-c // tile["CHANNELS"])


def _window(kernel: Any, stride: Any, padding: Any, dilation: Any) -> dict[str, int]:
    pairs = {"K": kernel, "S": stride, "P": padding, "D": dilation}
    return {name + axis: int(pair[i]) for name, pair in pairs.items() for i, axis in enumerate("HW")}


def _channel_table(parameter: Tensor | None, fill: float, x: Tensor) -> Tensor:
    if parameter is None:
        return torch.full((x.shape[1],), fill, dtype=torch.float32, device=x.device)
    return parameter.reshape(-1).to(torch.float32).expand(x.shape[1]).contiguous()


def agile_max_pool2d(
    x: Tensor, scale: Tensor | None, location: Tensor | None, *call: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the max pooling of the activation, what it picked, and where in the windows that was."""
    if not supported(x):
        return _pool.forward(x, scale, location, *call)
    base, p, q, *window, out = call
    dense, tile = _images(x)
    y, picked, places = _pool.fake_forward(dense, scale, location, *call)
    if y.numel():
        _kernels().pool[_grid(y, tile)](
            dense, y, picked, places, _channel_table(scale, 1.0, x), _channel_table(location, 0.0, x),
            *x.shape[1:], *out, *dense.stride(), *y.stride(), p, q, BASE=CODES[base], **_window(*window), **tile,
        )  # fmt: skip
    return y, picked, places


def agile_max_pool2d_backward(
    grad: Tensor, picked: Tensor, places: Tensor, scale: Tensor | None, location: Tensor | None, *call: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, scale and location: those of the activation where it was picked, then scattered."""
    if not supported(picked):
        return _pool.backward(grad, picked, places, scale, location, *call)
    base, p, q, *window, size = call
    axes = _pool.channels(scale if scale is not None else location, picked.shape[1])
    values, to_scale, to_location = agile_backward(grad, picked, scale, location, base, p, q, *axes)
    grad_x = torch.empty((*picked.shape[:2], *size), dtype=picked.dtype, device=picked.device)
    grad_x = grad_x.contiguous(memory_format=_pool.format_of(picked))
    _, tile = _images(grad_x)
    _kernels().pool_scatter[_grid(grad_x, tile)](
        values, places, grad_x, *grad_x.shape[1:], *picked.shape[2:], *grad_x.stride(), *values.stride(),
        **_window(*window), **tile,
    )  # fmt: skip
    return grad_x, to_scale, to_location


def register() -> bool:
    """Register the kernels for CUDA, if Triton is installed; return whether it is."""
    installed = importlib.util.find_spec("triton") is not None
    if installed:
        for kernel in (agile, agile_backward, agile_double_backward, agile_max_pool2d, agile_max_pool2d_backward):
            LIBRARY.impl(kernel.__name__, kernel, "CUDA")
    return installed
