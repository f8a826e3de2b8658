"""A network small enough to print, folded for real: where a and b go, and what stays and why."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agileact.lab.content.curves import REACH
from agileact.nn import Agile, CombinedAgile
from agileact.transforms import fold

CIRCUITS: dict[str, str] = {
    "linear": "linear → activation → linear",
    "pooling": "convolution → activation → max pooling → linear",
    "norm-before": "linear → BatchNorm → activation → linear",
    "norm-behind": "linear → activation → BatchNorm → linear",
    "softmax": "linear → activation → softmax",
}
"""The networks by name, in words."""

MEANINGS: dict[str, str] = {
    "before.weight": "w: weights into the two nodes",
    "before.bias": "c: biases of the two nodes",
    "normalisation.weight": "γ of the BatchNorm",
    "normalisation.bias": "β of the BatchNorm",
    "activation.scale": "a: sizes of the activations",
    "activation.location": "b: positions of the activations",
    "behind.weight": "v: weights behind the two nodes",
    "behind.bias": "d: bias of the output",
}
"""What the numbers of the networks are, by their name in the state_dict."""

_W, _C, _V, _D = (1.2, -0.8), (0.3, 0.5), (0.9, -1.1), 0.2
_SECOND = (1.0, 0.0)
"""Scale and location of the second node, which the page leaves alone."""

_POINTS = 241


@dataclass(frozen=True)
class Number:
    """A line of the table: values of the agile network, and of the folded one; None where there are none."""

    name: str
    meaning: str
    before: tuple[float, ...] | None
    after: tuple[float, ...] | None

    @property
    def changed(self) -> bool:
        """Whether folding touched it."""
        return self.before != self.after


@dataclass(frozen=True)
class Folded:
    """What folding a small network gave.

    Attributes:
        status: "folded", "partly folded" or "refused".
        reason: Why not all of it, in the words of the report; empty if all of it.
        location_into: Where b went.
        scale_into: Where a went.
        numbers: All weights before and after.
        x: Inputs.
        agile: Outputs of the agile network.
        plain: Outputs of the folded one.
        difference: The greatest difference between the two.
        left: What of the activation is still there behind the fold: "location", "scale", both or nothing.
    """

    status: str
    reason: str
    location_into: tuple[str, ...]
    scale_into: tuple[str, ...]
    numbers: tuple[Number, ...]
    x: list[float]
    agile: list[float]
    plain: list[float]
    difference: float
    left: tuple[str, ...]


def fold_circuit(
    circuit: str, base: str, scales: Sequence[float], locations: Sequence[float], options: Mapping[str, Any]
) -> Folded:
    """Build the network, fold it by :func:`agileact.fold`, and compare both.

    Args:
        circuit: A name of :data:`CIRCUITS`.
        base: The name of f.
        scales: a of each term of the first node; the second keeps a = 1, b = 0.
        locations: b of each term of the first node.
        options: The options of f.

    Example:
        >>> folded = fold_circuit("linear", "relu", [2.0], [0.5], {})
        >>> folded.status, folded.location_into, folded.scale_into
        ('folded', ('before.bias',), ('behind',))
        >>> folded.difference < 1e-12
        True
    """
    model = _build(circuit, base, scales, locations, options)
    x = torch.linspace(-REACH, REACH, _POINTS, dtype=torch.float64)
    inputs = torch.stack([x, -x], dim=1)[:, None] if circuit == "pooling" else x[:, None]
    plain, report = fold(model, inputs)
    with torch.no_grad():
        outputs = [network(inputs)[:, 0] for network in (model, plain)]
    site = report.sites[0]
    return Folded(
        status=site.status,
        reason=site.reason,
        location_into=tuple(site.location_into),
        scale_into=tuple(site.scale_into),
        numbers=_numbers(model, plain),
        x=x.tolist(),
        agile=outputs[0].tolist(),
        plain=outputs[1].tolist(),
        difference=float((outputs[0] - outputs[1]).abs().max()),
        left=tuple(site.kept),
    )


def _build(
    circuit: str, base: str, scales: Sequence[float], locations: Sequence[float], options: Mapping[str, Any]
) -> nn.Module:
    before: nn.Module = nn.Conv1d(1, 2, 1) if circuit == "pooling" else nn.Linear(1, 2)
    behind = nn.Linear(2, 1)
    terms = len(scales)
    activation: Agile | CombinedAgile
    activation = Agile(base, 2, **options) if terms == 1 else CombinedAgile(base, 2, terms, **options)
    # A norm as training leaves it: with numbers of its own.
    norm = nn.BatchNorm1d(2)
    parts: dict[str, list[tuple[str, nn.Module]]] = {
        "linear": [("before", before), ("activation", activation), ("behind", behind)],
        "pooling": [
            ("before", before),
            ("activation", activation),
            ("pooling", nn.MaxPool1d(2)),
            ("flatten", nn.Flatten()),
            ("behind", behind),
        ],
        "norm-before": [("before", before), ("normalisation", norm), ("activation", activation), ("behind", behind)],
        "norm-behind": [("before", before), ("activation", activation), ("normalisation", norm), ("behind", behind)],
        "softmax": [("before", before), ("activation", activation), ("output", nn.Softmax(dim=1))],
    }
    model = nn.Sequential(OrderedDict(parts[circuit])).double().eval()
    with torch.no_grad():
        weight, bias = before.get_parameter("weight"), before.get_parameter("bias")
        weight.copy_(_exact(_W).view_as(weight))
        bias.copy_(_exact(_C))
        behind.weight.copy_(_exact([_V]))
        behind.bias.fill_(_D)
        norm.weight.copy_(_exact([1.5, 0.7]))
        norm.bias.copy_(_exact([0.1, -0.2]))
        second = _exact([0.0] * terms), _exact([0.0] * terms)
        second[0][0], second[1][0] = _SECOND
        for parameter, first, other in (
            (activation.scale, scales, second[0]),
            (activation.location, locations, second[1]),
        ):
            parameter.copy_(torch.stack([_exact(first), other], dim=1).flatten())
    return model


def _exact(values: Sequence[Any]) -> Tensor:
    # Of the default type, 1.2 would be 1.2000000477: the network must have the numbers that the table shows.
    return torch.tensor(values, dtype=torch.float64)


def _numbers(model: nn.Module, plain: nn.Module) -> tuple[Number, ...]:
    before, after = _values(model), _values(plain)
    names = list(before) + [name for name in after if name not in before]
    return tuple(
        Number(name, MEANINGS.get(name, "what stays of the activation"), before.get(name), after.get(name))
        for name in names
    )


def _values(model: nn.Module) -> dict[str, tuple[float, ...]]:
    state: dict[str, Tensor] = model.state_dict()
    # What a norm has measured is the same in both networks, and no weight.
    return {
        name: tuple(value.flatten().tolist())
        for name, value in state.items()
        if "running_" not in name and "num_batches" not in name
    }
