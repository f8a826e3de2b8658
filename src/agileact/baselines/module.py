"""What the activations here share: 1-D parameters, where they lie, and in which dtype they are evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import Parameter

from agileact._common import checks
from agileact._common.broadcasting import WIDE
from agileact._common.errors import ArgumentError
from agileact.functional import Granularity, channel_axis, check_input, check_placement
from agileact.nn.module import Device as Device
from agileact.nn.module import number_of_pairs


class ParametricActivation(nn.Module):
    """Base of the activations whose shape is learned, with parameters laid out as those of agile modules are.

    Every coefficient of the formula has one value per channel, per layer or per element. All values of a
    parameter are one vector: coefficient after coefficient, and within one channel after channel. As vectors they
    are left alone by libraries that decay only matrices.

    Attributes:
        granularity: What one set of coefficients belongs to: "channel", "layer" or "element".
        dim: The channel axis.
        num_parameters: The number of sets of coefficients.
    """

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None,
        starts: Mapping[str, Sequence[float]],
        granularity: Granularity,
        dim: int,
        device: Device,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        check_placement(granularity, dim, dtype)
        self.granularity: Granularity = granularity
        self.dim = dim
        self.sample_shape = num_parameters if isinstance(num_parameters, tuple) else None
        size = number_of_pairs(num_parameters, granularity)
        if size is None:
            raise ArgumentError(f"num_parameters must be given with granularity {granularity!r}: how many channels?")
        self.num_parameters = size
        self._starts = {name: tuple(_finite(name, value) for value in values) for name, values in starts.items()}
        for name, values in self._starts.items():
            empty = torch.empty(len(values) * self.num_parameters, device=device, dtype=dtype)
            self.register_parameter(name, Parameter(empty))
        self.reset_parameters()

    def initial_values(self) -> dict[str, Tensor]:
        """Return the values at which each parameter starts, as new tensors."""
        return {
            name: torch.tensor(values, device=parameter.device, dtype=parameter.dtype).repeat_interleave(
                self.num_parameters
            )
            for (name, values), parameter in zip(self._starts.items(), self.parameters(recurse=False), strict=True)
        }

    def reset_parameters(self) -> None:
        """Set all parameters to their start."""
        with torch.no_grad():
            for name, values in self.initial_values().items():
                self.get_parameter(name).copy_(values)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of ``x``: same shape and dtype, computed in float32 or wider."""
        shape = self._laid_out(x)
        wide = WIDE[x.dtype]
        coefficients = {name: getattr(self, name).to(wide).view(-1, *shape) for name in self._starts}
        return self.formula(x.to(wide), **coefficients).to(x.dtype)

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return the activation in the dtype of its arguments.

        Args:
            x: The input.
            **coefficients: Each parameter by its name, with the coefficients along a leading axis and the rest
                shaped so that it broadcasts against ``x``.
        """
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the arguments that say how the parameters are laid out."""
        parts = [] if self.granularity == "layer" else [repr(self.sample_shape or self.num_parameters)]
        if self.granularity != "channel":
            parts.append(f"granularity={self.granularity!r}")
        elif self.dim != 1:
            parts.append(f"dim={self.dim}")
        return ", ".join(parts)

    def _laid_out(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape in which one coefficient broadcasts against ``x``; raise if the two do not fit."""
        check_input(x)
        if self.granularity == "layer":
            return (1,) * x.ndim
        if self.granularity == "channel":
            axis = channel_axis(x, self.dim)
            if x.shape[axis] != self.num_parameters:
                raise ArgumentError(
                    f"the activation has {self.num_parameters} channels, but x of shape {tuple(x.shape)} has "
                    f"{x.shape[axis]} along axis {axis}"
                )
            return tuple(self.num_parameters if i == axis else 1 for i in range(x.ndim))
        start = min(1, x.ndim - 1)
        sample = tuple(x.shape[start:]) if x.ndim else ()
        if x.ndim == 0 or math.prod(sample) != self.num_parameters or self.sample_shape not in (None, sample):
            raise ArgumentError(
                f"the activation is made for samples of {self.sample_shape or self.num_parameters} elements, "
                f"but a sample of x, of shape {tuple(x.shape)}, has shape {sample}"
            )
        return (1,) * start + sample


def _finite(name: str, value: float) -> float:
    if not math.isfinite(checks.number(name, value)):
        raise ArgumentError(f"{name} must be finite, not {value}")
    return float(value)
