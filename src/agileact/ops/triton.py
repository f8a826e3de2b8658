"""Launches the Triton kernels for CUDA tensors. Not measured on a GPU; tested under Triton's interpreter.

Triton is imported when the first CUDA tensor comes, so that importing Agileact neither needs it nor touches a GPU.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

from agileact.ops import default as _default
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
BLOCK = 1024
STEPS = 8
COLUMNS, ROWS = 64, 16


def _kernels() -> Any:
    return importlib.import_module("agileact.ops.triton_kernels")


def supported(x: Tensor) -> bool:
    """Return whether the kernels take it; float64 and empty tensors are left to the default kernels."""
    return x.dtype in (torch.float32, torch.bfloat16, torch.float16) and x.numel() > 0


def _geometry(x: Tensor, dim: int, ndim: int) -> tuple[Tensor, int, int, int]:
    """Return x, dense, and how often its parameters repeat, how many there are, and how long each one's runs are."""
    shape = x.shape
    params = shape[dim : dim + ndim].numel()
    if ndim == 0:
        dense = x if _dense(x) else x.contiguous()
        return dense, 1, 1, x.numel()
    if ndim == 1 and dim == 1 and x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x, x.numel() // params, params, 1
    return x.contiguous(), shape[:dim].numel(), params, shape[dim + ndim :].numel()


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def _table(parameter: Tensor | None, fill: float, params: int, x: Tensor) -> Tensor:
    if parameter is None:
        return torch.full((params,), fill, dtype=torch.float32, device=x.device)
    return parameter.reshape(-1).to(torch.float32).contiguous()


def _like(result: Tensor, x: Tensor) -> Tensor:
    wanted = torch.empty_like(x)
    return result if result.stride() == wanted.stride() else wanted.copy_(result)


def agile(x: Tensor, scale: Tensor | None, location: Tensor | None, *given: Any) -> Tensor:
    """Return scale * f(x - location)."""
    call = Settings(*given)
    if call.terms > 1 or not supported(x):
        return _default.agile(x, scale, location, *given)
    dense, _, params, inner = _geometry(x, call.dim, call.ndim)
    y = torch.empty_like(dense)
    total = dense.numel()
    _kernels().forward[(-(-total // BLOCK),)](
        dense, y, _table(scale, 1.0, params, x), _table(location, 0.0, params, x),
        total, params, inner, call.p, call.q, BASE=CODES[call.base], BLOCK=BLOCK,
    )  # fmt: skip
    return _like(y, x)


def agile_backward(
    grad: Tensor, saved: Tensor, scale: Tensor | None, location: Tensor | None, *given: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, scale and location: partial sums first, then a small reduction."""
    call = Settings(*given)
    if call.terms > 1 or call.from_output or not supported(saved):
        return _default.agile_backward(grad, saved, scale, location, *given)
    x, outer, params, inner = _geometry(saved, call.dim, call.ndim)
    g = torch.empty_like(x).copy_(grad) if grad.stride() != x.stride() else grad
    a, b = _table(scale, 1.0, params, x), _table(location, 0.0, params, x)
    grad_x = torch.empty_like(x)
    kernels = _kernels()
    if inner == 1 and params > 1:
        slices = -(-outer // (ROWS * STEPS))
        partial = torch.empty((2, params, slices), dtype=torch.float32, device=x.device)
        kernels.backward_columns[(-(-params // COLUMNS), slices)](
            g, x, grad_x, a, b, partial, outer, params, slices, call.p, call.q,
            BASE=CODES[call.base], COLUMNS=COLUMNS, ROWS=ROWS, STEPS=STEPS,
        )  # fmt: skip
    else:
        slices = -(-outer * inner // (BLOCK * STEPS))
        partial = torch.empty((2, params, slices), dtype=torch.float32, device=x.device)
        kernels.backward_rows[(params, slices)](
            g, x, grad_x, a, b, partial, outer, params, inner, slices, call.p, call.q,
            BASE=CODES[call.base], BLOCK=BLOCK, STEPS=STEPS,
        )  # fmt: skip
    to_scale, to_location = torch.empty_like(a), torch.empty_like(a)
    kernels.add_slices[(params,)](partial, a, to_scale, to_location, params, slices, BLOCK=256)
    return _like(grad_x, saved), _default.like(to_scale, scale), _default.like(to_location, location)


def register() -> bool:
    """Register the kernels for CUDA, if Triton is installed; return whether it is."""
    installed = importlib.util.find_spec("triton") is not None
    if installed:
        LIBRARY.impl("agile", agile, "CUDA")
        LIBRARY.impl("agile_backward", agile_backward, "CUDA")
    return installed
