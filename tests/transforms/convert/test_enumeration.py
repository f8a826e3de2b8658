"""Modules that run all their children: a call in them cannot become one more child, which would run twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Behind(nn.Sequential):
    """Calls a function behind its children."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class Children(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = F.gelu(child(x))
        return x


class Items(nn.ModuleDict):
    def forward(self, x: Tensor) -> Tensor:
        for _, child in self.items():
            x = torch.tanh(child(x))
        return x


class ButTheLast(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        for child in list(self)[:-1]:
            x = child(x).sigmoid()
        return self[-1](x)  # type: ignore[no-any-return]


class Counted(nn.Module):
    """A child too many stops it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.children()
        return F.relu(second(F.relu(first(x))))


class Kept(nn.Sequential):
    """A function kept as an attribute."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.function = F.relu

    def forward(self, x: Tensor) -> Tensor:
        return self.function(super().forward(x))


def enumerating() -> list[Any]:
    layers = [nn.Linear(4, 4), nn.Linear(4, 4)]
    items = Items({"x": layers[0], "y": layers[1]})
    return [Behind(*layers), Children(), items, ButTheLast(*layers), Counted(), Kept(*layers)]


@pytest.mark.parametrize("model", enumerating(), ids=lambda model: type(model).__name__)
def test_their_calls_are_left_and_named(model: nn.Module):
    agile, report = ag.convert(model, example_inputs=X)
    assert not report.converted
    assert "runs all its children" in report.skipped[0].reason
    assert [name for name, _ in agile.named_modules()] == [name for name, _ in model.named_modules()]
    assert torch.equal(agile(X), model(X))


@pytest.mark.parametrize("model", enumerating(), ids=lambda model: type(model).__name__)
def test_what_stands_beside_them_is_converted(model: nn.Module):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.part, self.relu = nn.Linear(4, 4), model, nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return F.silu(self.part(self.relu(self.before(x))))

    agile, report = ag.convert(Net(), example_inputs=X)
    assert sorted(site.base for site in report.converted) == ["relu", "silu"]
    assert {site.name.split(".")[0] for site in report.skipped} == {"part"}
    # Were a child run a second time, the gradients of its pair would be other ones than those of the equation.
    agile(X).sum().backward()
    assert all(
        module.scale.grad is not None and module.location.grad is not None
        for module in agile.modules()
        if isinstance(module, ag.AgileModule)
    )


def test_modules_in_their_slots_run_once_and_are_converted():
    _, report = ag.convert(Behind(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), example_inputs=X)
    assert [site.name for site in report.converted] == ["1"]
    assert len(report.skipped) == 1
