"""Sums of agile activations as one operator, against the sum of the terms in float64, differentiated by autograd."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

import agileact as ag
from agileact.ops import CPU
from tests.cases import INPUT_IDS, INPUTS, Case, Input
from tests.ops.test_agile import CLOSE, FUSED_CASES, FUSED_IDS

combined: Any = ag.functional.combined_agile


def parameters(terms: int, channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(terms * channels)
    scale, location = (torch.randn(terms, channels, generator=generator, dtype=torch.float64) for _ in range(2))
    scale[-1] = 0
    return scale.to(dtype), location.to(dtype)


def expected(x: Tensor, scale: Tensor, location: Tensor, grad: Tensor, case: Case, dim: int) -> list[Tensor]:
    """The terms one after the other, by PyTorch's own function and its autograd, in float64."""
    inputs = [t.detach().double().requires_grad_() for t in (x, scale, location)]
    wide, a, b = inputs
    shape = [1] * x.ndim
    shape[dim] = -1
    # PyTorch's hardsigmoid has a slope of 1/6 as rounded to float32, even in float64.
    f = case.formula if case.base == "hardsigmoid" else case.native
    total = torch.zeros_like(wide)
    for one, other in zip(a, b, strict=True):
        total = total + one.reshape(shape) * f(wide - other.reshape(shape))
    return [total.detach(), *torch.autograd.grad(total, inputs, grad.double())]


def computed(x: Tensor, scale: Tensor, location: Tensor, grad: Tensor, case: Case, dim: int) -> list[Tensor]:
    inputs = [t.detach().requires_grad_() for t in (x, scale, location)]
    y = combined(*inputs, case.base, dim, **case.options)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad)]


def compare(x: Tensor, case: Case, dim: int, terms: int) -> None:
    scale, location = parameters(terms, x.shape[dim], torch.promote_types(x.dtype, torch.float32))
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(x.dtype)
    got = computed(x, scale, location, grad, case, dim)
    assert got[0].dtype == x.dtype
    close = CLOSE[x.dtype]
    for one, other in zip(got, expected(x, scale, location, grad, case, dim), strict=True):
        size = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(one.double(), other, rtol=close, atol=close * size, equal_nan=True)


@pytest.mark.parametrize("dtype", list(CLOSE), ids=str)
@pytest.mark.parametrize("entry", [entry for entry in INPUTS if entry.name != "special"], ids=INPUT_IDS[:-1])
def test_layouts_and_dtypes(entry: Input, dtype: torch.dtype) -> None:
    for case in FUSED_CASES:
        if case.base in ("relu", "gelu", "softplus"):
            x = entry.make(dtype)
            compare(x, case, entry.dim % x.ndim if x.ndim > 1 else 0, 3)


@pytest.mark.parametrize("shape", [(37, 5), (4, 3, 50, 41), (3, 700), (5, 4, 7)], ids=str)
@pytest.mark.parametrize("case", FUSED_CASES, ids=FUSED_IDS)
def test_values_and_gradients(case: Case, shape: tuple[int, ...]) -> None:
    compare(torch.randn(shape, generator=torch.Generator().manual_seed(3)), case, 1, 4)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.integers(1, 6), st.sampled_from(FUSED_CASES), st.data())
def test_any_shape(shape: list[int], terms: int, case: Case, data: Any) -> None:
    while torch.Size(shape).numel() > 4000:
        shape[shape.index(max(shape))] //= 2
    x = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)
    x = x.permute(data.draw(st.permutations(range(len(shape)))))
    compare(x, case, data.draw(st.integers(0, x.ndim - 1)), terms)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 6, 6)], ids=str)
@pytest.mark.parametrize("case", FUSED_CASES, ids=FUSED_IDS)
def test_derivatives(case: Case, shape: tuple[int, ...]) -> None:
    # Away from kinks, where a difference quotient means nothing.
    x = torch.linspace(-2.05, 2.15, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape).requires_grad_()
    scale = torch.tensor([[-1.5, 0.6, 1.25], [0.0, 1.0, 0.3]], dtype=torch.float64, requires_grad=True)
    location = torch.tensor([[0.0131, -0.0173, 0.011], [0.5113, 0.7139, -0.3117]], dtype=torch.float64)
    location.requires_grad_()

    def function(x: Tensor, a: Tensor, b: Tensor) -> Any:
        return combined(x, a, b, case.base, **case.options)

    assert torch.autograd.gradcheck(function, (x, scale, location))
    if case.base != "hardsigmoid" or CPU.loaded:
        assert torch.autograd.gradgradcheck(function, (x, scale, location))


def test_infinity_and_not_a_number() -> None:
    x = torch.tensor([[torch.nan], [torch.inf], [-torch.inf], [1e30], [-1e30], [1e-42]])
    scale, location = torch.tensor([[-1.5], [0.5]]), torch.tensor([[0.25], [1.0]])
    for base, f in (("relu", torch.relu), ("sigmoid", torch.sigmoid), ("silu", torch.nn.functional.silu)):
        plain = scale[0] * f(x.double() - location[0]) + scale[1] * f(x.double() - location[1])
        torch.testing.assert_close(combined(x, scale, location, base), plain.float(), equal_nan=True)


def test_granularity_element_follows_the_layout() -> None:
    x = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    scale, location = (torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    grad = torch.randn_like(x)
    wanted = sum(a * torch.tanh(x - b) for a, b in zip(scale, location, strict=True))
    assert isinstance(wanted, Tensor)
    gradients = torch.autograd.grad(wanted, (scale, location), grad)
    for layout in (torch.contiguous_format, torch.channels_last):
        y = combined(x.contiguous(memory_format=layout), scale, location, "tanh", granularity="element")
        torch.testing.assert_close(y, wanted)
        for one, other in zip(torch.autograd.grad(y, (scale, location), grad), gradients, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.skipif(not CPU.loaded, reason="a matter of the compiled kernels")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "layer"])
def test_equal_bits_for_any_number_of_threads(layout: str) -> None:
    x = torch.randn(8, 24, 30, 31, generator=torch.Generator().manual_seed(3))
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    channels = 1 if layout == "layer" else 24
    scale, location = parameters(3, channels, torch.float32)
    grad = torch.randn_like(x)

    def run() -> list[Tensor]:
        inputs = [t.detach().requires_grad_() for t in (x, scale, location)]
        y = combined(*inputs, "silu", granularity="layer" if layout == "layer" else "channel")
        return [y.detach(), *torch.autograd.grad(y, inputs, grad)]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        once = run()
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(run(), once, strict=True))
    finally:
        torch.set_num_threads(before)


def test_transforms_and_tracing() -> None:
    module = ag.CombinedAgile("silu", 3, terms=2)
    with torch.no_grad():
        module.scale.add_(torch.linspace(-1, 1, 6))
    x = torch.randn(5, 3, 4)
    compiled: Any = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))
    scale, location = module.scale_by_term.detach(), module.location_by_term.detach()

    def loss(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        total: Tensor = combined(x, a, b, "silu").square().sum()
        return total

    each = torch.vmap(torch.func.grad(loss, (0, 1, 2)), (0, None, None))(x.unsqueeze(1), scale, location)
    for index, sample in enumerate(x.unsqueeze(1)):
        for one, other in zip(each, torch.func.grad(loss, (0, 1, 2))(sample, scale, location), strict=True):
            torch.testing.assert_close(one[index], other)
    many = torch.stack([scale, -scale])
    both = torch.vmap(lambda a: combined(x, a, location, "silu"))(many)
    torch.testing.assert_close(both[0], -both[1])
    tangents = (torch.ones_like(x), torch.ones_like(scale), torch.ones_like(location))
    along: Any = torch.func.jvp(lambda *t: combined(*t, "silu"), (x, scale, location), tangents)[1]
    gradients = torch.func.jacrev(lambda *t: combined(*t, "silu"), (0, 1, 2))(x, scale, location)
    torch.testing.assert_close(along, sum(g.flatten(3).sum(-1) for g in gradients), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not CPU.loaded, reason="the default kernels save more")
def test_saves_the_input_and_nothing_else() -> None:
    saved: list[Tensor] = []

    def keep(t: Tensor) -> Tensor:
        saved.append(t)
        return t

    x, module = torch.randn(4, 3, 5, 5, requires_grad=True), ag.CombinedAgile("relu", 3, terms=3)
    with torch.no_grad():
        module.scale.add_(0.1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        module(x)
    assert {t.data_ptr() for t in saved if t.numel() > 9} == {x.data_ptr()}
