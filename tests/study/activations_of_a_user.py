"""Activations as users write them: classes, what makes them, functions, a module, and what does not work."""

from __future__ import annotations

import torch
from torch import nn

import agileact as ag


class Slope(nn.Module):
    """Asks for its channels, and draws what it begins with."""

    def __init__(self, width, start=0.25):
        super().__init__()
        self.slope = nn.Parameter(start * torch.rand(width))

    def forward(self, x):
        slope = self.slope.view(1, -1, *[1] * (x.ndim - 2)) if x.ndim > 1 else self.slope
        return torch.where(x > 0, x, slope * x)


class TrailingSlope(nn.Module):
    """Takes its channels from the last axis, as broadcasting does."""

    def __init__(self, channels):
        super().__init__()
        self.slope = nn.Parameter(torch.rand(channels))

    def forward(self, x):
        return torch.where(x > 0, x, self.slope * x)


class OneSlope(nn.Module):
    """Asks for nothing."""

    def __init__(self, slope=0.1):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, x):
        return torch.where(x > 0, x, self.slope * x)


class AlongAxis(nn.Module):
    def __init__(self, channels, dim):
        super().__init__()
        self.size, self.axis = channels, dim

    def forward(self, x):
        assert x.shape[self.axis] == self.size
        return x.tanh()


class Scaled(nn.Module):
    """Keeps the mean size of what it saw, in place, and divides by it."""

    size: torch.Tensor

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("size", torch.ones(channels))

    def forward(self, x):
        if self.training:
            self.size.mul_(0.9).add_(0.1 * x.detach().abs().mean(0))
        return x.tanh() / self.size


class Noisy(nn.Module):
    """Draws random numbers while it trains."""

    def forward(self, x):
        return x.tanh() + 0.1 * torch.randn_like(x) * self.training


class Chosen(nn.Module):
    """Chooses by a number that only one network has."""

    def forward(self, x):
        return x.relu() if x.mean() > 0 else x.tanh()


class Drawn(nn.Module):
    """Draws what it keeps in no parameter or buffer."""

    def __init__(self):
        super().__init__()
        self.slope = 0.1 + 0.3 * torch.rand(())

    def forward(self, x):
        return torch.where(x > 0, x, self.slope * x)


class Remembers(nn.Module):
    """Keeps a state in another tensor each time."""

    seen: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.seen = self.seen + x.detach().mean()
        return x.tanh() + self.seen


def make(channels, start=0.1):
    return Slope(channels, start)


def make_alone():
    return OneSlope(0.3)


def cubed(x, factor=1.0):
    return factor * x**3


READY = nn.Softplus()


class Gated(nn.Module):
    def forward(self, x):
        return x.chunk(2, 1)[0]


def broken():
    raise RuntimeError("not today")


def number():
    return 3


if "swoosh" not in ag.bases.names():
    ag.register_base("swoosh", lambda x: x * torch.sigmoid(1.5 * x))


def network():
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


class Sequences(nn.Module):
    """Channels are the last of three axes."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)

    def forward(self, x):
        return self.second(self.act(self.first(x))).mean(1)


def own_network():
    return nn.Sequential(nn.Linear(8, 6), OneSlope(), nn.Linear(6, 3))


def load():
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    y = x[:, :3].argmax(1)
    return (x[:120], y[:120]), (x[120:150], y[120:150]), (x[150:], y[150:])
