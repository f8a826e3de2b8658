"""How far a result may be from the float64 oracle: one table, by dtype."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

VALUES: dict[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-12, 1e-13),
    torch.float32: (2e-6, 4e-6),
    torch.float16: (2e-3, 1e-3),
    torch.bfloat16: (1.6e-2, 1e-2),
}
"""(rtol, atol) of values and of gradients by the input, which are rounded to the dtype of the input."""

SUMS: dict[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-11, 1e-11),
    torch.float32: (1e-5, 2e-5),
    torch.float16: (2e-2, 2e-2),
    torch.bfloat16: (4e-2, 8e-2),
}
"""(rtol, atol) of gradients by a parameter: sums of some hundred terms, each off as much as a value."""


def assert_values(actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> None:
    _assert(actual, expected, VALUES[dtype or actual.dtype])


def assert_gradients(actual: Tensor, expected: Tensor, *factors: Tensor) -> None:
    """Gradients by the input are products: an f'(z) that is off by a rounding is off by that times the factors.

    An f' made from the rounded output (sigmoid: y (1 - y), as in PyTorch) is off by half a unit of y, not of f'.
    """
    rtol, atol = VALUES[actual.dtype]
    largest = math.prod(float(factor.abs().max()) for factor in factors if factor.numel())
    _assert(actual, expected, (rtol, atol * max(1.0, largest)))


def assert_sums(actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> None:
    _assert(actual, expected, SUMS[dtype or actual.dtype])


def _assert(actual: Tensor, expected: Tensor, tolerance: tuple[float, float]) -> None:
    rtol, atol = tolerance
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "equal_nan": True}
    torch.testing.assert_close(actual.to(torch.float64), expected.to(torch.float64), **options)
