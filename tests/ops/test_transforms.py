"""What PyTorch does with an operator: derivatives of derivatives, tracing, mapping, casting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import agileact as ag
from agileact.ops import CPU
from tests.cases import Case, parameters
from tests.ops.test_agile import FUSED_CASES, FUSED_IDS

agile: Any = ag.functional.agile
SMALL = [case for case in FUSED_CASES if case.base in ("relu", "sigmoid", "gelu", "softplus")]
SMALL_IDS = [case.id for case in SMALL]
LAYOUTS: dict[str, tuple[tuple[int, ...], int]] = {"nodes": ((4, 3), 1), "filters": ((2, 3, 2, 2), 1)}


def _inputs(shape: tuple[int, ...], dim: int, *, zero: bool = False) -> list[Tensor]:
    # Away from kinks, where a difference quotient means nothing.
    x = torch.linspace(-2.05, 2.15, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)
    scale = torch.tensor([-1.5, 0.0 if zero else 0.6, 1.25], dtype=torch.float64)
    location = torch.tensor([0.013, -0.017, 0.011], dtype=torch.float64)
    return [t.requires_grad_() for t in (x, scale, location)]


def _function(case: Case, dim: int) -> Callable[..., Tensor]:
    return lambda x, a, b: agile(x, a, b, case.base, dim, **case.options)


@pytest.mark.parametrize("zero", [False, True], ids=["from-output", "from-input"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", FUSED_CASES, ids=FUSED_IDS)
def test_gradcheck(case: Case, layout: str, zero: bool) -> None:
    shape, dim = LAYOUTS[layout]
    inputs = _inputs(shape, dim, zero=zero)
    assert torch.autograd.gradcheck(_function(case, dim), inputs)
    if case.base != "hardsigmoid" or CPU.loaded:
        assert torch.autograd.gradgradcheck(_function(case, dim), inputs)


@pytest.mark.skipif(not CPU.loaded, reason="without the compiled kernels there is no forward mode")
@pytest.mark.parametrize("case", SMALL, ids=SMALL_IDS)
def test_forward_mode(case: Case) -> None:
    assert torch.autograd.gradcheck(_function(case, 1), _inputs((4, 3), 1), check_forward_ad=True)


@pytest.mark.skipif(not CPU.loaded, reason="the operators' autograd is in the compiled library")
@pytest.mark.parametrize("case", SMALL, ids=SMALL_IDS)
def test_opcheck(case: Case) -> None:
    name, p, q = {"softplus": ("softplus", 1.0, 20.0)}.get(case.base, (case.base, 0.0, 0.0))
    for shape, dim in LAYOUTS.values():
        inputs = [t.detach().float().requires_grad_() for t in _inputs(shape, dim)]
        torch.library.opcheck(torch.ops.agileact.agile.default, (*inputs, name, p, q, dim, 1))
        grad = torch.ones(shape, requires_grad=True)
        torch.library.opcheck(torch.ops.agileact.agile_backward.default, (grad, *inputs, name, p, q, dim, 1, 1, False))


@pytest.mark.parametrize("case", SMALL, ids=SMALL_IDS)
def test_compiled_without_a_break_and_equal(case: Case) -> None:
    function = _function(case, 1)
    # The eager backend traces as any other does; what a C++ compiler makes of it is not ours to test.
    compiled: Any = torch.compile(function, fullgraph=True, backend="aot_eager")
    inputs = [t.detach().float().requires_grad_() for t in _inputs((2, 3, 2, 2), 1)]
    for zero in (False, True):
        if zero:
            with torch.no_grad():
                inputs[1][1] = 0.0
        results = []
        for run in (function, compiled):
            y = run(*inputs)
            results.append((y, *torch.autograd.grad(y, inputs, torch.ones_like(y))))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_exported() -> None:
    module = ag.AgileSigmoid(3)
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        module.scale.mul_(1.3)
    program = torch.export.export(module, (x,))
    torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.parametrize("case", SMALL, ids=SMALL_IDS)
def test_vmap_and_grad(case: Case) -> None:
    x, scale, location = (t.detach() for t in _inputs((2, 3, 2, 2), 1))
    many = torch.stack([x, x + 0.3, x - 0.4])

    def loss(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return _function(case, 1)(x, a, b).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss, (0, 1, 2)), (0, None, None))(many, scale, location)
    for index, sample in enumerate(many):
        single = torch.func.grad(loss, (0, 1, 2))(sample, scale, location)
        for one, other in zip(per_sample, single, strict=True):
            torch.testing.assert_close(one[index], other)
    ensemble = torch.func.vmap(_function(case, 1), (None, 0, 0), 1)(
        x, torch.stack([scale, -scale]), torch.stack([location, location])
    )
    torch.testing.assert_close(ensemble[:, 0], -ensemble[:, 1])


@pytest.mark.parametrize("case", SMALL, ids=SMALL_IDS)
def test_hessian_vector_product(case: Case) -> None:
    x, scale, location = (t.detach() for t in _inputs((4, 3), 1))

    def loss(a: Tensor) -> Tensor:
        return _function(case, 1)(x, a, location).square().sum()

    hessian = torch.func.jacrev(torch.func.grad(loss))(scale)
    expected = torch.autograd.functional.hessian(lambda a: (a * case.native(x - location)).square().sum(), scale)
    torch.testing.assert_close(hessian, expected)


def test_autocast_leaves_the_dtypes_alone() -> None:
    layer, module = torch.nn.Linear(8, 5), ag.AgileGELU(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(layer(torch.randn(4, 8)))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert module.scale.grad is not None
    assert module.scale.grad.dtype == torch.float32


@pytest.mark.skipif(not CPU.loaded, reason="the default kernels save the input")
@pytest.mark.parametrize("base", ["relu", "sigmoid", "tanh", "leaky_relu", "elu", "softplus"])
def test_saves_the_output_and_nothing_else(base: str) -> None:
    saved: list[Tensor] = []
    x, (scale, location) = torch.randn(4, 3, 5, 5, requires_grad=True), parameters(3, torch.float32)
    scale = scale.abs().clamp(min=0.1).requires_grad_()

    def keep(t: Tensor) -> Tensor:
        saved.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = agile(x, scale, location, base)
    large = {t.untyped_storage().data_ptr() for t in saved if t.numel() > 3}
    assert large == {y.untyped_storage().data_ptr()}


@pytest.mark.skipif(not CPU.loaded, reason="a matter of the compiled kernels")
def test_a_third_derivative_is_refused_by_name() -> None:
    inputs = _inputs((4, 3), 1)
    y = agile(*inputs, "sigmoid").sum()
    (first,) = torch.autograd.grad(y, inputs[0], create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="two derivatives and no third"):
        torch.autograd.grad(second.sum(), inputs[0])
