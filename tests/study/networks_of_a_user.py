"""Models and data as a user would write them, for the tests of agileact compare."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
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


def raises() -> nn.Module:
    raise KeyError("boom")


def no_module() -> int:
    return 3


NUMBER = 3


def pairs() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 8, generator=generator)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return (x[:150], y[:150]), (x[150:], y[150:])


def unequal() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    (x, y), test = pairs()
    return (x, y[:-3]), test


def regression() -> list[tuple[object, object]]:
    x = np.random.default_rng(0).normal(size=(90, 8))
    return [(x[i : i + 30], x[i : i + 30].sum(1)) for i in (0, 30, 60)]


def text() -> list[tuple[Tensor, Tensor]]:
    codes = torch.arange(60).remainder(7).view(12, 5)
    return [(codes, (codes + 1) % 7)] * 3


def whole() -> object:
    return make_data()


def integers() -> list[tuple[Tensor, Tensor]]:
    return [(torch.zeros(4, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))] * 2


def one_pair() -> tuple[Tensor, Tensor]:
    return torch.zeros(3), torch.zeros(3)


class Functional(nn.Module):
    """Functions and a method in place of modules, tokens in the last axis but one, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense, self.output = nn.Conv2d(1, 3, 3), nn.Linear(108, 7), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).flatten(1)
        x = torch.tanh(self.dense(x).relu_())
        return self.output(x * torch.sigmoid(x.mean(1, keepdim=True)))  # type: ignore[no-any-return]


class FunctionalOther(Functional):
    """Another function at one place; modules and weights are the same."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv(x)).flatten(1)
        x = torch.tanh(self.dense(x).relu_())
        return self.output(x * torch.sigmoid(x.mean(1, keepdim=True)))  # type: ignore[no-any-return]


def outside(x: Tensor) -> Tensor:
    return F.relu(x)


class Outside(nn.Module):
    """An activation in a function that belongs to no module."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return outside(self.layer(x))


class NoChannels(nn.Module):
    """An activation behind a mean over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.output = nn.Conv2d(1, 3, 3), nn.Linear(36, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.softplus(F.elu(self.conv(x)).mean(1))
        return self.output(x.flatten(1))  # type: ignore[no-any-return]


class Learned(nn.Module):
    """An activation that learns a slope of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.slope, self.b = nn.Linear(8, 6), nn.PReLU(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.slope(self.a(x)))  # type: ignore[no-any-return]


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Linear(4, 8), layer, nn.Flatten(), nn.Linear(16, 3))


class VisionTransformer(nn.Module):
    """A model of transformers, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import ViTConfig, ViTForImageClassification

        config = ViTConfig(  # type: ignore[call-arg]
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=12,
            image_size=8,
            patch_size=4,
            num_channels=1,
            num_labels=4,
        )
        self.body = ViTForImageClassification(config)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(pixel_values=x).logits
        return logits


def tokens() -> list[tuple[Tensor, Tensor]]:
    codes = torch.arange(80).remainder(7).view(16, 5)
    return [(codes, codes[:, 0].remainder(2))] * 3


def of_tokens() -> nn.Module:
    return nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.ReLU(), nn.Linear(32, 3))


def fixed() -> nn.Module:
    return dense().requires_grad_(False)


def sizeless() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3))


Pairs = tuple[tuple[Tensor, Tensor], ...]


def numbers() -> Pairs:
    x = torch.linspace(-1, 1, 320).reshape(40, 8)
    return tuple((x[part], torch.arange(40)[part] % 3) for part in (slice(20), slice(20, 30), slice(30, None)))


def odd_validation() -> Pairs:
    train, (x, y), test = numbers()
    return train, (x[:, :7], y), test


def sparse() -> Pairs:
    return tuple((x.to_sparse(), y) for x, y in numbers())


def elsewhere() -> Pairs:
    return tuple((x.to("meta"), y) for x, y in numbers())


def of_text() -> tuple[tuple[object, Tensor], ...]:
    return tuple((np.array([["a"] * 8] * len(y)), y) for _, y in numbers())


def in_a_graph() -> Pairs:
    return tuple((x.requires_grad_() * 2, y) for x, y in numbers())
