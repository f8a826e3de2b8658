"""Conversion with a comparison to the bit, and small networks with activations wherever people put them."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag
from agileact.transforms.report import ConversionReport
from agileact.transforms.trace.recording import tensors


class Block(nn.Module):
    """A residual block with one activation module at two places."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.first(x))
        return self.relu(x + self.second(y))  # type: ignore[no-any-return]


class Functional(nn.Module):
    """Functions, methods, options, several lines, a call inside a call, and no module at all."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.second = nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(
            self.first(x),  # a comment that goes
            negative_slope=0.2,
        )
        x = torch.relu(self.second(F.elu(x, 1.5)))
        return (
            x + 1
        ).sigmoid().tanh()  # fmt: skip


class Attribute(nn.Module):
    """A function kept as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.activation = F.relu
        self.smooth = functools.partial(F.gelu, approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        return self.smooth(self.activation(self.layer(x)))


class Swish(nn.Module):
    """An activation that computes its own formula."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class OwnGELU(nn.Module):
    """A wrapper around one function, as in transformers."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class LSTMClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.head = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.embedding(tokens))
        return self.head(hidden[:, -1])  # type: ignore[no-any-return]


class Cell(nn.Module):
    """A recurrent cell written by hand: all of its activations are gates."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(3 + 4, 16)

    def forward(self, x: Tensor) -> Tensor:
        hidden = cell = x.new_zeros(x.shape[0], 4)
        for step in range(x.shape[1]):
            i, f, g, o = self.gates(torch.cat([x[:, step], hidden], 1)).chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
        return hidden


class SqueezeExcite(nn.Module):
    """A gate written as functions, in another shape before it multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.reduce = nn.Linear(4, 2)
        self.expand = nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        gate = torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


def bits(tensor: Tensor) -> Tensor:
    """The bits of a tensor, so that 0 and -0 differ, and NaN equals itself."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.detach().contiguous().view(integer)


def converted(model: nn.Module, example: Any, **options: Any) -> tuple[nn.Module, ConversionReport]:
    """Convert, and compare the outputs to the bit in both modes; the model itself must not change."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = repr(model)
    agile, report = ag.convert(model, example_inputs=example, **options)
    assert repr(model) == text
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if options.get("base") is None:
        args = example if isinstance(example, tuple) else (example,)
        for training in (False, True):
            torch.manual_seed(0)
            expected = list(tensors(copy.deepcopy(model).train(training)(*args)))
            torch.manual_seed(0)
            result = list(tensors(copy.deepcopy(agile).train(training)(*args)))
            assert len(result) == len(expected) > 0
            for one, other in zip(result, expected, strict=True):
                assert torch.equal(bits(one), bits(other))
    return agile, report


def sites(report: ConversionReport) -> dict[str, tuple[str, int, int | None]]:
    return {site.name: (site.base, site.channels, site.dim) for site in report.converted}
