"""What a monitor remembers: rows of statistics by step, thinned so that their number stays bounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agileact._common.errors import ArgumentError

RANGE = ("min", "q25", "median", "q75", "max", "mean")
"""The statistics of each parameter, over the units of a layer."""
SIGNS = ("negative", "flipped")
"""Shares of a layer's scales: below 0; and with another sign than at the start."""
ACTIVITY = ("dead", "saturated")
"""Shares of a layer's units."""
DIRECTION = ("length_min", "length_max", "angle_median", "angle_max")
"""Lengths of a layer's rows of weights, and the angles, in radians, by which a step turned them."""


class Record(NamedTuple):
    """One number: a statistic of one layer at one step.

    Attributes:
        step: The number of optimizer steps taken; 0 is the start.
        layer: The module's name in the model.
        parameter: "scale", "location", "activation" or "direction".
        statistic: One of "min", "q25", "median", "q75", "max", "mean"; of the scale also "negative" and "flipped"; of
            the activation "dead" and "saturated"; of the direction "length_min", "length_max", "angle_median" and
            "angle_max".
        value: The number; shares are from 0 to 1.
    """

    step: int
    layer: str
    parameter: str
    statistic: str
    value: float


def parameter_statistics(values: Tensor) -> Tensor:
    """Return the statistics ``RANGE`` of each row of a matrix, as a matrix with a column for each.

    Quantiles are those of :func:`torch.quantile` (linear interpolation); a row with a NaN has NaN throughout.

    Example:
        >>> parameter_statistics(torch.tensor([[3.0, 1.0, 2.0, 0.0]])).tolist()
        [[0.0, 0.75, 1.5, 2.25, 3.0, 1.5]]
    """
    if values.shape[1] == 0:  # a process that has no part of a sharded parameter
        return values.new_full((len(values), len(RANGE)), math.nan)
    ordered = values.sort(dim=1).values
    last = values.shape[1] - 1
    columns = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        place = share * last
        low = math.floor(place)
        column = ordered[:, low]
        if place > low:
            column = torch.lerp(column, ordered[:, low + 1], place - low)
        columns.append(column)
    columns.append(values.mean(dim=1))
    result = torch.stack(columns, dim=1)
    # Sorting puts NaN last, where only the largest would show it.
    return torch.where(values.isnan().any(dim=1, keepdim=True), math.nan, result)


class Rows:
    """Rows of numbers by step: at most ``limit`` of them, by keeping every second one whenever there are more.

    Which steps are kept depends on nothing but the steps themselves: those that the stride divides, and the newest.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.stride = 1
        self.steps: list[int] = []
        self.values: list[Tensor] = []

    def wants(self, step: int) -> bool:
        """Return whether the stride divides a step."""
        return step % self.stride == 0

    def add(self, step: int, values: Tensor) -> None:
        """Add a row; the row before it, if the stride does not divide its step, was there as the newest only."""
        if self.steps and not self.wants(self.steps[-1]):
            self.steps.pop()
            self.values.pop()
        self.steps.append(step)
        self.values.append(values)
        while len(self.steps) > self.limit:
            self.stride *= 2
            kept = [index for index, one in enumerate(self.steps) if self.wants(one) or one == step]
            self.steps = [self.steps[index] for index in kept]
            self.values = [self.values[index] for index in kept]

    def state(self) -> dict[str, Any]:
        """Return all as tensors and numbers."""
        values = torch.stack(self.values) if self.values else torch.empty(0)
        return {"stride": self.stride, "steps": list(self.steps), "values": values}

    def load(self, state: dict[str, Any], columns: int) -> None:
        """Take over a state of :meth:`state`; the limit stays."""
        values: Tensor = state["values"]
        if len(state["steps"]) != len(values) or (len(values) and values.shape[1:] != (columns,)):
            raise ArgumentError(
                f"state has {len(state['steps'])} steps and rows of shape {tuple(values.shape)}; "
                f"this monitor's rows have {columns} numbers"
            )
        self.stride = int(state["stride"])
        self.steps = [int(step) for step in state["steps"]]
        self.values = list(values.to("cpu", torch.float64).unbind()) if len(values) else []

    def records(self, names: Sequence[tuple[str, str, str]]) -> list[Record]:
        """Return all numbers that are there, each with its name; a number that was not measured is left out."""
        return [
            Record(step, *name, value)
            for step, row in zip(self.steps, self.values, strict=True)
            for name, value in zip(names, row.tolist(), strict=True)
        ]
