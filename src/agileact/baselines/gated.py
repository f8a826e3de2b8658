"""Activations that multiply their input by a learned gate: Swish, ACON-C and AGLU."""

from __future__ import annotations

import torch
from torch import Tensor

from agileact.baselines.module import Device, ParametricActivation
from agileact.functional import Granularity

_LEAST_LAMBDA = 1e-4
"""The authors' code of AGLU keeps lambda above this."""


class Swish(ParametricActivation):
    r"""The identity behind a sigmoid gate of learned steepness: :math:`f(x) = x \, \sigma(\beta x)`.

    Source: P. Ramachandran, B. Zoph, Q. V. Le, *Searching for Activation Functions*, arXiv 1710.05941. With
    :math:`\beta = 1`, the start here, it is :func:`torch.nn.functional.silu`.

    Shapes, errors and the other arguments are those of :class:`~agileact.baselines.PReLU`.

    Args:
        beta: The steepness at the start.

    Attributes:
        beta: The steepness of the gate.

    Example:
        >>> import torch
        >>> Swish(2, beta=0.0)(torch.tensor([[-2.0, 2.0]])).tolist()
        [[-1.0, 1.0]]
    """

    beta: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        beta: float = 1.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_parameters, {"beta": (beta,)}, granularity, dim, device, dtype)

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return x sigmoid(beta x)."""
        return x * torch.sigmoid(coefficients["beta"][0] * x)


class ACONC(ParametricActivation):
    r"""A smooth maximum of two learned lines: :math:`f(x) = (p_1 - p_2) x \, \sigma(\beta (p_1 - p_2) x) + p_2 x`.

    Source: N. Ma, X. Zhang, M. Liu, J. Sun, *Activate or Not: Learning Customized Activation*, arXiv 2009.04759,
    ACON-C. For growing beta it becomes max(p1 x, p2 x). The authors' code draws p1 and p2 from a standard normal
    distribution; here they start at 1 and 0 with beta = 1, which is Swish, so that no start depends on chance.

    Shapes, errors and the other arguments are those of :class:`~agileact.baselines.PReLU`.

    Args:
        p1: Slope of the first line at the start.
        p2: Slope of the second line at the start.
        beta: Sharpness of the maximum at the start.

    Attributes:
        p1: Slopes of the first line.
        p2: Slopes of the second line.
        beta: Sharpness of the maximum.

    Example:
        >>> import torch
        >>> ACONC(2, p1=1.0, p2=0.5, beta=1000.0)(torch.tensor([[-2.0, 2.0]])).tolist()
        [[-1.0, 2.0]]
    """

    p1: Tensor
    p2: Tensor
    beta: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        p1: float = 1.0,
        p2: float = 0.0,
        beta: float = 1.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_parameters, {"p1": (p1,), "p2": (p2,), "beta": (beta,)}, granularity, dim, device, dtype)

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x."""
        p1, p2, beta = (coefficients[name][0] for name in ("p1", "p2", "beta"))
        difference = (p1 - p2) * x
        return difference * torch.sigmoid(beta * difference) + p2 * x


class AGLU(ParametricActivation):
    r"""The identity behind a gate of learned shape: :math:`f(x) = x \, (\lambda e^{-\kappa x} + 1)^{-1 / \lambda}`.

    Source: K. P. Alexandridis, J. Deng, A. Nguyen, S. Luo, *Adaptive Parametric Activation*, arXiv 2407.08567: the
    adaptive generalised linear unit. The gate is a sigmoid for :math:`\lambda = 1` and tends to Gumbel's
    distribution function for :math:`\lambda \to 0`. As in the authors' code lambda is kept above 0.0001.
    They draw lambda and kappa uniformly from 0 to 1; here both start at 1, which is Swish with beta = 1, so that
    no start depends on chance.

    Shapes, errors and the other arguments are those of :class:`~agileact.baselines.PReLU`.

    Args:
        lam: Lambda, the asymmetry of the gate, at the start.
        kappa: The steepness of the gate at the start.
        granularity: As for :class:`~agileact.baselines.PReLU`; the authors have one pair per layer.

    Attributes:
        lam: Lambda.
        kappa: Kappa.

    Example:
        >>> import torch
        >>> x = torch.linspace(-3, 3, 7)
        >>> torch.allclose(AGLU(7)(x), torch.nn.functional.silu(x))
        True
    """

    lam: Tensor
    kappa: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        lam: float = 1.0,
        kappa: float = 1.0,
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_parameters, {"lam": (lam,), "kappa": (kappa,)}, granularity, dim, device, dtype)

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return x (lambda exp(-kappa x) + 1)^(-1/lambda)."""
        lam, kappa = coefficients["lam"][0].clamp(min=_LEAST_LAMBDA), coefficients["kappa"][0]
        # log(1 + lambda exp(-kappa x)) as a softplus: the exponential alone overflows for large -kappa x.
        return x * torch.exp(-torch.nn.functional.softplus(torch.log(lam) - kappa * x) / lam)
