"""A quotient of two learned polynomials: the Padé activation unit."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from agileact._common.errors import ArgumentError
from agileact.baselines.module import Device, ParametricActivation
from agileact.functional import Granularity

Start = Literal["leaky_relu", "relu"]

# Minimax fits on [-3, 3] by reweighted least squares from 2,401 points (SciPy's least_squares; the weights grow with
# the error until it is equal at all its peaks), rounded to six digits. The largest errors stand in the docstring, and
# a test holds them.
_STARTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "leaky_relu": (
        (0.0131282, 0.505, 2.70287, 4.40758, 2.43357, 0.441785),
        (3.12791e-06, 8.72787, 1.41372e-06, 0.874822),
    ),
    "relu": (
        (0.0132523, 0.5, 2.73128, 4.36679, 2.46012, 0.437803),
        (2.99477e-06, 8.73357, 1.20221e-06, 0.875606),
    ),
}


class Rational(ParametricActivation):
    r"""A Padé activation unit of degrees 5 and 4, in its safe version.

    .. math:: f(x) = \frac{\sum_{j=0}^{5} p_j x^j}{1 + \left| \sum_{k=1}^{4} q_k x^k \right|}

    Source: A. Molina, P. Schramowski, K. Kersting, *Padé Activation Units: End-to-end Learning of Flexible Activation
    Functions in Deep Networks*, arXiv 1907.06732. The denominator is never below 1, so there are no poles. The start
    approximates a rectifier by a fit of our own: on [-3, 3] it is off by at most 0.01313 from LeakyReLU with slope
    0.01, and by at most 0.01326 from ReLU. Outside it leaves them: at x = -10 the start of ``"leaky_relu"`` is -2.5,
    at 10 it is 7.6.

    Shapes, errors and the other arguments are those of :class:`~agileact.baselines.PReLU`.

    Args:
        start: The function that is approximated at the start, "leaky_relu" or "relu".
        granularity: As for :class:`~agileact.baselines.PReLU`; the paper learns one function per "layer".

    Attributes:
        numerator: All p, coefficient after coefficient.
        denominator: All q.

    Example:
        >>> import torch
        >>> x = torch.linspace(-3, 3, 601)[:, None]
        >>> error = (Rational(1, start="relu")(x) - torch.relu(x)).abs().max()
        >>> print(f"{error.item():.4f}")
        0.0133
    """

    numerator: Tensor
    denominator: Tensor

    def __init__(
        self,
        num_parameters: int | tuple[int, ...] | None = None,
        start: Start = "leaky_relu",
        *,
        granularity: Granularity = "channel",
        dim: int = 1,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if start not in _STARTS:
            raise ArgumentError(f"start must be {' or '.join(map(repr, get_args(Start)))}, not {start!r}")
        numerator, denominator = _STARTS[start]
        super().__init__(
            num_parameters, {"numerator": numerator, "denominator": denominator}, granularity, dim, device, dtype
        )

    def formula(self, x: Tensor, **coefficients: Tensor) -> Tensor:
        """Return the quotient, both polynomials by Horner's rule."""
        p, q = coefficients["numerator"], coefficients["denominator"]
        above = p[5]
        for j in (4, 3, 2, 1, 0):
            above = above * x + p[j]
        below = q[3]
        for k in (2, 1, 0):
            below = below * x + q[k]
        return above / (1 + (below * x).abs())
