"""Random small networks out of the idioms that people write, for Hypothesis.

``networks()`` draws a :class:`Drawn`: a plain network (nothing of it is agile yet), what it is run on, and a seed.
``convert`` makes it agile; ``set_pairs`` then gives the agile modules scales (also negative and zero) and locations.

A network is a chain of parts. Each part is one idiom, has activations of its own, and keeps the number of channels:

==================  =================================================================================================
part                what it is
==================  =================================================================================================
``Layers``          a Sequential of layer, norm or none, activation module, layer
``Functional``      an activation as a function: F.relu(x), torch.tanh(x), x.sigmoid()
``Loop``            a loop over layers around one call of a function or of one module; widths may differ
``Shared``          one activation module at two places
``TwoNames``        one activation module under two names, which runs once
``Closure``         a lambda kept as an attribute that calls modules of its own
``Listed``          an activation module in a plain list, and one that is made in ``forward``
``Formula``         an activation written out in one statement or several: x * sigmoid(x), x * (x > 0), sin, GELU, ...
``Auxiliary``       an activation and a head that run in training alone; their result is added to the outputs
``Normed``          batch, layer, group or instance norm before an activation
``Pooled``          max or average pooling (for maps), a maximum over neighbours (for rows)
``Residual``        x + f(x), with the activation behind the sum or inside
``Joined``          two branches put beside each other, then a layer
``Gathered``        rows picked by an index and added up at another, as graph networks do (for rows)
==================  =================================================================================================

There are two settings: rows (N, C) with linear layers and maps (N, C, H, W) with convolutions. The head is a mean over
the map, and a linear layer. All is float64 if ``double`` is drawn. Nothing is random in ``forward``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

import agileact as ag

MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
    "hardtanh": nn.Hardtanh,
    "softplus": nn.Softplus,
}


@dataclass(frozen=True)
class Setting:
    """What is common to the parts of one network."""

    channels: int
    maps: bool
    activation: str
    norm: str
    choice: int

    def layer(self, inside: int, outside: int) -> nn.Module:
        return nn.Conv2d(inside, outside, 3, padding=1) if self.maps else nn.Linear(inside, outside)

    def made(self) -> nn.Module:
        return MODULES[self.activation]()

    def normed(self, channels: int) -> nn.Module:
        if self.norm == "batch":
            return nn.BatchNorm2d(channels) if self.maps else nn.BatchNorm1d(channels)
        if self.norm == "group":
            return nn.GroupNorm(1, channels)
        if self.norm == "instance" and self.maps:
            return nn.InstanceNorm2d(channels, affine=True)
        if self.norm == "layer" and not self.maps:
            return nn.LayerNorm(channels)
        return nn.Identity()


class Part(nn.Module):
    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.first = setting.layer(setting.channels, setting.channels + 1)
        self.second = setting.layer(setting.channels + 1, setting.channels)


class Layers(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.body = nn.Sequential(self.first, setting.normed(setting.channels + 1), setting.made(), self.second)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class Functional(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.choice = setting.choice % 4

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.choice == 0:
            x = F.relu(x)
        elif self.choice == 1:
            x = torch.tanh(x)
        elif self.choice == 2:
            x = x.sigmoid()
        else:
            x = F.leaky_relu(
                x,
                negative_slope=0.3,
            )
        return self.second(x)  # type: ignore[no-any-return]


class Loop(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        between = setting.layer(setting.channels + 1, setting.channels + 1)
        self.layers = nn.ModuleList([self.first, between, self.second][: 2 + setting.choice % 2])
        self.last = setting.layer(setting.channels + 1, setting.channels)
        self.one_module = setting.choice >= 4
        if self.one_module:
            self.act = setting.made()

    def forward(self, x: Tensor) -> Tensor:
        if self.one_module:
            for layer in self.layers[:2]:
                x = self.act(layer(x))
            return self.last(x)  # type: ignore[no-any-return]
        for layer in self.layers[:2]:
            x = F.relu(layer(x))
        return self.last(x)  # type: ignore[no-any-return]


class Shared(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.act = setting.made()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.first(x))))  # type: ignore[no-any-return]


class TwoNames(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.act = setting.made()
        self.body = nn.Sequential(self.first, self.act, self.second)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class Closure(Part):
    """A lambda that looks its module up when it runs: a copy of it has modules of its own."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.act = setting.made()
        self.through = lambda part, x: part.second(part.act(part.first(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.through(self, x)  # type: ignore[no-any-return]


class Listed(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.acts = [setting.made()]
        self.made_inside = setting.choice % 2 == 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = nn.ReLU()(x) if self.made_inside else self.acts[0](x)
        return self.second(x)  # type: ignore[no-any-return]


class Formula(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.choice = setting.choice

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.choice == 0:
            h = h * torch.sigmoid(h)
        elif self.choice == 1:
            h = torch.sin(h)
        elif self.choice == 2:
            h = h * (h > 0)
        elif self.choice == 3:
            h = torch.where(h > 0, h, 0.1 * h)
        elif self.choice == 4:
            h = torch.maximum(h, torch.zeros_like(h))
        elif self.choice == 5:
            h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        elif self.choice == 6:
            h = torch.exp(-(h**2))
        elif self.choice == 7:
            h = F.softplus(h) - math.log(2)
        elif self.choice == 8:
            gate = torch.sigmoid(h)
            h = h * gate
        elif self.choice == 9:
            inner = math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)
            cdf = 0.5 * (1 + torch.tanh(inner))
            return self.second(h * cdf)  # type: ignore[no-any-return]
        elif self.choice == 10:
            mask, half = h > 0, 1.0
            kept = half * h
            h = kept * mask
        else:
            sine = torch.sin(h)
            square = sine**2
            h = h + square
        return self.second(h)  # type: ignore[no-any-return]


class Auxiliary(Part):
    """In training it keeps a second result, which the network returns beside its own."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.act, self.also = setting.made(), nn.Tanh()
        self.aux = setting.layer(setting.channels + 1, 2)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x))
        self.kept = self.aux(self.also(h)) if self.training else None
        return self.second(h)  # type: ignore[no-any-return]


class Normed(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.norm, self.act = setting.normed(setting.channels + 1), setting.made()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.act(self.norm(self.first(x))))  # type: ignore[no-any-return]


class Pooled(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.act, self.maps, self.choice = setting.made(), setting.maps, setting.choice % 2

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x))
        if not self.maps:
            h = torch.stack([h, h.roll(1, 0)]).amax(0)
        elif self.choice:
            h = F.max_pool2d(h, 3, 1, 1)
        else:
            h = F.avg_pool2d(h, 3, 1, 1)
        return self.second(h)  # type: ignore[no-any-return]


class Residual(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.act, self.behind = setting.made(), setting.choice % 2 == 0

    def forward(self, x: Tensor) -> Tensor:
        if self.behind:
            return self.act(x + self.second(self.first(x)))  # type: ignore[no-any-return]
        return x + self.second(self.act(self.first(x)))  # type: ignore[no-any-return]


class Joined(Part):
    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.act, self.other = setting.made(), nn.ReLU()
        self.join = setting.layer(2 * setting.channels + 1, setting.channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x))
        return self.join(torch.cat([h, self.other(self.second(h))], 1))  # type: ignore[no-any-return]


class Gathered(Part):
    """Messages along edges; maps go through as they are."""

    edges: Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.act, self.maps = setting.made(), setting.maps
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]]))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if not self.maps:
            source, target = self.edges
            h = h + torch.zeros_like(h).index_add(0, target, h[source])
        return self.second(self.act(h))  # type: ignore[no-any-return]


PARTS: tuple[type[Part], ...] = (
    Layers,
    Functional,
    Loop,
    Shared,
    TwoNames,
    Closure,
    Listed,
    Formula,
    Auxiliary,
    Normed,
    Pooled,
    Residual,
    Joined,
    Gathered,
)


class Network(nn.Module):
    """A chain of parts and a head; in training it also returns what the parts keep."""

    def __init__(self, parts: list[Part], setting: Setting) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.head = nn.Linear(setting.channels, 2)
        self.maps = setting.maps

    def forward(self, x: Tensor) -> Any:
        for part in self.parts:
            x = part(x)
        y = self.head(x.mean((2, 3)) if self.maps else x)
        kept = [part.kept for part in self.parts if isinstance(part, Auxiliary) and part.kept is not None]
        return (y, *kept) if kept else y


@dataclass(frozen=True)
class Drawn:
    """A plain network, its example, and a seed for what is done with it."""

    model: Network
    example: Tensor
    seed: int

    def __repr__(self) -> str:
        kinds = [type(part).__name__ for part in self.model.parts]
        return f"Drawn({kinds}, {tuple(self.example.shape)}, {self.example.dtype}, seed={self.seed})\n{self.model}"


@st.composite
def networks(draw: st.DrawFn, parts: tuple[type[Part], ...] = PARTS, most: int = 3) -> Drawn:
    """Draw a network of one to ``most`` parts; it is the same for the same draw."""
    maps, double, seed = draw(st.booleans()), draw(st.booleans()), draw(st.integers(0, 2**16))
    channels = draw(st.integers(2, 4))
    torch.manual_seed(seed)
    made = []
    for kind in draw(st.lists(st.sampled_from(parts), min_size=1, max_size=most)):
        norm = draw(st.sampled_from(["none", "batch", "group", "instance", "layer"]))
        setting = Setting(channels, maps, draw(st.sampled_from(sorted(MODULES))), norm, draw(st.integers(0, 11)))
        made.append(kind(setting))
    model = Network(made, Setting(channels, maps, "relu", "none", 0))
    example = torch.randn((4, channels, 5, 5) if maps else (4, channels))
    return Drawn(model.double(), example.double(), seed) if double else Drawn(model, example, seed)


def set_pairs(model: nn.Module, seed: int, *, negative: bool = True, zero: bool = True) -> None:
    """Give all agile modules scales within 0.5 to 1.5, some of them negative or zero, and locations."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ag.AgileModule):
                scale = 0.5 + torch.rand(module.scale.shape, generator=generator)
                chosen = torch.randint(0, 6, scale.shape, generator=generator)
                if negative:
                    scale = torch.where(chosen == 0, -scale, scale)
                if zero:
                    scale = torch.where(chosen == 1, torch.zeros(()), scale)
                module.scale.copy_(scale)
                module.location.copy_(0.5 * torch.randn(module.location.shape, generator=generator))
