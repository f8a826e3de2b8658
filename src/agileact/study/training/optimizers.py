"""Optimizers by name, as a spec refers to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from agileact._common.errors import ArgumentError
from agileact._common.names import unknown

Factory = Callable[[Iterable[dict[str, Any]]], torch.optim.Optimizer]

_FACTORIES: dict[str, Factory] = {
    "adam": lambda groups: torch.optim.Adam(groups, fused=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, fused=True),
    "nadam": lambda groups: torch.optim.NAdam(groups, foreach=True),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, foreach=True),
    "sgd": lambda groups: torch.optim.SGD(groups, fused=True),
    "momentum": lambda groups: torch.optim.SGD(groups, momentum=0.9, fused=True),
}


def names() -> list[str]:
    """Return the names of all optimizers, sorted."""
    return sorted(_FACTORIES)


def build(name: str, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build the optimizer ``name`` over parameter groups that carry their learning rates.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(3))
        >>> type(build("momentum", [{"params": [weight], "lr": 0.1}])).__name__
        'SGD'
    """
    try:
        factory = _FACTORIES[name]
    except KeyError:
        raise ArgumentError(unknown("optimizer", name, _FACTORIES)) from None
    return factory(groups)
