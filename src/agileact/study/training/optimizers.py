"""Optimizers by name, as a spec refers to them, and schedules of their learning rates."""

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from agileact._common.errors import ArgumentError
from agileact._common.names import unknown

_KINDS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "nadam": (torch.optim.NAdam, {"foreach": True}),
    "rmsprop": (torch.optim.RMSprop, {"foreach": True}),
    "sgd": (torch.optim.SGD, {"fused": True}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "fused": True}),
}
_NOT_OPTIONS = ("self", "params", "lr", "weight_decay", "foreach", "fused", "capturable", "differentiable", "maximize")
"""Arguments of optimizers that are fields of their own, or say how it computes and not what."""


def names() -> list[str]:
    """Return the names of all optimizers, sorted."""
    return sorted(_KINDS)


def build(name: str, groups: Iterable[dict[str, Any]], options: Mapping[str, Any] = {}) -> torch.optim.Optimizer:
    """Build the optimizer ``name`` over parameter groups that carry their learning rates."""
    if name not in _KINDS:
        raise ArgumentError(unknown("optimizer", name, _KINDS))
    kind, usual = _KINDS[name]
    known = [one for one in inspect.signature(kind).parameters if one not in _NOT_OPTIONS]
    for option in options:
        if option not in known:
            raise ArgumentError(unknown(f"option of the optimizer {name!r}:", option, known))
    try:
        return kind(groups, **{**usual, **options})
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise ArgumentError(f"the optimizer {name!r} does not take {given}: {error}") from None


def scheduler(
    optimizer: torch.optim.Optimizer, schedule: str, warmup: float, iterations: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Return what sets all learning rates after each of so many steps; None if they stay as they are.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(3))
        >>> sgd = torch.optim.SGD([weight], lr=1.0)
        >>> steps, rates = scheduler(sgd, "linear", 0.25, 8), []
        >>> for _ in range(8):
        ...     rates.append(sgd.param_groups[0]["lr"])
        ...     sgd.step()
        ...     steps.step()
        >>> [round(rate, 3) for rate in rates]
        [0.5, 1.0, 1.0, 0.833, 0.667, 0.5, 0.333, 0.167]
    """
    rules = torch.optim.lr_scheduler
    if schedule == "one-cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        # Of a cycle of fewer steps torch's rule has no end.
        return rules.OneCycleLR(optimizer, rates, max(2, iterations), pct_start=warmup or 0.3, cycle_momentum=False)
    if schedule == "constant" and not warmup:
        return None
    rise = math.ceil(warmup * iterations)
    fall = {
        "constant": lambda share: 1.0,
        "linear": lambda share: 1.0 - share,
        "cosine": lambda share: (1.0 + math.cos(math.pi * share)) / 2,
    }[schedule]

    def factor(step: int) -> float:
        return (step + 1) / rise if step < rise else fall(min(1.0, (step - rise) / max(1, iterations - rise)))

    return rules.LambdaLR(optimizer, factor)
