"""Activations by name, as a spec writes them: plain, agile, combined, one of the baselines, or the user's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agileact import baselines, bases
from agileact._common.errors import ArgumentError
from agileact._common.names import suggestion
from agileact.nn import Agile, CombinedAgile
from agileact.study.spec import user_targets
from agileact.study.spec.reading import scalar

_AGILE = "agile-"
_COMBINED = "combined-"


class PlainActivation(nn.Module):
    """The base function f itself, for any registered base; ``rising``: whether f is known never to fall."""

    def __init__(self, base: str, **options: Any) -> None:
        super().__init__()
        self.base = base
        self.options = bases.get(base).resolve(options)
        self.rising = bases.get(base).facts(**self.options).monotone == "increasing"

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x)."""
        return bases.get(self.base).function(x, **self.options)

    def extra_repr(self) -> str:
        """Show the base and its options."""
        return ", ".join([self.base, *(f"{name}={value}" for name, value in self.options.items())])


@dataclass(frozen=True)
class Activation:
    """An activation's name, taken apart: a base, baseline or ``package.module:name`` of a kind, with its options."""

    kind: str  # "plain", "agile", "combined", "baseline" or "user"
    name: str
    options: Mapping[str, Any]

    @property
    def trainable(self) -> bool:
        """Whether it has something to learn."""
        if self.kind == "user":
            return user_targets.learns(self.name, self.options)
        return self.kind != "plain"

    @property
    def needs_channels(self) -> bool:
        """Whether it must be told how many channels there are."""
        if self.kind == "user":
            asked = user_targets.channels_argument(self.name)
            return asked is not None and asked not in self.options
        return self.kind != "plain"

    def build(self, num_parameters: int, dim: int = 1) -> nn.Module:
        """Return the module for ``num_parameters`` channels along ``dim``."""
        options = dict(self.options)
        if self.kind == "plain":
            return PlainActivation(self.name, **options)
        if self.kind == "user":
            return user_targets.build_activation(self.name, num_parameters, dim, options)
        if self.kind == "agile":
            return Agile(self.name, num_parameters, dim=dim, **options)
        if self.kind == "combined":
            return CombinedAgile(self.name, num_parameters, dim=dim, **options)
        return baselines.build(self.name, num_parameters, dim=dim, **options)


def parse_activation(text: str) -> Activation:
    """Take an activation's name apart, and check it.

    A name is a base (``relu``); ``agile-`` or ``combined-`` and a base; or a baseline (``prelu``). Options follow
    behind colons: ``agile-softplus:beta=2:threshold=10``, ``combined-relu:terms=3``, ``snake:frequency=5``. A name
    with a colon and no equals sign is the user's: ``package.module:MyActivation``, ``package.module:make:slope=0.1``.
    """
    if not isinstance(text, str):
        raise ArgumentError(f"an activation must be a name such as 'agile-relu', not {text!r}")
    target = user_targets.target_of(text)
    name, *parts = [target, *text[len(target) :].split(":")[1:]] if target else text.split(":")
    options: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise ArgumentError(f"activation {text!r}: {part!r} is not of the form option=value")
        options[key.strip()] = scalar(value.strip(), words={})
    if target:
        found = Activation("user", target, options)
    elif name in baselines.names():
        found = Activation("baseline", name, options)
    elif name.startswith(_AGILE):
        found = Activation("agile", name.removeprefix(_AGILE), options)
    elif name.startswith(_COMBINED):
        found = Activation("combined", name.removeprefix(_COMBINED), options)
    else:
        found = Activation("plain", name, options)
    if found.kind not in ("baseline", "user") and found.name not in bases.names():
        known = [prefix + base for prefix in ("", _AGILE, _COMBINED) for base in bases.names()]
        known += baselines.names()
        near = suggestion(name, known)
        raise ArgumentError(
            f"unknown activation {name!r}{near}{'' if near else ';'} known: a base ({', '.join(bases.names())}), "
            f"{_AGILE}BASE, {_COMBINED}BASE, a baseline ({', '.join(baselines.names())}), or your own, "
            "package.module:name"
        )
    with torch.random.fork_rng(devices=[]):
        found.build(1)  # its own checks of the options, whose words are better than any here
    return found


def activation(text: str, num_parameters: int, dim: int = 1) -> nn.Module:
    """Build the activation named ``text`` for ``num_parameters`` filters or nodes along ``dim``."""
    return parse_activation(text).build(num_parameters, dim)


def agile_form(text: str) -> str:
    """Return the name of the agile form of a plain activation."""
    if parse_activation(text).kind != "plain":
        raise ArgumentError(f"only a plain activation has an agile form; {text!r} is not plain")
    return _AGILE + text
