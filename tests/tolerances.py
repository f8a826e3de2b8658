"""How far a result may be from the float64 oracle: one table, by dtype."""

from __future__ import annotations

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


def assert_sums(actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> None:
    _assert(actual, expected, SUMS[dtype or actual.dtype])


def _assert(actual: Tensor, expected: Tensor, tolerance: tuple[float, float]) -> None:
    rtol, atol = tolerance
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "equal_nan": True}
    torch.testing.assert_close(actual.to(torch.float64), expected.to(torch.float64), **options)
