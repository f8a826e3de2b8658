"""The tables that tests run over: base functions with options, inputs with their layouts, and how to combine them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from allpairspy import AllPairs
from torch import Tensor


def pairwise(**axes: Sequence[Any]) -> pytest.MarkDecorator:
    """Parametrise a test so that every pair of values of two axes occurs, instead of every combination of all axes.

    Faults that need three values at once are rare, and the tests that draw at random look for those.
    """
    named = [[(_name(value), value) for value in values] for values in axes.values()]
    rows = list(AllPairs(named))
    # A generator that left a pair out would weaken every test that it serves.
    for i, j in itertools.combinations(range(len(named)), 2):
        wanted = {(a, b) for a, _ in named[i] for b, _ in named[j]}
        assert wanted == {(row[i][0], row[j][0]) for row in rows}
    return pytest.mark.parametrize(
        list(axes),
        [[value for _, value in row] for row in rows],
        ids=["-".join(name for name, _ in row) for row in rows],
    )


def _name(value: Any) -> str:
    return str(getattr(value, "id", None) or getattr(value, "name", None) or value)


DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Case(NamedTuple):
    """A base function with options, the call that a user of PyTorch would write, and f as a formula."""

    base: str
    options: dict[str, Any]
    native: Callable[[Tensor], Tensor]
    formula: Callable[[Tensor], Tensor]

    @property
    def id(self) -> str:
        return "-".join([self.base, *(f"{key}={value}" for key, value in self.options.items())])


def _s(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def _log1p_exp(x: Tensor) -> Tensor:
    return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))


def _elu(alpha: float, rate: float = 1.0, outer: float = 1.0) -> Callable[[Tensor], Tensor]:
    return lambda x: outer * torch.where(x > 0, x, alpha * torch.expm1(rate * x.clamp(max=0)))


def _clip(low: float, high: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.maximum(torch.minimum(x, x.new_tensor(high)), x.new_tensor(low))


def _softplus(beta: float, threshold: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.where(beta * x > threshold, x, _log1p_exp(beta * x) / beta)


def _gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))))


CASES = (
    Case("relu", {}, F.relu, lambda x: x.clamp(min=0)),
    Case("relu6", {}, F.relu6, _clip(0, 6)),
    Case("leaky_relu", {}, F.leaky_relu, lambda x: torch.where(x > 0, x, 0.01 * x)),
    Case(
        "leaky_relu",
        {"negative_slope": -0.3},
        lambda x: F.leaky_relu(x, -0.3),
        lambda x: torch.where(x > 0, x, -0.3 * x),
    ),
    Case("elu", {}, F.elu, _elu(1.0)),
    Case("elu", {"alpha": 0.7}, lambda x: F.elu(x, 0.7), _elu(0.7)),
    Case("celu", {}, F.celu, _elu(1.0)),
    Case("celu", {"alpha": 0.7}, lambda x: F.celu(x, 0.7), _elu(0.7, 1 / 0.7)),
    Case("selu", {}, F.selu, _elu(1.6732632423543772848, outer=1.0507009873554804934)),
    Case("gelu", {}, F.gelu, lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))),
    Case("gelu", {"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh"), _gelu_tanh),
    Case("silu", {}, F.silu, lambda x: x * _s(x)),
    Case("mish", {}, F.mish, lambda x: x * torch.tanh(_log1p_exp(x))),
    Case("softplus", {}, F.softplus, _softplus(1.0, 20.0)),
    Case("softplus", {"beta": 1.7, "threshold": 3.0}, lambda x: F.softplus(x, 1.7, 3.0), _softplus(1.7, 3.0)),
    Case("softsign", {}, F.softsign, lambda x: x / (1 + x.abs())),
    Case("sigmoid", {}, torch.sigmoid, _s),
    Case("log_sigmoid", {}, F.logsigmoid, lambda x: -_log1p_exp(-x)),
    Case("tanh", {}, torch.tanh, lambda x: 1 - 2 / (torch.exp(2 * x) + 1)),
    Case("hardtanh", {}, F.hardtanh, _clip(-1, 1)),
    Case("hardtanh", {"min_val": -0.3, "max_val": 0.7}, lambda x: F.hardtanh(x, -0.3, 0.7), _clip(-0.3, 0.7)),
    Case("hardsigmoid", {}, F.hardsigmoid, lambda x: _clip(0, 1)(x / 6 + 0.5)),
    Case("hardswish", {}, F.hardswish, lambda x: x * _clip(0, 1)(x / 6 + 0.5)),
    Case("tanhshrink", {}, F.tanhshrink, lambda x: x - torch.tanh(x)),
    Case("softshrink", {}, F.softshrink, lambda x: x - _clip(-0.5, 0.5)(x)),
    Case("softshrink", {"lambd": 0.3}, lambda x: F.softshrink(x, 0.3), lambda x: x - _clip(-0.3, 0.3)(x)),
    Case("hardshrink", {}, F.hardshrink, lambda x: torch.where(x.abs() > 0.5, x, 0.0)),
    Case("hardshrink", {"lambd": 0.3}, lambda x: F.hardshrink(x, 0.3), lambda x: torch.where(x.abs() > 0.3, x, 0.0)),
    Case("threshold", {}, lambda x: F.threshold(x, 0.0, 0.0), lambda x: torch.where(x > 0, x, 0.0)),
    Case(
        "threshold",
        {"threshold": 0.3, "value": -0.7},
        lambda x: F.threshold(x, 0.3, -0.7),
        lambda x: torch.where(x > 0.3, x, -0.7),
    ),
    Case("identity", {}, lambda x: x, lambda x: x),
    Case("sine", {}, torch.sin, lambda x: torch.cos(x - math.pi / 2)),
)
IDS = [case.id for case in CASES]


class Input(NamedTuple):
    """An input and where its channels are; ``make`` returns a fresh tensor of the dtype."""

    name: str
    make: Callable[[torch.dtype], Tensor]
    dim: int = 1


def _random(*shape: int) -> Callable[[torch.dtype], Tensor]:
    def make(dtype: torch.dtype) -> Tensor:
        generator = torch.Generator().manual_seed(sum(shape) + len(shape))
        return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)

    return make


def _special(dtype: torch.dtype) -> Tensor:
    tiny = torch.finfo(dtype).smallest_normal
    values = [math.nan, math.inf, -math.inf, 0.0, -0.0, tiny, -tiny, tiny / 2, 1e4, -1e4, 1.0, -1.0]
    return torch.tensor(values, dtype=dtype).reshape(2, 3, 2)


INPUTS = (
    Input("one-element", _random(1, 1)),
    Input("no-samples", _random(0, 3, 4)),
    Input("nodes", _random(7, 5)),
    Input("unbatched", _random(5)),
    Input("unbatched-last", _random(5), -1),
    Input("filters", _random(3, 5, 7, 9)),
    Input("volumes", _random(2, 3, 2, 3, 5)),
    Input("tokens", _random(3, 7, 5), -1),
    Input("first", _random(5, 3, 2), 0),
    Input("channels-last", lambda dtype: _random(3, 5, 7, 9)(dtype).contiguous(memory_format=torch.channels_last)),
    Input("transposed", lambda dtype: _random(5, 7)(dtype).t()),
    Input("permuted", lambda dtype: _random(4, 5, 3)(dtype).permute(2, 1, 0)),
    Input("sliced", lambda dtype: _random(6, 10, 9)(dtype)[::2, 1::3, ::2]),
    Input("expanded", lambda dtype: _random(1, 5, 1)(dtype).expand(4, 5, 3)),
    Input("special", _special),
)
INPUT_IDS = [entry.name for entry in INPUTS]


def parameters(
    size: int | tuple[int, ...], dtype: torch.dtype = torch.float64, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return a scale and a location, with a zero and a negative scale if there is room."""
    generator = torch.Generator().manual_seed(seed)
    shape = (size,) if isinstance(size, int) else size
    scale, location = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    flat = scale.view(-1)
    if flat.numel() > 2:
        flat[0], flat[1], flat[2] = 0.0, -1.5, 1.25
    return scale.to(dtype), location.to(dtype)
