"""A gain in the kernels, scale * f(gain * (x - location)), against autograd of the formula in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import agileact as ag
from agileact import bases
from agileact.ops import CPU
from tests.cases import INPUTS, Case, Input, pairwise, parameters
from tests.ops.test_agile import FUSED_CASES, assert_close

agile: Any = ag.functional.agile
needs_compiled = pytest.mark.skipif(not CPU.loaded, reason="the compiled kernels are not there")


def formula(given: Sequence[Tensor], case: Case, dim: int) -> Tensor:
    x, scale, location, gain = given
    shape = [-1 if axis == dim else 1 for axis in range(x.ndim)]
    a, b, g = (one.view(shape) for one in (scale, location, gain))
    value: Tensor = a * bases.get(case.base).function(g * (x - b), **case.options)
    return value


def four(x: Tensor, dim: int, dtype: torch.dtype) -> list[Tensor]:
    scale, location = (one.to(dtype) for one in parameters(x.shape[dim]))
    return [x, scale, location, torch.linspace(0.5, -1.5, x.shape[dim], dtype=torch.float64).to(dtype)]


def gradients(y: Tensor, inputs: list[Tensor], grad: Tensor) -> list[Tensor]:
    # Value and gradients by x, scale, location and gain.
    return [y.detach(), *torch.autograd.grad(y, inputs, grad)]


# Without the kernels gain * x is rounded, and may fall on the other side of a kink: see tests/nn/test_gain.py.
@needs_compiled
@pairwise(
    case=FUSED_CASES,
    entry=[entry for entry in INPUTS if entry.name != "special"],
    dtype=[torch.float32, torch.bfloat16, torch.float64],
)
def test_values_and_gradients(case: Case, entry: Input, dtype: torch.dtype) -> None:
    x = entry.make(dtype)
    dim = entry.dim % x.ndim if x.ndim > 1 else 0
    given = [one.detach().requires_grad_() for one in four(x, dim, torch.promote_types(dtype, torch.float32))]
    wide = [one.detach().double().requires_grad_() for one in given]
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    x, scale, location, gain = given
    got = gradients(agile(x, scale, location, case.base, dim, gain=gain, **case.options), given, grad)
    want = gradients(formula(wide, case, dim), wide, grad.double())
    assert got[0].dtype == dtype
    assert_close(got[:3], want[:3], dtype, 2.0)
    assert_close(got[3:], want[3:], dtype, 2.0)


@needs_compiled
def test_one_kernel_and_one_piece_of_memory() -> None:
    x, scale, location, gain = (one.float().requires_grad_() for one in four(torch.randn(2, 3, 40), 1, torch.float32))
    y = agile(x, scale, location, "gelu", gain=gain)
    assert y.grad_fn.name() == "AgileGainBackward"
    made = torch.autograd.grad(y.sum(), (scale, location, gain))
    assert len({one.untyped_storage().data_ptr() for one in made}) == 1


@pytest.mark.parametrize("base", ["relu", "gelu", "softplus"])
def test_mapped_traced_and_forward_mode_are_the_formula(base: str) -> None:
    case = next(case for case in FUSED_CASES if case.base == base and not case.options)
    x, scale, location, gain = four(torch.linspace(-2, 2, 24, dtype=torch.float64).view(4, 3, 2), 1, torch.float64)

    def function(x: Tensor, scale: Tensor, location: Tensor, gain: Tensor) -> Tensor:
        done: Tensor = agile(x, scale, location, base, gain=gain)
        return done

    want = formula((x, scale, location, gain), case, 1)
    mapped = torch.func.vmap(lambda one: function(one.unsqueeze(0), scale, location, gain).squeeze(0))(x)
    torch.testing.assert_close(mapped, want)
    slope = torch.func.grad(lambda g: function(x, scale, location, g).sum())(gain)
    torch.testing.assert_close(slope, torch.func.grad(lambda g: formula((x, scale, location, g), case, 1).sum())(gain))
    tangents = tuple(map(torch.ones_like, (x, scale, location, gain)))
    if CPU.loaded:
        forward = torch.func.jvp(function, (x, scale, location, gain), tangents)[1]
        expected = torch.func.jvp(lambda *given: formula(given, case, 1), (x, scale, location, gain), tangents)[1]
        torch.testing.assert_close(forward, expected)
    exported = torch.fx.experimental.proxy_tensor.make_fx(function)(x, scale, location, gain)
    torch.testing.assert_close(exported(x, scale, location, gain), want)


def test_in_place_the_input_becomes_the_result() -> None:
    x, scale, location, gain = four(torch.randn(2, 3, 4), 1, torch.float32)
    x = x.float()
    want = agile(x, scale, location, "silu", gain=gain)
    assert agile(x, scale, location, "silu", gain=gain, inplace=True) is x
    torch.testing.assert_close(x, want)


@needs_compiled
def test_wrong_sizes_are_refused_by_the_operator() -> None:
    one = torch.ones(3)
    with pytest.raises(RuntimeError, match="a parameter with 2 elements for 3"):
        torch.ops.agileact.agile_gain(torch.randn(2, 3), one, one, torch.full((2,), 2.0), "relu")
