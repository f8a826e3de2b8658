"""Activations that are made in forward, taken from lists, or written out as mathematics."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import agileact as ag
from tests.transforms.converting import converted, sites
from tests.transforms.random_models import set_pairs

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class _Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(3, 4), nn.Linear(4, 2)


class MadeInForward(_Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(nn.LeakyReLU(0.2)(self.fc(x)))  # type: ignore[no-any-return]


class InAList(_Base):
    def __init__(self) -> None:
        super().__init__()
        self.acts = [nn.Tanh(), nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        return self.acts[1](self.out(self.acts[0](self.fc(x))))  # type: ignore[no-any-return]


class InADict(_Base):
    def __init__(self) -> None:
        super().__init__()
        self.acts = {"relu": nn.ReLU(inplace=True), "gelu": nn.GELU()}
        self.name = "gelu"

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.acts[self.name](self.fc(x)))  # type: ignore[no-any-return]


class Zipped(_Base):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([self.fc, self.out])
        self.acts = [nn.SiLU(), nn.Tanh()]

    def forward(self, x: Tensor) -> Tensor:
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(x))
        return x


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (MadeInForward, {"leaky_relu": ("leaky_relu", 4, -1)}),
        (InAList, {"tanh": ("tanh", 4, -1), "relu": ("relu", 2, -1)}),
        (InADict, {"gelu": ("gelu", 4, -1)}),
        (Zipped, {"silu.0": ("silu", 4, -1), "silu.1": ("tanh", 2, -1)}),
    ],
)
def test_activation_modules_that_are_not_in_the_model(kind: type[nn.Module], expected: dict[str, object]):
    model = kind()
    agile, report = converted(model, X)
    assert sites(report) == expected
    assert all("activation.py" not in site.origin for site in report.sites)
    set_pairs(agile, 0)
    assert torch.equal(copy.deepcopy(agile)(X), agile(X))
    assert not torch.equal(agile(X), model(X))
    assert torch.equal(ag.revert(agile)(X), model(X))
