"""The agile form of any base function, as a module."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from agileact import bases, ops
from agileact.functional import Granularity, evaluate
from agileact.nn.module import AgileModule, Device


class Agile(AgileModule):
    r"""An activation with a learned size and position: :math:`a f(x - b)`.

    From "Performance Improvement Method of Convolutional Neural Network Using Agile Activation Function" (KIPS
    Transactions on Software and Data Engineering 2020, doi 10.3745/KTSDE.2020.9.7.213), equations (7) to (9), extended
    to any f. At the start a = 1 and b = 0, which is exactly f, bit for bit (reading).

    Shapes:
        The input has any shape and layout, such as (N, C), (N, C, H, W), (N, L, C) with ``dim=-1``, or (C,); the
        output has the same, and the same dtype.

    Args:
        base: The name of f, one of ``agileact.bases.names()``.
        num_parameters: The number of channels (filters, nodes); for granularity "element" the number of elements of
            a sample, or its shape. None leaves it open until the first forward pass.
        granularity: One pair (a, b) per "channel", per "layer" or per "element" of a sample.
        dim: The channel axis; never guessed.
        device: Where the parameters are.
        dtype: Their floating-point dtype; it may differ from the input's.
        inplace: Whether to write the result over the input; see :func:`agileact.functional.agile`.
        **options: The options of f, such as ``negative_slope=0.1``.

    Attributes:
        scale: a, a 1-D parameter; 1 at the start.
        location: b, a 1-D parameter; 0 at the start.

    Raises:
        ArgumentError: If a value does not fit; in the forward pass, if the input does not.
        ArgumentTypeError: If a type does not fit.

    Example:
        >>> import torch, agileact as ag
        >>> activation = ag.Agile("gelu", 64, approximate="tanh")
        >>> activation
        Agile('gelu', 64, approximate='tanh')
        >>> x = torch.linspace(-3, 3, 128).view(2, 64)
        >>> torch.equal(activation(x), torch.nn.functional.gelu(x, approximate="tanh"))
        True
        >>> tuple(activation.scale.shape), tuple(activation.location.shape)
        ((64,), (64,))
    """

    fixed_base: ClassVar[bool] = False
    """Whether the class stands for one base function, whose name is then not shown."""
    inplace: bool = False
    _call: ops.Call | None = None

    def __init__(
        self,
        base: str,
        num_parameters: int | tuple[int, ...] | None = None,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
        inplace: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(base, num_parameters, 1, 1.0, granularity, dim, device, dtype, options)
        self.inplace = inplace
        self._call = ops.call_of(base, self.options) if granularity == "channel" else None

    def forward(self, x: Tensor) -> Tensor:
        """Return a f(x - b)."""
        if self._call is not None:
            y = ops.agile_channels(x, self._parameters, self._call, self.dim, 1, self.inplace)
            if y is not None:
                return y
        self._check_sample(x)
        base = bases.get(self.base)
        return evaluate(
            x, self.scale, self.location, base, self.options, self.dim, self.granularity, inplace=self.inplace
        )

    def _own_arguments(self) -> tuple[list[str], list[str], list[str]]:
        return [] if self.fixed_base else [repr(self.base)], [], ["inplace=True"] * self.inplace
