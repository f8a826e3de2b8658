"""Fused activation and pooling against the plain activation followed by max pooling, and the agile one likewise."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agileact.bench.timing import environment, interleaved, keep_freed_memory
from agileact.nn import AgileMaxPool2d, AgileReLU

SHAPES = ((100, 16, 28, 28), (100, 8, 14, 14), (32, 64, 56, 56))


def run(
    *, quick: bool = False, threads: Sequence[int] = (1, 2), notify: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Time forward and backward of 2 by 2 pooling after ReLU; return rows and environment."""
    keep_freed_memory()
    before = torch.get_num_threads()
    rows = []
    try:
        for count in threads:
            torch.set_num_threads(count)
            for shape, layout in itertools.product(SHAPES, ("contiguous", "channels_last")):
                x = torch.randn(shape)
                if layout == "channels_last":
                    x = x.to(memory_format=torch.channels_last)
                fused = AgileMaxPool2d(shape[1], 2)
                with torch.no_grad():
                    fused.scale.add_(0.1 * torch.randn(shape[1]))
                    fused.location.add_(0.1 * torch.randn(shape[1]))
                plain = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
                steps = nn.Sequential(AgileReLU(shape[1]), nn.MaxPool2d(2))
                steps[0].load_state_dict(fused.state_dict())
                modules = {"plain": plain, "fused": fused, "steps": steps}
                contenders = {name: _call(module, x) for name, module in modules.items()}
                times = interleaved(contenders, rounds=15 if quick else 41, budget=3.0)
                row = {
                    "shape": list(shape),
                    "layout": layout,
                    "threads": count,
                    "plain_us": round(times["plain"], 1),
                    "fused_us": round(times["fused"], 1),
                    "steps_us": round(times["steps"], 1),
                    "ratio": round(times["fused"] / times["plain"], 3),
                }
                rows.append(row)
                notify(" ".join(f"{key}={value}" for key, value in row.items()))
    finally:
        torch.set_num_threads(before)
    return {"benchmark": "pool", "environment": environment(), "rows": rows}


def _call(module: nn.Module, x: Tensor) -> Callable[[], object]:
    leaf = x.detach().requires_grad_()
    inputs = (leaf, *module.parameters())
    with torch.no_grad():
        grad = torch.randn_like(module(leaf))
    return lambda: torch.autograd.grad(module(leaf), inputs, grad)
