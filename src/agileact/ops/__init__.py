"""One operator, several kernels; PyTorch's dispatcher chooses by device.

``torch.ops.agileact.agile`` has a default kernel in plain PyTorch for every device (``_default``), compiled ones for
the CPU (``csrc/``, loaded by ``_cpu``) and Triton ones for CUDA. A base function that is not fused does not become an
operator at all: it is the expression in :mod:`agileact.reference`, which PyTorch differentiates.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from agileact import reference
from agileact.bases import Base, Value
from agileact.ops import _autograd, _cpu, _default
from agileact.ops._fused import fused_name

CPU = _cpu.load()
"""What became of the compiled kernels."""

_autograd.register(compiled=CPU.loaded)
_agile = torch.ops.agileact.agile.default

__all__ = ["CPU", "agile"]


def agile(
    x: Tensor,
    scale: Tensor,
    location: Tensor,
    base: Base,
    options: Mapping[str, Value],
    start: int,
    stop: int,
) -> Tensor:
    """Do what :func:`agileact.reference.agile` does, by the operator where the base function is fused."""
    fused = fused_name(base.name, options)
    if fused is None:
        return reference.agile(x, scale, location, base, options, start, stop)
    result: Tensor = _agile(x, scale, location, *fused, start, stop - start)
    return result
