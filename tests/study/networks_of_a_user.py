"""Models and data as a user would write them, for the tests of agileact compare."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.study.builders import make_data


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


class Mixed(nn.Module):
    """Convolution, tokens-last dense layers, an activation in place, and one that follows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.first = nn.ReLU(inplace=True)
        self.dense = nn.Linear(6, 7)
        self.second = nn.GELU()
        self.output = nn.Linear(4 * 6 * 7, 4)
        self.last = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.dense(self.first(self.conv(x)).flatten(2).view(-1, 4, 6, 6)))
        return self.output(self.last(x.flatten(1)))  # type: ignore[no-any-return]


class Shared(nn.Module):
    """One activation module at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.activation(self.b(self.activation(self.a(x)))))  # type: ignore[no-any-return]


def functional() -> nn.Module:
    return nn.Linear(8, 3)


def with_arguments(width: int) -> nn.Module:
    return nn.Linear(8, width)


def no_module() -> int:
    return 3


NUMBER = 3


def pairs() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 8, generator=generator)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return (x[:150], y[:150]), (x[150:], y[150:])


def regression() -> list[tuple[object, object]]:
    x = np.random.default_rng(0).normal(size=(90, 8))
    return [(x[i : i + 30], x[i : i + 30].sum(1)) for i in (0, 30, 60)]


def text() -> list[tuple[Tensor, Tensor]]:
    codes = torch.arange(60).remainder(7).view(12, 5)
    return [(codes, (codes + 1) % 7)] * 3


def whole() -> object:
    return make_data()


def integers() -> list[tuple[Tensor, Tensor]]:
    return [(torch.zeros(4, 8, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))] * 2


def one_pair() -> tuple[Tensor, Tensor]:
    return torch.zeros(3), torch.zeros(3)
