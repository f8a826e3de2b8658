"""Base functions that are a line on one side and exponential on the other."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from agileact.bases.base import Base, Monotone, Option

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805

# The kernels for half precision behind elu, celu and selu, and behind softplus, do not agree with the ones for
# float32 to the last bit after rounding, for some options and layouts: hence rounds_inside.


def _exponential(x: Tensor, slope: float) -> Tensor:
    """Return ``slope`` exp(x) for x <= 0, without overflow in the half that is not used."""
    return slope * torch.exp(torch.clamp(x, max=0.0))


def _softplus_second_derivative(x: Tensor, beta: float, threshold: float) -> Tensor:
    s = torch.sigmoid(beta * x)
    return torch.where(beta * x > threshold, 0.0, beta * s * (1 - s))


def _softplus_monotone(beta: float, threshold: float) -> Monotone:
    # Where PyTorch changes over to the line, f jumps down by log(1 + exp(-threshold)) / beta. Only if float64 cannot
    # resolve that jump is f increasing; at the default threshold of 20 it is 2e-9.
    return "increasing" if threshold > 0 and math.log1p(math.exp(-threshold)) < threshold * 2**-53 else None


EXPONENTIAL = (
    Base(
        "elu",
        F.elu,
        lambda x, alpha: torch.where(x <= 0, _exponential(x, alpha), 1.0),
        lambda x, alpha: torch.where(x <= 0, _exponential(x, alpha), 0.0),
        formula="x where x > 0, else alpha (exp(x) - 1)",
        options={"alpha": Option(1.0)},
        monotone=lambda alpha: "increasing" if alpha >= 0 else None,
        positively_homogeneous=lambda alpha: alpha == 0.0,
        bounds=lambda alpha: (min(0.0, -alpha), math.inf),
        kinks=(0.0,),
    ),
    Base(
        "celu",
        F.celu,
        lambda x, alpha: torch.where(x <= 0, torch.exp(torch.clamp(x, max=0.0) / alpha), 1.0),
        lambda x, alpha: torch.where(x <= 0, torch.exp(torch.clamp(x, max=0.0) / alpha) / alpha, 0.0),
        formula="max(0, x) + min(0, alpha (exp(x / alpha) - 1))",
        options={"alpha": Option(1.0, nonzero=True)},
        monotone="increasing",
        bounds=lambda alpha: (-alpha if alpha > 0 else -math.inf, math.inf),
        kinks=(0.0,),
    ),
    Base(
        "selu",
        F.selu,
        lambda x: torch.where(x <= 0, _exponential(x, SELU_SCALE * SELU_ALPHA), SELU_SCALE),
        lambda x: torch.where(x <= 0, _exponential(x, SELU_SCALE * SELU_ALPHA), 0.0),
        formula="1.0507 (x where x > 0, else 1.6733 (exp(x) - 1))",
        monotone="increasing",
        bounds=(-SELU_SCALE * SELU_ALPHA, math.inf),
        kinks=(0.0,),
    ),
    Base(
        "softplus",
        F.softplus,
        lambda x, beta, threshold: torch.where(beta * x > threshold, 1.0, torch.sigmoid(beta * x)),
        _softplus_second_derivative,
        formula="log(1 + exp(beta x)) / beta where beta x <= threshold, else x",
        options={"beta": Option(1.0, least=0.0, above=True), "threshold": Option(20.0)},
        monotone=_softplus_monotone,
        bounds=lambda beta, threshold: (min(0.0, threshold / beta), math.inf),
        kinks=lambda beta, threshold: (threshold / beta,) if math.isfinite(threshold) else (),
    ),
)
