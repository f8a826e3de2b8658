"""A network small enough to print, folded for real: where a and b go, and what stays and why."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn

from agileact.lab.content.curves import REACH, Form
from agileact.nn import Agile, CombinedAgile
from agileact.transforms import fold
from agileact.transforms.report import FoldedSite

CIRCUITS: dict[str, str] = {
    "linear": "linear → activation → linear",
    "pooling": "convolution → activation → max pooling → linear",
    "norm-before": "linear → BatchNorm → activation → linear",
    "norm-behind": "linear → activation → BatchNorm → linear",
    "softmax": "linear → activation → softmax",
}
"""The networks by name, in words."""
_PARTS = {
    "linear": ("before", "activation", "behind"),
    "pooling": ("before", "activation", "pooling", "flatten", "behind"),
    "norm-before": ("before", "normalisation", "activation", "behind"),
    "norm-behind": ("before", "activation", "normalisation", "behind"),
    "softmax": ("before", "activation", "output"),
}

MEANINGS: dict[str, str] = {
    "before.weight": "w: weights into the two nodes",
    "before.bias": "c: biases of the two nodes",
    "normalisation.weight": "γ of the BatchNorm",
    "normalisation.bias": "β of the BatchNorm",
    "activation.scale": "a: sizes of the activations",
    "activation.location": "b: positions of the activations",
    "activation.gain": "g: gains of the activations",
    "behind.weight": "v: weights behind the two nodes",
    "behind.bias": "d: bias of the output",
}
"""What the numbers of the networks are, by their name in the state_dict."""

_NUMBERS = {
    "before.weight": [1.2, -0.8],
    "before.bias": [0.3, 0.5],
    # A norm as training leaves it: with numbers of its own.
    "normalisation.weight": [1.5, 0.7],
    "normalisation.bias": [0.1, -0.2],
    "behind.weight": [0.9, -1.1],
    "behind.bias": [0.2],
}
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
    """What folding gave: what the report says of the activation, all weights, both outputs over ``x``."""

    site: FoldedSite
    numbers: tuple[Number, ...]
    x: list[float]
    agile: list[float]
    plain: list[float]
    difference: float


def fold_circuit(circuit: str, form: Form) -> Folded:
    """Build the network, fold it by :func:`agileact.fold`, and compare both."""
    model = _build(circuit, form)
    x = torch.linspace(-REACH, REACH, _POINTS, dtype=torch.float64)
    inputs = torch.stack([x, -x], dim=1)[:, None] if circuit == "pooling" else x[:, None]
    plain, report = fold(model, inputs)
    with torch.no_grad():
        outputs = [network(inputs)[:, 0] for network in (model, plain)]
    before, after = _values(model), _values(plain)
    numbers = (
        Number(name, MEANINGS.get(name, "what stays of the activation"), before.get(name), after.get(name))
        for name in dict.fromkeys([*before, *after])
    )
    difference = float((outputs[0] - outputs[1]).abs().max())
    return Folded(report.sites[0], tuple(numbers), x.tolist(), outputs[0].tolist(), outputs[1].tolist(), difference)


def _build(circuit: str, form: Form) -> nn.Module:
    """Return the network; the page's a, b and g are those of the first node, the second keeps a = 1, b = 0, g = 1."""
    terms, base, options = len(form.scales), form.base, form.options
    single = terms == 1
    one = Agile(base, 2, gain=form.gain is not None, **options) if single else CombinedAgile(base, 2, terms, **options)
    modules: dict[str, nn.Module] = {
        "before": nn.Conv1d(1, 2, 1) if circuit == "pooling" else nn.Linear(1, 2),
        "normalisation": nn.BatchNorm1d(2),
        "activation": one,
        "pooling": nn.MaxPool1d(2),
        "flatten": nn.Flatten(),
        "behind": nn.Linear(2, 1),
        "output": nn.Softmax(dim=1),
    }
    model = nn.Sequential(OrderedDict((name, modules[name]) for name in _PARTS[circuit])).double().eval()
    pairs = {
        "activation.scale": [(a, float(term == 0)) for term, a in enumerate(form.scales)],
        "activation.location": [(b, 0.0) for b in form.locations],
        "activation.gain": [1.0 if form.gain is None else form.gain, 1.0],
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Of the default type, 1.2 would be 1.2000000477: the network must have the numbers that the table shows.
            values = torch.tensor({**_NUMBERS, **pairs}[name], dtype=torch.float64)
            parameter.copy_(values.view_as(parameter))
    return model


def _values(model: nn.Module) -> dict[str, tuple[float, ...]]:
    # What a norm has measured is the same in both networks, and no weight.
    return {
        name: tuple(value.flatten().tolist())
        for name, value in model.state_dict().items()
        if "running_" not in name and "num_batches" not in name
    }
