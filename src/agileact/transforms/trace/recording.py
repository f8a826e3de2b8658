"""A record of one run of a model on an example: which functions were called, on what, by which module and from where.

It holds no numbers but those that the model returned, only shapes and who made what.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import CodeType, MemberDescriptorType
from typing import Any

import torch
from torch import Tensor, nn

from agileact._common.errors import ArgumentError, ArgumentTypeError

Arguments = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""Example inputs: a tensor, a tuple of positional or a mapping of keyword arguments."""
Examples = Arguments | list[Any]
"""Or a list of them, for several calls; a pair (name of a method, example) calls that method."""


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


def arguments(example_inputs: Arguments) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments of an example."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple):
        return tuple(example_inputs), {}
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    raise ArgumentTypeError(
        "example_inputs must be a tensor, a tuple of positional arguments or a dict of keyword arguments, "
        f"not {type(example_inputs).__name__}"
    )


def cloned(value: Any) -> Any:
    """Return the arguments of a call with every tensor copied, so that a model that works in place does no harm.

    A tensor that is given twice is copied once. What is neither a tensor nor a tuple, list or dict is not copied.
    """
    copies: dict[int, Tensor] = {}

    def copy(tensor: Tensor) -> Tensor:
        if id(tensor) not in copies:
            copies[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        return copies[id(tensor)]

    return mapped(value, copy)


def mapped(value: Any, change: Callable[[Any], Any], kind: type = Tensor) -> Any:
    """Return nested tuples, lists, dicts and slices with every tensor, or everything else of a kind, changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, tuple):
        items = [mapped(item, change, kind) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [mapped(item, change, kind) for item in value]
    if isinstance(value, dict):
        return {key: mapped(item, change, kind) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(mapped(part, change, kind) for part in (value.start, value.stop, value.step)))
    return value


def tensors(value: Any, _entered: dict[int, Any] | None = None) -> Iterator[Tensor]:
    """Yield the tensors anywhere inside tuples, lists, mappings, dataclasses and the outputs of transformers.

    What is there twice, such as a node that its children know, is entered once.
    """
    if isinstance(value, Tensor):
        yield value
        return
    # With the objects themselves: an id is of use only while the object lives.
    entered = {} if _entered is None else _entered
    if id(value) in entered:
        return
    items: Iterable[Any]
    if isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, (tuple, list, set, frozenset)):
        items = value
    elif is_dataclass(value) and not isinstance(value, type):
        items = [getattr(value, entry.name) for entry in fields(value)]
    elif not isinstance(value, (type, nn.Module)) and not callable(value):
        items = [*getattr(value, "__dict__", {}).values(), *_slots(value)]
    else:
        return
    entered[id(value)] = value
    for item in items:
        yield from tensors(item, entered)


def _slots(value: Any) -> Iterator[Any]:
    """Yield what an object keeps in slots rather than in its ``__dict__``."""
    for kind in type(value).__mro__:
        names = kind.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if isinstance(kind.__dict__.get(name), MemberDescriptorType) and hasattr(value, name):
                yield getattr(value, name)


def examples(example_inputs: Any) -> list[tuple[str, Arguments]]:
    """Return the calls that an example stands for: the name of a method, empty for the model itself, and arguments.

    Example:
        >>> examples([torch.zeros(1), ("encode", torch.ones(1))])
        [('', tensor([0.])), ('encode', tensor([1.]))]
    """
    if not isinstance(example_inputs, list):
        return [("", example_inputs)]
    if not example_inputs:
        raise ArgumentError("example_inputs is an empty list; it needs at least one call")
    return [
        one if isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) else ("", one)
        for one in example_inputs
    ]


@dataclass(frozen=True)
class Ref:
    """Stands for the value ``index`` among the arguments of a call."""

    index: int


@dataclass
class Value:
    """A tensor of the run."""

    index: int  # its place in Recording.values
    kind: str  # "input" of the model, "parameter", "buffer", "constant" (from elsewhere) or "result" of a call
    shape: torch.Size
    dtype: torch.dtype
    name: str = ""  # the name of a parameter or buffer in the model; empty for others
    maker: "Call | None" = None  # the call that it is a result of, or None
    users: "list[Call]" = field(default_factory=list)  # the calls that take it, one entry for each time
    returned: bool = False  # whether it is part of the model's output
    kept: str = ""  # the attribute of a module that it is kept in; empty for most
    overwritten: "Call | None" = None  # the in-place call that put its result in the place of these numbers, or None
    # Whether its numbers were seen or changed by ways that a recording cannot follow: by another tensor that shares
    # its memory, or by Python.
    tainted: bool = False
    device: torch.device | None = None
    dense: bool = True  # whether it is neither sparse nor nested; a nested tensor has no shape here


@dataclass(frozen=True)
class Place:
    """Where in the source a call stands: columns are those of the whole call expression, None where Python has none."""

    code: CodeType
    line: int
    end_line: int | None
    column: int | None
    end_column: int | None


@dataclass
class Call:
    """One call of a function of PyTorch, or of a module that the recording did not look into."""

    index: int  # its place in Recording.calls, in order of time
    # The function's plain name, such as "relu", "conv2d", "add": without underscores, the same for torch.add, x.add_
    # and x + y ("rsub", "rdiv" where the order is turned round); "module" for a module.
    name: str
    function: Callable[..., Any]  # what was called; the module itself for "module"
    args: tuple[Any, ...]  # positional arguments with Ref for tensors
    kwargs: dict[str, Any]
    inputs: list[Value]  # the values taken, in order
    outputs: list[Value] = field(default_factory=list)  # the values made, in order
    inplace: bool = False  # whether the first argument was overwritten
    owner: str = ""  # the name of the innermost module in whose forward the call was made; "" is the model itself
    # The module whose method made the call (the first argument of the calling frame), by name, or None.
    caller: str | None = None
    place: Place | None = None
    frame: int = 0  # the number of the run of that method; 0 if there is none
    stranger: nn.Module | None = None  # the module that makes the call and is not in the model, if one does
    step_of: str = ""  # the torch.autograd.Function in whose forward the call is, by name, if no module makes it
    # For "module": the name under which it was reached, if only one of several names is possible; else "".
    slot: str = ""
    reread: bool = False  # for an in-place call: whether its argument was used again afterwards by its old name

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def again(self, values: Mapping[int, Any]) -> Any:
        """Call the function again with other tensors: ``values`` by index of the value they stand for."""
        args, kwargs = mapped((self.args, self.kwargs), lambda ref: values[ref.index], Ref)
        return self.function(*args, **kwargs)

    def rearranged(self, labels: Mapping[int, Tensor]) -> list[Tensor] | None:
        """Return what the call makes of labels, integers that it only moves about; None if it does something else."""
        try:
            made = list(tensors(self.again(labels)))
        except (RuntimeError, TypeError, ValueError, IndexError):  # NotImplementedError is a RuntimeError
            return None
        same = [one.dtype == torch.int64 and one.shape == of.shape for one, of in zip(made, self.outputs, strict=False)]
        return made if len(made) == len(self.outputs) and all(same) else None

    def __repr__(self) -> str:
        return f"Call({self.index}, {self.name!r}, owner={self.owner!r})"


@dataclass
class Visit:
    """One run of a module's ``forward`` that the recording looked into."""

    name: str  # the name under which the module was reached
    module: nn.Module
    inputs: list[Value]  # the tensors among its arguments
    outputs: list[Value]  # the tensors among its results
    start: int  # the index of the first call made in it
    stop: int  # the index behind the last one
    caller: str | None = None  # who called it from where, as for a Call
    place: Place | None = None
    frame: int = 0
    # The parent and the key by which it was reached, where slots were told apart; else empty.
    slot: tuple[Any, ...] = ()

    @property
    def index(self) -> int:
        """When it began, as of a :class:`Call`."""
        return self.start


@dataclass
class Outcome:
    """What a run made, as copies: what the model returned, its buffers after it, and tensors kept in attributes."""

    outputs: list[Tensor]
    buffers: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Recording:
    """What a model did on an example."""

    calls: list[Call] = field(default_factory=list)  # all calls, in order of time
    values: list[Value] = field(default_factory=list)  # all tensors
    # For every module of the model that ran, by id, all names it has in the model.
    names: dict[int, list[str]] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)  # the values given to the model
    runs: dict[str, int] = field(default_factory=dict)  # how often each module's forward ran, by its first name
    # The runs of modules that were looked into, in the order in which they ended.
    visits: list[Visit] = field(default_factory=list)
    outcome: Outcome = field(default_factory=lambda: Outcome([]))  # what the run made
    training: bool = False  # whether it was a run in training mode
    strangers: dict[int, nn.Module] = field(default_factory=dict)  # modules that ran and are not in the model, by id
