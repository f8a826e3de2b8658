"""Activation and max pooling as one module."""

from typing import Any

import torch
from torch import Tensor

from agileact._common.errors import ArgumentError, ConversionError
from agileact.functional import Granularity, agile_max_pool2d, check_padding, pair
from agileact.nn.module import AgileModule, Device


class AgileMaxPool2d(AgileModule):
    r"""The agile activation and max pooling in one pass: the largest :math:`a f(x - b)` of each window.

    What it computes is ``torch.nn.MaxPool2d(...)(Agile(base, num_parameters)(x))``, for every scale and every f; the
    unpooled activation is never written, and what is saved for backward has the size of the output.

    Shapes:
        The input is (N, C, H, W) or (C, H, W), contiguous or channels last; the output has the size that
        :class:`torch.nn.MaxPool2d` gives.

    Args:
        num_parameters: The number of channels; None leaves it open until the first forward pass.
        kernel_size: As for :class:`torch.nn.MaxPool2d`, as all arguments up to ``return_indices``.
        stride: None for the kernel's size.
        padding: Zero to half the kernel's size.
        dilation: Steps between the elements of a window.
        ceil_mode: Whether the last window may reach beyond the edge.
        return_indices: Whether to return, with the result, where in its plane each was found.
        base: The name of f.
        granularity: One pair (a, b) per "channel" or one per "layer".
        device: Where the parameters are.
        dtype: Their floating-point dtype.
        **options: The options of f.

    Attributes:
        scale: a, a 1-D parameter; 1 at the start.
        location: b, a 1-D parameter; 0 at the start.

    Raises:
        ArgumentError: If a value does not fit; in the forward pass, if the input does not.
        ArgumentTypeError: If a type does not fit.

    Example:
        >>> import torch, agileact as ag
        >>> module = ag.AgileMaxPool2d(16, 2, base="silu")
        >>> module
        AgileMaxPool2d(16, kernel_size=(2, 2), base='silu')
        >>> module(torch.zeros(100, 16, 28, 28)).shape
        torch.Size([100, 16, 14, 14])
    """

    def __init__(
        self,
        num_parameters: int | None,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
        *,
        base: str = "relu",
        granularity: Granularity = "channel",
        device: Device = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        if granularity == "element":
            raise ArgumentError("granularity must be 'channel' or 'layer', not 'element': pooling moves elements")
        super().__init__(base, num_parameters, 1, 1.0, granularity, 1, device, dtype, options)
        self.kernel_size = pair("kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else pair("stride", stride)
        self.padding = pair("padding", padding, 0)
        check_padding(self.padding, self.kernel_size)
        self.dilation = pair("dilation", dilation)
        self.ceil_mode = ceil_mode
        self.return_indices = return_indices

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the pooled activation, and its indices if they are wanted."""
        traced: Tensor | None = self._traced(x)
        if traced is not None:
            return traced
        return agile_max_pool2d(
            x,
            self.scale,
            self.location,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
            self.base,
            **self.options,
        )

    def _slow_forward(self, *args: Any, **kwargs: Any) -> Any:
        raise ConversionError(
            "torch.jit.trace, and torch.onnx.export with dynamo=False, cannot follow an agile pooling; use "
            "torch.export.export or torch.onnx.export(dynamo=True), or agileact.fold first"
        )

    def _own_arguments(self) -> tuple[list[str], list[str], list[str]]:
        usual: dict[str, object] = {"stride": self.kernel_size, "padding": (0, 0), "dilation": (1, 1)}
        usual |= {"ceil_mode": False, "return_indices": False}
        own = [f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return [], [f"kernel_size={self.kernel_size}", *own, f"base={self.base!r}"], []
