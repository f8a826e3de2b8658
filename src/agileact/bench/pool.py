"""Fused activation and pooling against max pooling after the plain activation, and after the agile one."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from agileact.bench.rows import THREADS, Notify, Row, collect, gradients, off_start
from agileact.bench.timing import interleaved
from agileact.nn import AgileMaxPool2d, AgileReLU

SHAPES = ((100, 16, 28, 28), (100, 8, 14, 14), (32, 64, 56, 56))


def run(*, quick: bool = False, notify: Notify = lambda text: None) -> dict[str, Any]:
    """Time forward and backward of 2 by 2 pooling after ReLU; return rows and environment."""
    return collect("pool", _rows(quick), notify)


def _rows(quick: bool) -> Iterator[Row]:
    for count, shape, layout in itertools.product(THREADS, SHAPES, ("contiguous", "channels_last")):
        torch.set_num_threads(count)
        x = torch.randn(shape)
        if layout == "channels_last":
            x = x.to(memory_format=torch.channels_last)
        fused = off_start(AgileMaxPool2d(shape[1], 2))
        steps = nn.Sequential(AgileReLU(shape[1]), nn.MaxPool2d(2))
        steps[0].load_state_dict(fused.state_dict())
        modules = {"plain": nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), "fused": fused, "steps": steps}
        contenders = {name: gradients(module, x) for name, module in modules.items()}
        times = interleaved(contenders, rounds=15 if quick else 41, budget=3.0)
        yield {
            "shape": list(shape),
            "layout": layout,
            "threads": count,
            **{f"{name}_us": round(times[name], 1) for name in modules},
            "ratio": round(times["fused"] / times["plain"], 3),
        }
