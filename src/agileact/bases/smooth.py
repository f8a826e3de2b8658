"""Base functions that are one expression everywhere: sigmoids, self-gated functions, and the sine."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from agileact.bases.base import Base, Option


def _sigmoid_derivative(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 - s)


def _tanh_derivative(x: Tensor) -> Tensor:
    t = torch.tanh(x)
    return 1 - t * t


def _silu_derivative(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


def _silu_second_derivative(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 - s) * (2 + x * (1 - 2 * s))


def _mish_derivative(x: Tensor) -> Tensor:
    t = torch.tanh(F.softplus(x))
    return t + x * torch.sigmoid(x) * (1 - t * t)


def _mish_second_derivative(x: Tensor) -> Tensor:
    t = torch.tanh(F.softplus(x))
    s = torch.sigmoid(x)
    return s * (1 - t * t) * (2 + x * ((1 - s) - 2 * t * s))


_GELU_RATE = math.sqrt(2 / math.pi)
_GELU_CUBE = 0.044715


def _gelu_tanh_parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return t = tanh(u), u' and u'' for u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    t = torch.tanh(_GELU_RATE * (x + _GELU_CUBE * x**3))
    return t, _GELU_RATE * (1 + 3 * _GELU_CUBE * x * x), 6 * _GELU_RATE * _GELU_CUBE * x


def _normal_density(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _gelu_derivative(x: Tensor, approximate: str) -> Tensor:
    if approximate == "tanh":
        t, slope, _ = _gelu_tanh_parts(x)
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope
    return 0.5 * torch.erfc(-x / math.sqrt(2)) + x * _normal_density(x)


def _gelu_second_derivative(x: Tensor, approximate: str) -> Tensor:
    if approximate == "tanh":
        t, slope, curvature = _gelu_tanh_parts(x)
        return (1 - t * t) * (slope + 0.5 * x * (curvature - 2 * t * slope * slope))
    return _normal_density(x) * (2 - x * x)


SMOOTH = (
    Base(
        "sigmoid",
        torch.sigmoid,
        _sigmoid_derivative,
        lambda x: _sigmoid_derivative(x) * (1 - 2 * torch.sigmoid(x)),
        formula="1 / (1 + exp(-x))",
        rounds_inside=False,
        monotone="increasing",
        bounds=(0.0, 1.0),
    ),
    Base(
        "log_sigmoid",
        F.logsigmoid,
        lambda x: torch.sigmoid(-x),
        lambda x: -torch.sigmoid(x) * torch.sigmoid(-x),
        formula="-log(1 + exp(-x))",
        rounds_inside=False,
        monotone="increasing",
        bounds=(-math.inf, 0.0),
    ),
    Base(
        "tanh",
        torch.tanh,
        _tanh_derivative,
        lambda x: -2 * torch.tanh(x) * _tanh_derivative(x),
        formula="tanh(x)",
        rounds_inside=False,
        monotone="increasing",
        odd=True,
        bounds=(-1.0, 1.0),
    ),
    Base(
        "tanhshrink",
        F.tanhshrink,
        lambda x: torch.tanh(x).square(),
        lambda x: 2 * torch.tanh(x) * _tanh_derivative(x),
        formula="x - tanh(x)",
        monotone="increasing",
        odd=True,
    ),
    Base(
        "softsign",
        F.softsign,
        lambda x: 1 / (1 + x.abs()) ** 2,
        lambda x: -2 * x.sign() / (1 + x.abs()) ** 3,
        formula="x / (1 + |x|)",
        monotone="increasing",
        odd=True,
        bounds=(-1.0, 1.0),
        kinks=(0.0,),
    ),
    Base(
        "silu",
        F.silu,
        _silu_derivative,
        _silu_second_derivative,
        formula="x / (1 + exp(-x))",
        rounds_inside=False,
        bounds=(-0.2784646, math.inf),
    ),
    Base(
        "mish",
        F.mish,
        _mish_derivative,
        _mish_second_derivative,
        formula="x tanh(log(1 + exp(x)))",
        bounds=(-0.3088435, math.inf),
    ),
    Base(
        "gelu",
        F.gelu,
        _gelu_derivative,
        _gelu_second_derivative,
        formula="x Phi(x), with the normal distribution function Phi or its approximation by tanh",
        options={"approximate": Option("none", choices=("none", "tanh"))},
        bounds=lambda approximate: (-0.1700409 if approximate == "tanh" else -0.1699713, math.inf),
    ),
    Base(
        "sine",
        torch.sin,
        torch.cos,
        lambda x: -torch.sin(x),
        formula="sin(x)",
        odd=True,
        bounds=(-1.0, 1.0),
    ),
)
