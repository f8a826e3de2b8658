"""The size of a signal: how much what a layer sees or gives differs from sample to sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agileact._common.errors import ArgumentError, ArgumentTypeError
from agileact.monitor.units import as_rows, units_of
from agileact.nn import AgileModule


def feed(model: nn.Module, batch: Any) -> None:
    """Run a model on a batch: a tensor, a tuple or list of which the first part is the input, or keyword arguments."""
    if isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, (tuple, list)):
        model(batch[0])
    else:
        model(batch)


def unit_deviations(module: AgileModule, values: Sequence[Tensor]) -> Tensor:
    r"""Return the standard deviation of each unit over samples, in float64.

    It is taken at each position by itself: because what differs only from one position to another (a border, a
    position code) says nothing of the sample, and pooled over positions and batches:
    :math:`s^2 = \sum (x - \bar x)^2 / \sum (N - 1)`, with the mean :math:`\bar x` of each position in its batch.
    """
    squares, freedom = torch.zeros((), dtype=torch.float64), 0
    for value in values:
        start, stop = units_of(module, value)
        centred = value.double()
        centred = centred - centred.mean(dim=0, keepdim=True)
        part = as_rows(centred.square(), start, stop).sum(dim=1).cpu()
        squares = squares + part
        freedom += (value.shape[0] - 1) * (value.numel() // value.shape[0] // max(1, len(part)))
    return (squares / freedom).sqrt()


def size_of(deviations: Tensor) -> float:
    """Return the size of a layer's signal: the root mean square of its units' deviations."""
    return float(deviations.square().mean().sqrt())


class Probe:
    """Listens to agile modules while a model runs, and keeps their inputs, or only what these and outputs amount to."""

    def __init__(self, names: Mapping[AgileModule, str], *, keep: bool) -> None:
        self.names = names
        self.keep = keep
        self.inputs: dict[AgileModule, list[Tensor]] = {}
        self.signals: dict[AgileModule, list[tuple[Tensor, Tensor, float]]] = {}
        self.calls: dict[AgileModule, int] = {}

    def run(self, model: nn.Module, batches: Sequence[Any]) -> None:
        """Run a model on all batches."""
        handles = [module.register_forward_hook(self._hook) for module in self.names]
        try:
            for batch in batches:
                feed(model, batch)
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        if module not in self.names:  # a module inside that shares the hooks of the one around it
            return
        x, y = args[0], output[0] if isinstance(output, tuple) else output
        name = self.names[module]
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(f"layer {name!r} got no tensor, but {type(x).__name__}")
        start, stop = units_of(module, x)
        if x.ndim == 0 or (start == 0 and stop > start):
            raise ArgumentError(
                f"layer {name!r} got an input of shape {tuple(x.shape)} whose first axis is not one of samples; "
                "calibration needs batches of samples"
            )
        if x.shape[0] < 2:
            raise ArgumentError(
                f"layer {name!r} got {x.shape[0]} sample(s): what differs from sample to sample shows only in batches "
                "of at least 2"
            )
        for what, value in (("gets", x), ("gives", y)):
            if not value.isfinite().all():
                raise ArgumentError(
                    f"layer {name!r} {what} values that are not finite; look at the data and at the weights before it"
                )
        self.calls[module] = self.calls.get(module, 0) + 1
        if self.keep:
            self.inputs.setdefault(module, []).append(x.detach())
            return
        dof = float((x.shape[0] - 1) * (x.numel() // x.shape[0]))
        sizes = tuple(unit_deviations(module, [value]).square().mean() for value in (x, y))
        self.signals.setdefault(module, []).append((*sizes, dof))  # type: ignore[arg-type]

    def sizes(self, module: AgileModule) -> tuple[float, float]:
        """Return the size of the signal in front of a module and behind it, over all its calls."""
        parts = self.signals[module]
        total = sum(dof for _, _, dof in parts)
        front, behind = (float(sum(part[side] * part[2] for part in parts) / total) ** 0.5 for side in (0, 1))
        return front, behind
