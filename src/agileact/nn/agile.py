"""The agile form of any base function, as a module."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.parameter import Parameter, UninitializedParameter

from agileact import bases, ops
from agileact.functional import Granularity, evaluate
from agileact.nn.module import AgileModule, Device


class Agile(AgileModule):
    r"""An activation with a learned size and position: :math:`a f(x - b)`, or with a gain too: :math:`a f(g (x - b))`.

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
        gain: Whether to learn a gain g too, 1 at the start. It adds something only where the weights before cannot
            do the same: see :func:`agileact.standardize`. Without it the forward pass does nothing more.
        **options: The options of f, such as ``negative_slope=0.1``.

    Attributes:
        scale: a, a 1-D parameter; 1 at the start.
        location: b, a 1-D parameter; 0 at the start.
        gain: g, a 1-D parameter, or None.

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
    gain: Parameter | None
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
        gain: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(base, num_parameters, 1, 1.0, granularity, dim, device, dtype, options)
        self.inplace = inplace
        self._call = ops.call_of(base, self.options) if granularity == "channel" else None
        self.register_parameter("gain", None)
        if gain:
            self.add_gain()

    def add_gain(self) -> None:
        """Learn a gain from now on; it starts at 1, which changes nothing."""
        if self.gain is None:
            if self.has_uninitialized_params():
                lazy: Any = UninitializedParameter  # the stubs of torch have neither its arguments nor its base class
                self.gain = lazy(device=self.scale.device, dtype=self.scale.dtype)
            else:
                self.gain = Parameter(torch.ones_like(self.scale))
            self._call = None  # the way past all checks is for an activation without gain

    def initial_values(self) -> dict[str, Tensor]:
        """Return the values at which each parameter starts, as new tensors."""
        start = super().initial_values()
        gained = self._parameters.get("gain") is not None  # this is called before there is any
        return {**start, "gain": torch.ones_like(start["scale"])} if gained else start

    def forward(self, x: Tensor) -> Tensor:
        """Return a f(x - b), or a f(g (x - b))."""
        if self._call is not None:
            y = ops.agile_channels(x, self._parameters, self._call, self.dim, 1, self.inplace)
            if y is not None:
                return y
        traced: Tensor | None = self._traced(x)
        if traced is not None:
            return traced
        self._check_sample(x)
        place = bases.get(self.base), self.options, self.dim, self.granularity
        return evaluate(x, self.scale, self.location, *place, self.inplace, self.gain)

    def _own_arguments(self) -> tuple[list[str], list[str], list[str]]:
        last = ["inplace=True"] * self.inplace + ["gain=True"] * (self.gain is not None)
        return [] if self.fixed_base else [repr(self.base)], [], last

    def __setstate__(self, state: dict[str, Any]) -> None:
        state["_parameters"].setdefault("gain", None)  # a pickle of an earlier version has none
        super().__setstate__(state)
