"""A short-term memory for scales and locations: one copy a step into memory that is there already."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from agileact.monitor.units import local
from agileact.nn import AgileModule

_BYTES = 4 << 20
_ROWS = 128


class ParameterBuffer:
    """The values of all scales and locations at the last few steps, as rows of one matrix for each device.

    A step costs one concatenation into a row, without waiting for the device; what is asked of the values is computed
    for all rows together, when the buffer is full or somebody looks.
    """

    def __init__(self, modules: Sequence[AgileModule]) -> None:
        self.modules = modules
        self.steps: list[int] = []
        tensors = self._read()
        self.devices = [tensor.device for tensor in tensors]
        self.sizes = [tensor.numel() for tensor in tensors]
        self.dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
        self.rows = max(1, min(_ROWS, _BYTES // max(1, sum(self.sizes) * self.dtype.itemsize)))
        self.groups = [
            (
                [index for index, one in enumerate(self.devices) if one == device],
                torch.empty(
                    self.rows,
                    sum(size for size, one in zip(self.sizes, self.devices, strict=True) if one == device),
                    dtype=self.dtype,
                    device=device,
                ),
            )
            for device in dict.fromkeys(self.devices)
        ]

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
