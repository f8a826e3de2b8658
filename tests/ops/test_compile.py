"""Under a compiler an activation is an expression that fuses with its neighbours, not an operator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import agileact as ag
from tests.cases import CASES, Case, parameters

SOME = [case for case in CASES if case.base in ("relu", "silu", "elu")]
MODULES: dict[str, Callable[[], nn.Module]] = {
    "agile": lambda: ag.AgileSiLU(3),
    "in place": lambda: ag.Agile("relu", 3, inplace=True),
    "combined": lambda: ag.CombinedAgile("relu", 3, terms=3),
    "pool": lambda: ag.AgileMaxPool2d(3, 2, base="silu"),
    "layer": lambda: ag.Agile("gelu", granularity="layer"),
}


def network(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), activation)


def off_start(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in ("scale", "location"):
                parameter.add_(torch.linspace(-0.4, 0.3, parameter.numel()))
    return module


@pytest.mark.parametrize("name", MODULES)
def test_no_operator_is_left_in_the_graph(name: str) -> None:
    # What another test compiled of the same classes may have made Dynamo give up on them.
    torch.compiler.reset()
    called: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        called.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    model: Any = torch.compile(network(MODULES[name]()), fullgraph=True, backend=backend)
    model(torch.randn(2, 3, 4, 4)).sum().backward()
    assert called
    assert not [target for target in called if "agileact" in target]


def compilations(activation: nn.Module) -> int:
    torch.compiler.reset()
    counter = CompileCounter()
    model = network(activation)
    compiled: Any = torch.compile(model, backend=counter)
    for batch in (2, 3, 5, 7):
        compiled(torch.randn(batch, 3, 4, 4)).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0)
    compiled(torch.randn(5, 3, 4, 4))
    model.eval()
    with torch.no_grad():
        compiled(torch.randn(5, 3, 4, 4))
    compiled(torch.randn(5, 3, 4, 4).contiguous(memory_format=torch.channels_last))
    model.double()
    compiled(torch.randn(5, 3, 4, 4, dtype=torch.float64))
    return counter.frame_count


@pytest.mark.parametrize("name", MODULES)
def test_compiles_no_more_often_than_a_plain_activation(name: str) -> None:
    plain = nn.Sequential(nn.SiLU(), nn.MaxPool2d(2)) if name == "pool" else nn.SiLU()
    assert compilations(MODULES[name]()) <= compilations(plain)


@pytest.mark.parametrize("name", MODULES)
def test_exported(name: str) -> None:
    module = off_start(MODULES[name]()).eval()
    x = torch.randn(2, 3, 4, 4)
    program = torch.export.export(module, (x.clone(),))
    assert not [node for node in program.graph.nodes if "agileact" in str(node.target)]
    torch.testing.assert_close(program.module()(x.clone()), module(x.clone()))


def results(function: Any, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, torch.ones_like(y))]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.base in ("relu", "silu", "elu")], ids=lambda case: case.id
)
def test_values_and_gradients_under_inductor(case: Case, dtype: torch.dtype) -> None:
    torch.compiler.reset()
    x = torch.randn(3, 5, 7, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    inputs = [x, *parameters(5, torch.float32)]

    def function(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return ag.functional.agile(x, a, b, case.base, **case.options)

    def formula(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return a.view(-1, 1, 1) * case.formula(x - b.view(-1, 1, 1))

    got = results(torch.compile(function, fullgraph=True), inputs)
    assert got[0].dtype == dtype
    close = 1e-5 if dtype == torch.float32 else 2e-2
    for one, other in zip(got, results(formula, [t.double() for t in inputs]), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=close, atol=close * max(1.0, float(other.abs().max())))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PyTorch's own use of what it deprecates
def test_ahead_of_time(tmp_path: Path) -> None:
    model = nn.Sequential(*(off_start(network(MODULES[name]())) for name in ("agile", "combined", "pool"))).eval()
    x = torch.randn(2, 3, 8, 8)
    program = torch.export.export(model, (x,))
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    torch.testing.assert_close(torch._inductor.aoti_load_package(package)(x), model(x), rtol=1e-5, atol=1e-5)
