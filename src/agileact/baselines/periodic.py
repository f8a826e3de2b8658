"""An activation with a learned frequency: Snake."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from agileact.baselines.module import Device, ParametricActivation
from agileact.functional import Granularity


class Snake(ParametricActivation):
    r"""The identity with a periodic part of learned frequency: :math:`f(x) = x + \frac{1}{a} \sin^2(a x)`.

    Source: L. Ziyin, T. Hartwig, M. Ueda, *Neural Networks Fail to Learn Periodic Functions and How to Fix It*,
    arXiv 2006.08195. Frequency 1 at the start is the x + sin²(x) of its abstract. At frequency 0 the function is its
    limit, the identity.

    Shapes, errors and the other arguments are those of :class:`~agileact.baselines.PReLU`.

    Args:
        frequency: a at the start.

    Attributes:
        frequency: a.

    Example:
        >>> import torch
        >>> y = Snake(1, frequency=0.5)(torch.tensor([[torch.pi]]))
        >>> print(f"{y.item():.4f}")
        5.1416
    """

    frequency: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        frequency: float = 1.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_parameters, {"frequency": (frequency,)}, granularity, dim, device, dtype)

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return x + sin²(a x) / a."""
        a = coefficients["frequency"][0]
        # sin(a x) = a x sinc(a x / pi) never divides by a frequency of 0.
        root = x * torch.sinc(a * x / math.pi)
        return x + a * root * root
