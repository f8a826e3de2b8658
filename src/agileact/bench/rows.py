"""What the benchmarks have in common: rows with their hardware, and the calls that are timed."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agileact.bench.timing import environment, keep_freed_memory

Notify = Callable[[str], None]
Row = dict[str, Any]
THREADS = (1, 2)
"""Numbers of threads that everything is timed with."""


def collect(benchmark: str, rows: Iterable[Row], notify: Notify) -> dict[str, Any]:
    """Return the rows with the environment they belong to; tell of each when it is there."""
    made = timed(rows, notify)
    return {"benchmark": benchmark, "environment": environment(), "rows": made}


def timed(rows: Iterable[Row], notify: Notify) -> list[Row]:
    """Make the rows, and tell of each when it is there."""
    keep_freed_memory()
    before = torch.get_num_threads()
    made = []
    try:
        for row in rows:
            made.append(row)
            notify(" ".join(f"{key}={value}" for key, value in row.items()))
    finally:
        torch.set_num_threads(before)
    return made


def off_start(module: nn.Module) -> nn.Module:
    """Move scales and locations away from 1 and 0, where the operator calls PyTorch's own kernel."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_((1.0 if name.endswith("scale") else 0.0) + 0.1 * torch.randn(parameter.shape))
    return module


def gradients(module: nn.Module, x: Tensor) -> Callable[[], object]:
    """Return a call that does forward and backward, with the gradients of the input and of all parameters."""
    leaf = x.detach().requires_grad_()
    inputs: Sequence[Tensor] = (leaf, *module.parameters())
    with torch.no_grad():
        grad = torch.randn_like(module(leaf))
    return lambda: torch.autograd.grad(module(leaf), inputs, grad)


def training_step(
    model: nn.Module, x: Tensor, target: Tensor, optimizer: torch.optim.Optimizer | None = None
) -> Callable[[], object]:
    """Return a call that does one step of training."""
    own = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True) if optimizer is None else optimizer

    def step() -> None:
        own.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), target).backward()
        own.step()

    return step
