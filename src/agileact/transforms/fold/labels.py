"""What a recording demands of gauges: which label each number of each signal has, and what ties labels."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from agileact.nn import AgileModule
from agileact.transforms.fold.gauge import GROUND, Labels
from agileact.transforms.trace.recording import Call


def compact(tensor: Tensor) -> Tensor:
    """Return a tensor of the same number of axes, of size 1 along those that it is constant along.

    Example:
        >>> compact(torch.tensor([[1, 2], [1, 2]]))
        tensor([[1, 2]])
    """
    for axis, size in enumerate(tensor.shape):
        if size > 1:
            first = tensor.narrow(axis, 0, 1)
            if tensor.stride(axis) == 0 or bool((tensor == first).all()):
                tensor = first
    return tensor


def aligned(tensor: Tensor, axes: int) -> Tensor:
    """Return a view with ``axes`` axes, new ones in front, as in broadcasting."""
    return tensor.reshape((1,) * (axes - tensor.ndim) + tuple(tensor.shape))


def flat(labels: Tensor) -> Labels:
    """Return labels as a flat array."""
    array: Labels = labels.reshape(-1).numpy()
    return array


def channel_index(module: AgileModule, shape: tuple[int, ...]) -> Tensor:
    """Return which element of scale and location belongs to which element of an input, broadcastable to its shape."""
    axes = len(shape)
    if module.granularity == "layer" or not axes:
        return torch.zeros((1,) * axes, dtype=torch.int64)
    if module.granularity == "element":
        start = min(1, axes - 1)
        return torch.arange(math.prod(shape[start:])).reshape((1,) * start + shape[start:])
    axis = 0 if axes == 1 and module.dim == 1 else module.dim % axes
    return torch.arange(shape[axis]).reshape((1,) * axis + (-1,) + (1,) * (axes - axis - 1))


def inside(call: Call) -> str:
    """Say in which module a call is."""
    where = call.slot if call.name == "module" else call.owner
    return f" in {where}" if where else ""


def named(call: Call) -> str:
    """Say what a call is, and in which module."""
    return f"{type(call.function).__name__ if call.name == 'module' else call.name}{inside(call)}"


def is_agile(module: nn.Module) -> bool:
    """Return whether a module is an agile activation."""
    return isinstance(module, AgileModule)


@dataclass
class Map:
    """A parameter of the model's own that takes up gauges, number by number.

    It is multiplied by the gauges of ``inputs`` and divided by those of ``outputs``, both broadcastable to its shape,
    or to ``places`` if only these of its numbers are meant. ``owner`` is the module whose weight or bias it is. A bias
    that is ``open`` is not there yet.
    """

    parameter: str
    inputs: Tensor
    outputs: Tensor
    owner: str
    run: int
    places: Tensor | None = None
    open: bool = False

    def like(self, other: "Map") -> bool:
        """Return whether another use is of the same numbers."""
        if (self.places is None) != (other.places is None):
            return False
        return self.places is None or other.places is None or torch.equal(self.places, other.places)


@dataclass
class Use:
    """A call of an agile module in each run: labels before and behind, and which scale lies between, of one length.

    Laid out in ``shape``, they have as many axes as the input. ``calls`` has the number of the run with each call.
    """

    calls: list[tuple[int, Call]]
    name: str
    inputs: Labels
    outputs: Labels
    index: Labels
    shape: tuple[int, ...]


@dataclass
class Activation:
    """An agile module of a model, by its first name; ``blocked`` says why nothing of its scale can be moved at all."""

    name: str
    module: Any
    homogeneous: bool = False
    uses: list[Use] = field(default_factory=list)
    blocked: str = ""


@dataclass
class Tie:
    """Labels that must have the same gauge."""

    upper: Labels
    lower: Labels


@dataclass
class Mark:
    """Labels of which something is required, and why; whether by a normalisation that divides sizes out in training."""

    labels: Labels
    why: str
    normalised: bool = False


@dataclass
class Product:
    """Labels of a product of two signals: its gauge is the product of theirs."""

    output: Labels
    first: Labels
    second: Labels


@dataclass
class Constraints:
    """Everything that a model demands of the gauges of its signals, in all its runs.

    ``grounds`` are gauges that must be 1, ``nonzero`` labels whose gauge cannot be 0, ``mapped`` the parameters that
    take up gauges in each run. Label 0 is the ground.
    """

    count: int = 1
    ties: list[Tie] = field(default_factory=list)
    grounds: list[Mark] = field(default_factory=list)
    positives: list[Mark] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    nonzero: list[Labels] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)
    mapped: set[tuple[int, str]] = field(default_factory=set)
    sites: dict[str, Activation] = field(default_factory=dict)

    def fresh(self, shape: Sequence[int]) -> Tensor:
        """Return new labels, each once."""
        number = math.prod(shape)
        labels = torch.arange(self.count, self.count + number).reshape(tuple(shape))
        self.count += number
        return labels

    def tie(self, upper: Tensor, lower: Tensor) -> Tensor:
        """Require equal gauges of two signals that are broadcast together, and return the labels of the result."""
        first: Tensor
        second: Tensor
        first, second = torch.broadcast_tensors(upper, lower)
        self.ties.append(Tie(flat(first), flat(second)))
        return first

    def merged(self, labels: Tensor, axes: Iterable[int]) -> Tensor:
        """Require equal gauges along axes, and return labels of size 1 along them."""
        for axis in axes:
            if labels.shape[axis] > 1:
                first = labels.narrow(axis, 0, 1)
                self.tie(first, labels.narrow(axis, 1, labels.shape[axis] - 1))
                labels = first
        return labels

    def ground(self, labels: Tensor, why: str, *, normalised: bool = False) -> None:
        """Require gauge 1."""
        array = flat(labels)
        if array.any():
            self.grounds.append(Mark(array[array != GROUND], why, normalised))

    def positive(self, labels: Tensor, why: str) -> None:
        """Require positive gauges."""
        self.positives.append(Mark(flat(labels), why))

    def take(self, one: Map) -> None:
        """Let a parameter take up gauges: in each run the same."""
        others = [other for other in self.maps if other.parameter == one.parameter and other.open == one.open]
        others = [other for other in others if other.run != one.run]
        same = next((other for other in others if other.like(one)), None)
        if same is not None:
            self.tie(same.inputs, one.inputs)
            self.tie(same.outputs, one.outputs)
            return
        self.maps.append(one)
        for other in (*others, one) if others else ():
            self.give_up(other, "is used in another way in another run")

    def give_up(self, one: Map, why: str) -> None:
        """Let a parameter stay as it is."""
        for labels in (one.inputs, one.outputs):
            self.ground(labels, f"{one.parameter} {why}")
