"""torch.compile, torch.export, torch.func, autocast, higher derivatives, for Agile and CombinedAgile."""

from __future__ import annotations

import shutil
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import agileact as ag

MAKERS = {
    "relu": lambda **o: ag.AgileReLU(3, **o),
    "sigmoid": lambda **o: ag.AgileSigmoid(3, **o),
    "gelu-last": lambda **o: ag.AgileGELU(5, dim=-1, **o),
    "layer": lambda **o: ag.Agile("softplus", granularity="layer", beta=2.0, **o),
    "element": lambda **o: ag.Agile("softsign", (3, 5), granularity="element", **o),
    "combined": lambda **o: ag.CombinedAgile("tanh", 3, terms=3, **o),
}
DOUBLE = torch.float64


@pytest.fixture(params=MAKERS, ids=list(MAKERS))
def make(request: pytest.FixtureRequest) -> Any:
    def moved(**options: Any) -> Any:
        module = MAKERS[request.param](**options)
        with torch.no_grad():
            module.scale.copy_(torch.linspace(-1.5, 2.0, module.scale.numel()))
            module.location.copy_(torch.linspace(0.75, -1.0, module.location.numel()))
        return module

    return moved


def _gradients(module: Any, call: Any, x: Tensor) -> list[Tensor]:
    x = x.detach().clone().requires_grad_()
    out = call(x)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [x, module.scale, module.location])]


def _f(module: Any) -> Any:
    """The module as a function of its input and its parameters."""
    return lambda x, scale, location: functional_call(module, {"scale": scale, "location": location}, (x,))


class TestCompile:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_one_graph_with_the_same_result(self, make, dtype):
        torch._dynamo.reset()
        module = make()
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        x = torch.randn(4, 3, 5).to(dtype)
        # Eager mode recovers f from the rounded output; a traced graph keeps the input.
        rtol, atol = (3e-2, 2e-2) if dtype == torch.bfloat16 else (1.3e-6, 1e-5)
        for one, other in zip(_gradients(module, compiled, x), _gradients(module, module, x), strict=True):
            torch.testing.assert_close(one, other, rtol=rtol, atol=atol)

    def test_new_values_and_sizes_need_no_new_graph_each(self):
        torch._dynamo.reset()
        counter = torch._dynamo.testing.CompileCounter()
        module = ag.AgileReLU(3)
        compiled = torch.compile(module, backend=counter, fullgraph=True)
        for size in (4, 5, 6, 7, 8):
            with torch.no_grad():
                module.scale.add_(0.5)
                module.location.sub_(0.25)
            x = torch.randn(size, 3, 5)
            torch.testing.assert_close(compiled(x), module(x))
        assert counter.frame_count <= 2  # one for the first size, one for any size

    @pytest.mark.skipif(shutil.which("g++") is None, reason="the inductor needs a C++ compiler")
    def test_inductor(self):
        torch._dynamo.reset()
        model = ag.AgileSigmoid(3)
        compiled = torch.compile(model, fullgraph=True)
        x = torch.randn(2, 3, 6, 6)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
        compiled(x).square().sum().backward()
        found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        model.zero_grad()
        model(x).square().sum().backward()
        for one, parameter in zip(found, model.parameters(), strict=True):
            torch.testing.assert_close(one, parameter.grad, rtol=1e-3, atol=1e-4)

    def test_a_wrong_input_is_still_an_error(self):
        torch._dynamo.reset()
        compiled = torch.compile(ag.AgileReLU(3), backend="eager")
        with pytest.raises(ag.ArgumentError, match="4 channels"):
            compiled(torch.zeros(2, 4))


@pytest.mark.parametrize("strict", [False, True])
def test_export(make, strict):
    module = make()
    x = torch.randn(4, 3, 5)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: batch},), strict=strict)
    assert set(program.state_dict) == {"scale", "location"}
    for size in (4, 7):
        x = torch.randn(size, 3, 5)
        torch.testing.assert_close(program.module()(x), module(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_jit_trace_can_be_saved(make, tmp_path):
    module = make()
    x = torch.randn(4, 3, 5)
    with warnings.catch_warnings():
        # The checks of shapes run in Python, so the trace is one for the sizes of its example.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        traced = torch.jit.trace(module, (x,))
    traced.save(str(tmp_path / "traced.pt"))
    torch.testing.assert_close(torch.jit.load(str(tmp_path / "traced.pt"))(x), module(x))


class TestFunc:
    def test_per_sample_gradients(self, make):
        module = make(dtype=DOUBLE)
        f = _f(module)
        x = torch.randn(6, 3, 5, dtype=DOUBLE)
        parameters = (module.scale.detach(), module.location.detach())

        def loss(scale: Tensor, location: Tensor, sample: Tensor) -> Any:
            return f(sample.unsqueeze(0), scale, location).square().sum()

        found = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, None, 0))(*parameters, x)
        for index in range(6):
            leaves = [one.clone().requires_grad_() for one in parameters]
            expected = torch.autograd.grad(loss(leaves[0], leaves[1], x[index]), leaves)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one[index], other)

    def test_vmap_over_models(self, make):
        module = make(dtype=DOUBLE)
        f = _f(module)
        x = torch.randn(4, 3, 5, dtype=DOUBLE)
        scales = torch.stack([module.scale.detach() * k for k in (1.0, 2.0, -1.0)])
        locations = torch.stack([module.location.detach() + k for k in (0.0, 1.0, 2.0)])
        found = vmap(f, in_dims=(None, 0, 0))(x, scales, locations)
        for index in range(3):
            torch.testing.assert_close(found[index], f(x, scales[index], locations[index]))
        weighted = vmap(lambda *a: vjp(f, *a)[1](torch.ones_like(x))[1], in_dims=(None, 0, 0))(x, scales, locations)
        assert weighted.shape == scales.shape

    def test_forward_mode_is_reverse_mode(self, make):
        module = make(dtype=DOUBLE)
        f = _f(module)
        primals = (torch.randn(2, 3, 5, dtype=DOUBLE), module.scale.detach(), module.location.detach())
        tangents = tuple(torch.randn_like(primal) for primal in primals)
        cotangent = torch.randn_like(primals[0])
        value, pushed, *_ = jvp(f, primals, tangents)
        torch.testing.assert_close(value, f(*primals))
        pulled = vjp(f, *primals)[1](cotangent)
        inner = sum((one * other).sum() for one, other in zip(pulled, tangents, strict=True))
        torch.testing.assert_close((pushed * cotangent).sum(), inner)

    def test_all_orders_of_second_derivatives_agree(self, make):
        module = make(dtype=DOUBLE)
        f = _f(module)
        x, location = torch.randn(2, 3, 5, dtype=DOUBLE), module.location.detach()

        def loss(scale: Tensor) -> Any:
            return f(x, scale, location).pow(3).sum()

        scale = module.scale.detach()
        expected = torch.autograd.functional.hessian(loss, scale)
        for second in (hessian, lambda g: jacrev(jacrev(g)), lambda g: jacfwd(jacfwd(g)), lambda g: jacrev(jacfwd(g))):
            torch.testing.assert_close(second(loss)(scale), expected)


def test_double_backward(make):
    module = make(dtype=DOUBLE)
    f = _f(module)
    start = (torch.randn(2, 3, 5, dtype=DOUBLE) + 0.3, module.scale.detach(), module.location.detach())
    leaves = tuple(leaf.clone().requires_grad_() for leaf in start)
    assert torch.autograd.gradcheck(f, leaves, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(f, leaves, check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast(make, dtype):
    module = make()
    x = torch.randn(4, 3, 5).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out, module(x))
    out.float().sum().backward()
    assert module.scale.grad.dtype == torch.float32


def test_a_network_under_autocast_trains():
    model = nn.Sequential(nn.Linear(8, 16), ag.AgileGELU(16), nn.Linear(16, 2), ag.CombinedAgile("relu", 2))
    optimizer = torch.optim.SGD(ag.param_groups(model, lr=0.1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(torch.randn(32, 8))
        assert out.dtype == torch.bfloat16
    out.float().square().mean().backward()
    optimizer.step()
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("base", ag.bases.names())
def test_every_base_under_vmap_and_compile(base):
    torch._dynamo.reset()
    x, scale, location = torch.randn(3, 4, 2), torch.randn(3, 2), torch.randn(3, 2)

    def f(x: Tensor, scale: Tensor, location: Tensor) -> Tensor:
        return ag.functional.agile(x, scale, location, base)

    expected = torch.stack([f(*one) for one in zip(x, scale, location, strict=True)])
    torch.testing.assert_close(vmap(f)(x, scale, location), expected)
    compiled = torch.compile(f, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x[0], scale[0], location[0]), expected[0])
