"""What is watched here, how it is trained, and what was recorded of it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

import agileact as ag


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), ag.AgileReLU(4), nn.Linear(4, 5), ag.CombinedAgile("sigmoid", 5), nn.Linear(5, 2)
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[dict[str, Tensor]]:
    """Take steps; return the parameters after each."""
    seen = []
    for index in range(steps):
        optimizer.zero_grad()
        x = torch.linspace(-1, 1, 24).view(8, 3) * (1 + index % 3)
        model(x).square().sum().backward()
        optimizer.step()
        seen.append(copy.deepcopy(model.state_dict()))
    return seen


def values(monitor: ag.Monitor, layer: str, parameter: str, statistic: str) -> dict[int, float]:
    return {r.step: r.value for r in monitor.records if r[1:4] == (layer, parameter, statistic)}
