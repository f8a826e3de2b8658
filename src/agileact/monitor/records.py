"""What a monitor remembers: rows of statistics by step, thinned so that their number stays bounded."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agileact._common.errors import ArgumentError
from agileact.nn import AgileModule
from agileact.nn.rows import local

_BYTES = 4 << 20
_ROWS = 128

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
    A column is named by its layer, parameter and statistic.
    """

    def __init__(self, limit: int, stride: int = 1, columns: Sequence[tuple[str, str, str]] = ()) -> None:
        self.limit = limit
        self.stride = stride
        self.columns = columns
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

    def loaded(self, state: dict[str, Any]) -> "Rows":
        """Return rows of this limit and these columns with what is in a state of :meth:`state`."""
        values: Tensor = state["values"]
        if len(state["steps"]) != len(values) or (len(values) and values.shape[1:] != (len(self.columns),)):
            raise ArgumentError(
                f"state has {len(state['steps'])} steps and rows of shape {tuple(values.shape)}; "
                f"this monitor's rows have {len(self.columns)} numbers"
            )
        rows = Rows(self.limit, int(state["stride"]), self.columns)
        rows.steps = [int(step) for step in state["steps"]]
        rows.values = list(values.to("cpu", torch.float64).unbind()) if len(values) else []
        return rows

    def records(self) -> list[Record]:
        """Return all numbers that are there, each with its name."""
        return [
            Record(step, *name, value)
            for step, row in zip(self.steps, self.values, strict=True)
            for name, value in zip(self.columns, row.tolist(), strict=True)
        ]


class ParameterBuffer:
    """The values of all scales and locations at the last few steps, as rows of one matrix for each device.

    A step costs one concatenation into a row, without waiting for the device; what is asked of the values is computed
    for all rows together, when the buffer is full or a reader asks.
    """

    def __init__(self, modules: Sequence[AgileModule]) -> None:
        self.modules = modules
        self.steps: list[int] = []
        tensors = self._read()
        self.devices = [tensor.device for tensor in tensors]
        self.sizes = [tensor.numel() for tensor in tensors]
        self.dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
        self.rows = max(1, min(_ROWS, _BYTES // max(1, sum(self.sizes) * self.dtype.itemsize)))
        self.groups: list[tuple[list[int], Tensor]] = []
        for device in dict.fromkeys(self.devices):
            members = [index for index, one in enumerate(self.devices) if one == device]
            width = sum(self.sizes[index] for index in members)
            self.groups.append((members, torch.empty(self.rows, width, dtype=self.dtype, device=device)))

    def _read(self) -> list[Tensor]:
        return [local(tensor) for module in self.modules for tensor in (module.scale, module.location)]

    @property
    def full(self) -> bool:
        """Whether there is no room for another row."""
        return len(self.steps) == self.rows

    def copy(self, step: int) -> bool:
        """Add a row with the present values; return False, and add none, if a parameter is on another device now."""
        row = len(self.steps)
        with torch.no_grad():
            tensors = self._read()
            if [tensor.device for tensor in tensors] != self.devices:
                return False
            for members, memory in self.groups:
                chosen = tensors if len(members) == len(tensors) else [tensors[index] for index in members]
                torch.cat(chosen, out=memory[row])
        self.steps.append(step)
        return True

    def drain(self) -> tuple[list[int], list[Tensor]]:
        """Return the steps, and for each scale and location a matrix (step, unit) on the CPU; then forget them."""
        steps, count = self.steps, len(self.steps)
        parts: list[Tensor] = [torch.empty(0)] * len(self.sizes)
        for members, memory in self.groups:
            values = memory[:count].to("cpu", copy=True)
            split = values.split([self.sizes[index] for index in members], dim=1)
            for index, part in zip(members, split, strict=True):
                parts[index] = part
        self.steps = []
        return steps, parts
