"""The agile form of any elementwise module or function, computed by that module or function itself."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from agileact._common.broadcasting import WIDE, spread
from agileact._common.errors import ArgumentError, ArgumentTypeError
from agileact.bases import Facts
from agileact.functional import Granularity, check_input, find_axes
from agileact.nn.module import AgileModule, Device


class AgileWrapped(AgileModule):
    r"""An elementwise module or function of your own with a learned size and position: :math:`\sum_j a_j m(x - b_j)`.

    For what has no base function, such as a module that computes its formula step by step: with scale 1 and location 0
    the result is m(x) bit for bit, because m itself computes it. Gradients are those of autograd. A function
    that is registered by :func:`agileact.register_base` and used by :class:`Agile` needs no module; nothing else
    is known here about m, so that nothing is assumed (see ``facts``). Equation (9) of
    "Performance Improvement Method of Convolutional Neural Network Using Agile Activation Function" (doi
    10.3745/KTSDE.2020.9.7.213), for any m.

    Shapes:
        As for :class:`Agile`; the dtype of the result is that of m's.

    Args:
        function: m: a module or function of one tensor that works element by element. A module becomes a child.
        num_parameters: As for :class:`Agile`.
        terms: The number of terms, at least 1; they start as those of :class:`CombinedAgile`.
        spread: As for :class:`CombinedAgile`. The other arguments are those of :class:`Agile`.

    Attributes:
        function: m.
        base: The name of m's class, or of the function m.

    Raises:
        ArgumentError: As for :class:`Agile`; in the forward pass, if m changes the shape.
        ArgumentTypeError: As for :class:`Agile`, and if ``function`` cannot be called.

    Example:
        >>> import torch, agileact as ag
        >>> class SquaredReLU(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.relu(x).square()
        >>> activation = ag.AgileWrapped(SquaredReLU(), 3)
        >>> activation(torch.tensor([[-1.0, 2.0, 3.0]])).tolist()
        [[0.0, 4.0, 9.0]]
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        num_parameters: int | tuple[int, ...] | None = None,
        *,
        terms: int = 1,
        spread: float = 1.0,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not callable(function):
            raise ArgumentTypeError(f"function must be a module or a function, not {function!r}")
        if isinstance(function, type):
            raise ArgumentTypeError(f"function must be a module, not its class: {function.__name__}(...)")
        # The identity has no options; what f is, is said below.
        super().__init__("identity", num_parameters, terms, spread, granularity, dim, device, dtype, {})
        self.function = function
        self.base = (
            type(function).__name__ if isinstance(function, nn.Module) else getattr(function, "__name__", "function")
        )

    @property
    def facts(self) -> Facts:
        """What is known of m: nothing but its value at zero."""
        zero = torch.zeros((), dtype=torch.float64)
        with torch.no_grad():
            value = float(self.function(zero))
        return Facts(None, False, False, (-math.inf, math.inf), (), value)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of a_j m(x - b_j)."""
        traced: Tensor | None = self._traced(x)
        if traced is not None:
            return traced
        check_input(x)
        self._check_sample(x)
        size = self.scale.numel() // self.terms
        start, stop = find_axes(x, (size,), self.dim, self.granularity)
        wide = WIDE[x.dtype]
        x_wide = x.to(wide)
        total: Tensor | None = None
        dtype = x.dtype
        for scale, location in zip(self.scale.view(self.terms, -1), self.location.view(self.terms, -1), strict=True):
            y = self.function((x_wide + spread(-location, x.shape, start, stop, wide)).to(x.dtype))
            if not isinstance(y, Tensor):
                raise ArgumentTypeError(f"function must return a tensor: {self.base} returned {type(y).__name__}")
            if y.shape != x.shape:
                raise ArgumentError(
                    f"function must keep the shape: {self.base} made {tuple(y.shape)} from {tuple(x.shape)}"
                )
            dtype = y.dtype
            term = spread(scale, y.shape, start, stop, WIDE[dtype]) * y.to(WIDE[dtype])
            total = term if total is None else total + term
        assert total is not None
        return total.to(dtype)

    def _own_arguments(self) -> tuple[list[str], list[str], list[str]]:
        _, own, last = super()._own_arguments()
        return [] if isinstance(self.function, nn.Module) else [self.base], own, last
