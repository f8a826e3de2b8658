"""Piecewise linear activations with learned slopes: PReLU and APL."""

from __future__ import annotations

import torch
from torch import Tensor

from agileact._common import checks
from agileact._common.broadcasting import WIDE
from agileact.baselines.module import Device, ParametricActivation
from agileact.functional import Granularity, channel_axis


class PReLU(ParametricActivation):
    r"""A rectifier with a learned negative slope: :math:`f(x) = \max(0, x) + w \min(0, x)`.

    Source: K. He, X. Zhang, S. Ren, J. Sun, *Delving Deep into Rectifiers*, arXiv 1502.01852. It is
    :class:`torch.nn.PReLU`, whose kernel it calls, with a channel axis of choice.

    Shapes:
        The input has any shape, such as (N, C), (N, C, H, W), (N, L, C) with ``dim=-1``, or (C,); float64, float32,
        bfloat16 or float16. The output has the same shape and dtype.

    Args:
        num_parameters: The number of channels; for granularity "element" that of elements, or a sample's shape.
        weight: The slope at the start (paper: 0.25).
        granularity: One slope per "channel", per "layer" or per "element".
        dim: The channel axis.
        device: Where the parameters are.
        dtype: Their floating-point dtype.

    Attributes:
        weight: The negative slopes w.

    Raises:
        ArgumentError: If a value does not fit; in the forward pass, if the input does not.
        ArgumentTypeError: If a type does not fit.

    Example:
        >>> import torch
        >>> PReLU(3, weight=0.5, dim=-1)(torch.tensor([[[-2.0, 0.0, 2.0]]]))
        tensor([[[-1.,  0.,  2.]]], grad_fn=<TransposeBackward0>)
    """

    weight: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        weight: float = 0.25,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_parameters, {"weight": (weight,)}, granularity, dim, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return max(0, x) + w min(0, x)."""
        self._laid_out(x)
        wide = x.to(WIDE[x.dtype])
        weight = self.weight.to(wide.dtype)
        if self.granularity == "layer":
            y = torch.prelu(wide, weight)
        elif x.ndim == 1:
            y = torch.prelu(wide.unsqueeze(0), weight).squeeze(0)
        elif self.granularity == "element":
            y = torch.prelu(wide.flatten(1), weight).view(x.shape)
        else:
            # torch's kernel has its channels at axis 1.
            axis = channel_axis(x, self.dim)
            if axis == 1:
                y = torch.prelu(wide, weight)
            else:
                y = torch.prelu(wide.transpose(axis, 1), weight).transpose(axis, 1)
        return y.to(x.dtype)


class APL(ParametricActivation):
    r"""A rectifier with learned hinges.

    .. math:: f(x) = \max(0, x) + \sum_{s=1}^{S} a_s \max(0, -x + b_s)

    Source: F. Agostinelli, M. Hoffman, P. Sadowski, P. Baldi, *Learning Activation Functions to Improve Deep Neural
    Networks*, arXiv 1412.6830, equation (1): adaptive piecewise linear units. Here a = 0 at the start, so that the
    function is exactly ReLU, and the hinges b are spread evenly from -1 to 1 (0 for a single one), so that training
    tells them apart; these start values are our choice.

    Shapes, errors and the other arguments are those of :class:`PReLU`.

    Args:
        hinges: S, at least 1.
        granularity: As for :class:`PReLU`; the paper learns one function per node ("element", or "channel" after a
            dense layer).

    Attributes:
        slope: All a, hinge after hinge.
        hinge: All b.

    Example:
        >>> import torch
        >>> x = torch.tensor([[-1.0, 2.0]])
        >>> torch.equal(APL(2, hinges=3)(x), torch.relu(x))
        True
    """

    slope: Tensor
    hinge: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        hinges: int = 2,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        checks.integer("hinges", hinges, least=1)
        spread = [2 * s / (hinges - 1) - 1 for s in range(hinges)] if hinges > 1 else [0.0]
        super().__init__(num_parameters, {"slope": [0.0] * hinges, "hinge": spread}, granularity, dim, device, dtype)
        self.hinges = hinges

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return max(0, x) + sum of a max(0, b - x)."""
        slope, hinge = coefficients["slope"], coefficients["hinge"]
        y = torch.relu(x)
        for a, b in zip(slope, hinge, strict=True):
            y = y + a * torch.relu(b - x)
        return y

    def extra_repr(self) -> str:
        """Return the arguments."""
        return ", ".join(filter(None, [super().extra_repr(), f"hinges={self.hinges}"]))
