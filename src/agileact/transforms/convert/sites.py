"""Where the activations of a model are: modules, functions and methods called, functions kept as attributes."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from agileact import bases
from agileact.bases import Value
from agileact.nn import AgileModule
from agileact.transforms.convert.activations import REREAD, Activations, Known, walked
from agileact.transforms.edit.source import CannotRewriteError, SourceCall, original_file, source_call
from agileact.transforms.trace.activation_tables import FUNCTIONS, GATES, known_call, refused_call, refused_module
from agileact.transforms.trace.operations import REARRANGING
from agileact.transforms.trace.recording import Call, Recording

FilterFn = Callable[[nn.Module, str], bool]


@dataclass
class Candidate:
    """An activation, and how it could become agile.

    Attributes:
        kind: "module": replaced in its slots. "attribute": a function in an attribute. "call": by its source.
        name: What the report calls it: the name of the module, or of the module that makes the call.
        was: What stands there.
        base: The name of f, or of what stands there.
        options: The options of f; None if there is no base function for it.
        calls: The calls of the run.
        owner: The module that has the slot, the attribute or the method; None for the model itself.
        key: The slot or the attribute; for a call the name of the child that it called, or "".
        slots: All slots, for a module that is shared.
        source: The calls in the source to be exchanged.
        original: The module or function that stands there.
        function: What computes f, where there is no base function.
        reason: Why it cannot become agile; empty if it can. For one that can, ``note`` says what is to be known.
        already: Whether it is agile.
    """

    kind: Literal["module", "attribute", "call"]
    name: str
    was: str
    base: str
    options: dict[str, Value] | None = None
    calls: list[Call] = field(default_factory=list)
    owner: nn.Module | None = None
    key: str = ""
    slots: list[tuple[nn.Module, str]] = field(default_factory=list)
    source: SourceCall | None = None
    original: Any = None
    function: Callable[..., Any] | None = None
    reason: str = ""
    note: str = ""
    already: bool = False

    @property
    def first(self) -> float:
        """When it ran first, for the order of a report."""
        return self.calls[0].index if self.calls else float("inf")


# --- What a recording shows -----------------------------------------------------------------------------------------


def candidates(
    activations: Activations, recording: Recording, filter_fn: FilterFn | None, *, seen: bool = True
) -> list[Candidate]:
    """Return every activation of a model that ran, or that can be seen without a run, in order of time.

    Args:
        activations: What is an activation.
        recording: The run.
        filter_fn: Which ones are wanted.
        seen: Whether there was a run, so that what was not called was not reached.
    """
    names = {id(module): name for name, module in activations.model.named_modules(remove_duplicate=False)}
    names.update({id(module): name for name, module in activations.model.named_modules()})
    found = [*_modules(activations, recording, names, seen), *_functions(activations.model, recording, names)]
    found += [*_refused(activations, recording), *_scripted_functions(activations.model)]
    if filter_fn is not None:
        for one in found:
            module = one.original if one.kind == "module" else one.owner
            if not one.reason and not one.already and not filter_fn(module or activations.model, one.name):
                one.reason = "left out by filter_fn"
    return sorted(found, key=lambda one: one.first)


def _modules(activations: Activations, recording: Recording, names: dict[int, str], seen: bool) -> Iterator[Candidate]:
    calls: dict[int, list[Call]] = {}
    for call in recording.calls:
        if call.name == "module":
            calls.setdefault(id(call.function), []).append(call)
    slots: dict[int, list[tuple[nn.Module, str]]] = {}
    for _, parent in activations.walked():
        if not activations.is_leaf(parent):
            for key, child in parent._modules.items():
                slots.setdefault(id(child), []).append((parent, key))
    for name, module in activations.walked():
        kind = type(module).__name__
        if isinstance(module, AgileModule):
            yield Candidate("module", name, kind, module.base, calls=calls.get(id(module), []), already=True)
        if id(module) not in activations.known:
            continue
        own = slots.get(id(module), [])
        known = activations.known[id(module)]
        one = Candidate(
            "module",
            name,
            kind,
            known[0] if known else kind,
            known[1] if known else None,
            calls=calls.get(id(module), []),
            owner=own[0][0] if own else None,
            key=own[0][1] if own else "",
            slots=own,
            original=activations.original(module),
            function=module,
        )
        one.reason = _obstacle(one, activations, module, seen)
        yield from _by_place(one, activations.sharing, names, activations.model)


def _obstacle(one: Candidate, activations: Activations, module: nn.Module, seen: bool) -> str:
    if seen and not one.calls:
        return "the example does not reach it"
    if not seen and (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks):
        return "it has hooks, which are moved only with example_inputs"
    if id(module) in activations.in_place:
        return activations.in_place[id(module)]
    if any(len(call.inputs) != 1 or len(call.outputs) != 1 for call in one.calls):
        return "it is called on something else than one tensor"
    if any(call.reread for call in one.calls):
        return REREAD
    if module._state_dict_hooks or module._load_state_dict_pre_hooks or module._state_dict_pre_hooks:
        return "it has hooks on its state, which an agile module, whose state is another, cannot take over"
    if id(module) in activations.patched and activations.known[id(module)] is not None:
        return "its forward was replaced on the module itself"
    return ""


def _by_place(one: Candidate, sharing: str, names: dict[int, str], model: nn.Module) -> Iterator[Candidate]:
    """Yield a candidate for each place in the source that calls a module, or one for all."""
    groups: dict[Any, list[Call]] = {}
    for call in one.calls:
        groups.setdefault((call.caller, call.place), []).append(call)
    if one.reason or sharing == "shared" or len(groups) < 2:
        yield one
        return
    try:
        sources = [_in_own_slot(one, calls[0], names, model) for calls in groups.values()]
    except CannotRewriteError as error:
        one.note = f"its {len(groups)} uses share one pair: {error}"
        yield one
        return
    pairs = sorted(zip(sources, groups.values(), strict=True), key=lambda pair: _position(pair[0]))
    for index, (source, calls) in enumerate(pairs):
        # The first place keeps the slot, the others call children of their own.
        if index:
            yield dataclasses.replace(one, calls=calls, kind="call", slots=[], source=source)
        else:
            yield dataclasses.replace(one, calls=calls)


def _position(source: SourceCall) -> tuple[str, int, int, int]:
    # Of calls that begin together the inner one runs first.
    node = source.node
    return source.method, node.end_lineno or node.lineno, node.end_col_offset or 0, node.col_offset


def _in_own_slot(one: Candidate, call: Call, names: dict[int, str], model: nn.Module) -> SourceCall:
    if call.place is None or call.caller is None:
        raise CannotRewriteError("one of them is not in a method of a module")
    caller = model.get_submodule(call.caller)
    if caller is not one.owner:
        raise CannotRewriteError(
            f"one of them is in {call.caller or 'the model itself'}, which does not own the module"
        )
    source = source_call(caller, call.place, frozenset({one.key}))
    if source.attribute != one.key or not source.alone:
        raise CannotRewriteError("one of them is no plain call of the attribute")
    return source


def _functions(model: nn.Module, recording: Recording, names: dict[int, str]) -> Iterator[Candidate]:
    groups: dict[Any, list[Call]] = {}
    for call in recording.calls:
        if call.name in FUNCTIONS:
            owner = call.owner if call.caller is None else call.caller
            groups.setdefault((owner, call.place, call.name), []).append(call)
    found = [_function(model, calls) for calls in groups.values()]
    attributes: dict[tuple[int, str], int] = {}
    for one in found:
        if one.source is not None and one.source.attribute:
            place = id(one.owner), one.source.attribute
            attributes[place] = attributes.get(place, 0) + 1
    for one in sorted(found, key=lambda one: _position(one.source) if one.source else ("", 0, 0, 0)):
        if one.reason or one.source is None or one.owner is None or not one.source.attribute:
            yield one
            continue
        attribute = one.source.attribute
        alone = one.source.alone and attributes[id(one.owner), attribute] == 1
        # A class with its own way of unpickling may expect the function in its attribute.
        own_state: Any = type(one.owner).__setstate__
        if alone and attribute in one.owner.__dict__ and own_state is nn.Module.__setstate__:
            one.kind, one.key, one.original = "attribute", attribute, one.owner.__dict__[attribute]
            one.name = f"{one.name}.{attribute}" if one.name else attribute
        yield one


def _function(model: nn.Module, calls: list[Call]) -> Candidate:
    call = calls[0]
    base = FUNCTIONS[call.name][0]
    owner = call.owner if call.caller is None else call.caller
    one = Candidate("call", owner, f"{call.name}{_where(call)}", base, calls=calls)
    known = [known_call(each) for each in calls]
    one.reason = _function_obstacle(calls, known)
    if one.reason:
        return one
    one.options = known[0][1] if known[0] else None
    one.owner = model.get_submodule(owner)
    one.function = functools.partial(bases.get(base).function, **(one.options or {}))
    assert call.place is not None
    try:
        one.source = source_call(one.owner, call.place, frozenset({call.name, f"{call.name}_"}))
    except CannotRewriteError as error:
        one.reason = str(error)
    return one


def _function_obstacle(calls: list[Call], known: list[Known | None]) -> str:
    call = calls[0]
    if call.name in GATES and all(_is_gate(each) for each in calls):
        return "used as a gate: its result only multiplies another signal"
    if any(one is None for one in known):
        return "it is called with options for which there is no base function"
    if any(one != known[0] for one in known):
        return "its options differ from call to call"
    if any(each.reread for each in calls):
        return REREAD
    if any(len(each.inputs) != 1 or len(each.outputs) != 1 for each in calls):
        return "it is called on something else than one tensor"
    if call.caller is None or call.place is None:
        return (
            "it is called outside the methods of the model's modules; call it in a method, or write a module "
            "for it and keep that in the model"
        )
    return ""


def _is_gate(call: Call) -> bool:
    """Return whether all that becomes of a result, also in another shape, is to multiply another signal."""
    outputs = list(call.outputs)
    multiplies = False
    while outputs:
        output = outputs.pop()
        if output.returned:
            return False
        for user in output.users:
            if user.name in REARRANGING and len(user.inputs) == 1:
                outputs += user.outputs
            elif user.name == "mul" and all(value.kind in ("result", "input") for value in user.inputs):
                multiplies = multiplies or len(user.inputs) == 2
            else:
                return False
    return multiplies


_SCRIPTED = "it is scripted: what it does cannot be seen; convert the model first, and script it afterwards"


def _refused(activations: Activations, recording: Recording) -> Iterator[Candidate]:
    inside: set[str] = set()
    model = activations.model
    for name, module in walked(model, _unseen):
        if isinstance(module, torch.jit.ScriptModule):
            kind = getattr(module, "original_name", type(module).__name__)
            yield Candidate("module", name, "torch.jit.ScriptModule", kind, reason=_SCRIPTED)
            continue
        refused = refused_module(module)
        if refused is not None:
            inside.add(name)
            calls = [call for call in recording.calls if call.owner == name]
            kind = type(module).__name__
            yield Candidate("module", name, kind, kind, calls=calls, reason=refused, original=module)
    groups: dict[Any, list[Call]] = {}
    for call in recording.calls:
        if call.owner not in inside and refused_call(call):
            groups.setdefault((call.owner, call.name, call.place), []).append(call)
    for (owner, function, _), calls in groups.items():
        yield Candidate(
            "call",
            owner,
            f"{function}{_where(calls[0])}",
            function,
            calls=calls,
            owner=model.get_submodule(owner),
            reason=refused_call(calls[0]) or "",
        )


def _unseen(module: nn.Module) -> bool:
    return isinstance(module, (AgileModule, torch.jit.ScriptModule))


def _scripted_functions(model: nn.Module) -> Iterator[Candidate]:
    """Yield the scripted functions that methods call: a recording sees nothing of them."""
    for name, module in walked(model, _unseen):
        if _unseen(module):
            continue
        forward: Any = inspect.unwrap(type(module).forward)
        code = getattr(forward, "__code__", None)
        near = vars(module) | {key: forward.__globals__.get(key) for key in (code.co_names if code else ())}
        for key, value in near.items():
            if isinstance(value, torch.jit.ScriptFunction):
                yield Candidate("call", name, f"{key} in {type(module).__qualname__}", key, reason=_SCRIPTED)


def _where(call: Call) -> str:
    if call.place is None:
        return ""
    code = call.place.code
    name = getattr(code, "co_qualname", code.co_name)
    return f" in {name}, {os.path.basename(original_file(code))}:{call.place.line}"
