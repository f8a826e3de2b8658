"""Networks that are calibrated, and how large what they make is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import agileact as ag


def deep(base: str = "sigmoid", layers: int = 6, width: int = 16, **options: Any) -> Any:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(width, width), ag.Agile(base, width, **options)]
    return nn.Sequential(*parts, nn.Linear(width, 3))


def convolutional() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), ag.AgileSigmoid(6), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, padding=1),
        ag.AgileMaxPool2d(5, 2, base="sigmoid"), nn.Conv2d(5, 4, 3, padding=1), ag.AgileSigmoid(4), nn.Flatten(),
        nn.Linear(36, 7), ag.AgileSigmoid(7), nn.Linear(7, 2),
    )  # fmt: skip


def size_of(y: Tensor) -> float:
    """The size of a signal by its formula: each element's variance over samples, then the mean, then the root."""
    return float(y.detach().double().var(dim=0).mean().sqrt())


def outputs(model: Any, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    handles = [
        module.register_forward_hook(lambda m, args, y, name=name: seen.__setitem__(name, (args[0], y)))
        for name, module in model.named_modules()
        if isinstance(module, ag.AgileModule)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return seen
