"""Where the activations of a model are: modules, functions and methods called, functions kept as attributes."""

import ast
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from agileact import bases
from agileact.bases import Value
from agileact.nn import AgileModule
from agileact.transforms.convert.formulas import formulas, layer_before
from agileact.transforms.edit.rewrite import edits_of
from agileact.transforms.edit.source import CannotRewriteError, SourceCall, original_file, source_call
from agileact.transforms.trace.activation_tables import (
    ACTIVATING,
    FUNCTIONS,
    GATES,
    POINTWISE,
    known_call,
    known_module,
    refused_call,
    refused_module,
    step_of,
    torch_activation,
)
from agileact.transforms.trace.operations import REARRANGING
from agileact.transforms.trace.recorder import as_before_training, record
from agileact.transforms.trace.recording import Arguments, Call, Recording, Visit

FilterFn = Callable[[nn.Module, str], bool]
Known = tuple[str, dict[str, Value]]
Use = TypeVar("Use", bound=Call | Visit)
Slot = tuple[nn.Module, str]

_REREAD = "it works in place, and what it overwrites is used again: an agile module does not work in place"
_SCRIPTED = "it is scripted: what it does cannot be seen; convert the model first, and script it afterwards"
_MAY_RUN = "it is scripted: whether it runs and what it does cannot be seen; convert first, and script it afterwards"


@dataclass(frozen=True)
class Candidate:
    """An activation, and how it could become agile."""

    # "module": replaced in its slots. "attribute": a function in an attribute. "call": by its source.
    kind: Literal["module", "attribute", "call"]
    name: str  # what the report calls it: the name of the module, or of the module that makes the call
    was: str  # what stands there
    base: str  # the name of f, or of what stands there
    options: dict[str, Value] | None = None  # the options of f; None if there is no base function for it
    uses: tuple[Call | Visit, ...] = ()  # the calls of a function, or the runs of a module
    # The module that has the slot, the attribute or the method; None for the model itself.
    owner: nn.Module | None = None
    key: str = ""  # the slot or the attribute; for a call the name of the child that it called, or ""
    slots: tuple[Slot, ...] = ()  # all slots, for a module that is shared
    source: SourceCall | None = None  # the call in the source to be exchanged
    original: Any = None  # the module or function that stands there
    function: Callable[..., Any] | None = None  # what computes f
    reason: str = ""  # why it cannot become agile; empty if it can. For one that can, note says what is to be known
    note: str = ""
    # For a call that runs several times in each run of its method, with a pair for each: which one it is.
    turn: int | None = None
    training: bool = False  # whether it runs in training mode alone
    already: bool = False  # whether it is agile

    @property
    def first(self) -> float:
        """When it ran first, for the order of a report."""
        return self.uses[0].index if self.uses else float("inf")


def find(
    model: nn.Module, example_inputs: Arguments | None, sharing: str, filter_fn: FilterFn | None
) -> tuple[list[Candidate], list[Recording]]:
    """Return all activations that run, or that can be seen without a run, in order of time; and the recordings.

    There is a second one, in training mode, of a model with code that asks for its mode.
    """
    finder = _Finder(model, example_inputs, sharing)
    found, recordings = finder.all(), [finder.recording]
    if example_inputs is not None and any(_asks_for_its_mode(type(module)) for module in model.modules()):
        try:
            with as_before_training(model):
                other = _Finder(model, example_inputs, sharing, training=True)
        except Exception:
            pass  # training may need what the example has not, such as targets
        else:
            found = _with_training(found, other.all())
            recordings.append(other.recording)
    if filter_fn is not None:
        for index, one in enumerate(found):
            module = one.original if one.kind == "module" else one.owner
            if not one.reason and not one.already and not filter_fn(module or model, one.name):
                found[index] = replace(one, reason="left out by filter_fn")
    return sorted(found, key=lambda one: one.first), recordings


def _with_training(found: list[Candidate], training: list[Candidate]) -> list[Candidate]:
    """Return the sites of a run in evaluation and those that run in training alone."""
    reached = {id(one.original) for one in found if one.kind == "module" and one.uses}
    places = {(id(one.owner), use.place) for one in found for use in one.uses}
    new = [
        replace(one, training=True, note="; ".join(filter(None, ["it runs in training mode alone", one.note])))
        for one in training
        if one.uses
        and not one.already
        and (one.kind != "module" or id(one.original) not in reached)
        and (one.kind == "module" or (id(one.owner), one.uses[0].place) not in places)
    ]
    late = {id(one.original) for one in new if one.kind == "module"}
    return [one for one in found if one.kind != "module" or one.uses or id(one.original) not in late] + new


def _asks_for_its_mode(kind: type[nn.Module]) -> bool:
    if kind.__module__.startswith("torch."):
        return False
    codes = (getattr(inspect.unwrap(member), "__code__", None) for member in vars(kind).values() if callable(member))
    return any(code is not None and "training" in code.co_names for code in codes)


class _Finder:
    """Which modules and calls of a run are activations."""

    def __init__(
        self, model: nn.Module, example_inputs: Arguments | None, sharing: str, *, training: bool = False
    ) -> None:
        self.model = model
        self.sharing = sharing
        self.seen = example_inputs is not None
        self.known: dict[int, Known | None] = {}
        self.patched = {id(module) for module in model.modules() if "forward" in module.__dict__}
        for _, module in walked(model):
            known = known_module(module)
            # One with options that our function does not take is an activation all the same.
            if known is not None or torch_activation(module) is not None:
                self.known[id(module)] = known
        self.recording = Recording()
        if example_inputs is not None:
            self.recording = record(model, example_inputs, leaf=_agile, apart=self._apart, training=training)
        self.visits: dict[int, list[Visit]] = {}
        for visit in sorted(self.recording.visits, key=lambda visit: visit.start):
            self.visits.setdefault(id(visit.module), []).append(visit)
        self.known |= self._composites()
        visits = [visit for one in self.known for visit in self.visits.get(one, ())]
        self.inside = {index for visit in visits for index in range(visit.start, visit.stop)}
        self.formulas, self.missed = formulas(model, self.recording, self.inside)
        self.inside |= {index for formula in self.formulas for index in formula.calls}

    def all(self) -> list[Candidate]:
        """Return what is an activation, and what cannot be agile."""
        return [*self.modules(), *self.functions(), *self.written_out(), *self.refused(), *self.scripted()]

    def _apart(self, module: nn.Module) -> bool:
        return self.sharing == "per_use" and (id(module) in self.known or _may_be_composite(module))

    def _caller(self, use: Call | Visit) -> nn.Module | None:
        return None if use.caller is None else self.model.get_submodule(use.caller)

    # --- Modules ---

    def modules(self) -> Iterator[Candidate]:
        def leaf(module: nn.Module) -> bool:
            return _agile(module) or id(module) in self.known

        agile: dict[int, list[Call]] = {}
        for call in self.recording.calls:
            if call.name == "module":
                agile.setdefault(id(call.function), []).append(call)
        parents = [(name, parent) for name, parent in walked(self.model, leaf) if not leaf(parent)]
        slots: dict[int, list[tuple[str, nn.Module, str]]] = {}
        for name, parent in parents:
            for key, child in parent._modules.items():
                slots.setdefault(id(child), []).append((f"{name}.{key}" if name else key, parent, key))
        for name, module in walked(self.model, leaf):
            kind = type(module).__name__
            if isinstance(module, AgileModule):
                yield Candidate("module", name, kind, module.base, uses=tuple(agile.get(id(module), ())), already=True)
            elif id(module) in self.known:
                for names, own, visits in self._by_slot(module, name, slots.get(id(module), [])):
                    known = self.known[id(module)]
                    one = Candidate(
                        "module",
                        names,
                        kind,
                        known[0] if known else kind,
                        known[1] if known else None,
                        uses=tuple(visits),
                        owner=own[0][0] if own else None,
                        key=own[0][1] if own else "",
                        slots=tuple(own),
                        original=module,
                        function=module.forward,
                    )
                    yield from self._by_place(replace(one, reason=self._obstacle(one, module)))

    def _by_slot(
        self, module: nn.Module, name: str, slots: list[tuple[str, nn.Module, str]]
    ) -> Iterator[tuple[str, list[Slot], list[Visit]]]:
        """Yield the slots of a module that run apart, each with its runs; slots that never run go with the first."""
        visits = self.visits.get(id(module), [])
        ran = [slot for slot in slots if any(_is_slot(visit, slot) for visit in visits)]
        if len(ran) < 2:
            yield name, [slot[1:] for slot in slots], visits
            return
        for number, slot in enumerate(ran):
            rest = [] if number else [other for other in slots if other not in ran]
            yield (slot[0], [one[1:] for one in (slot, *rest)], [visit for visit in visits if _is_slot(visit, slot)])

    def _obstacle(self, one: Candidate, module: nn.Module) -> str:
        if self.seen and not one.uses:
            parent: Any = type(one.owner)
            called_instead = any(edit.slot == one.key for edit in edits_of(parent))
            return "agile modules are called in its place" if called_instead else "the example does not reach it"
        if not self.seen and (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks):
            return "it has hooks, which are moved only with example_inputs"
        if any(len(visit.inputs) != 1 or len(visit.outputs) != 1 for visit in one.uses):
            return "it is called on something else than one tensor"
        if any(call.inplace and call.reread for visit in self.visits.get(id(module), ()) for call in self._in(visit)):
            return _REREAD
        if module._state_dict_hooks or module._load_state_dict_pre_hooks or module._state_dict_pre_hooks:
            return "it has hooks on its state, which an agile module, whose state is another, cannot take over"
        if id(module) in self.patched and self.known[id(module)] is not None:
            return "its forward was replaced on the module itself"
        return ""

    def _in(self, visit: Visit) -> list[Call]:
        return self.recording.calls[visit.start : visit.stop]

    def _by_place(self, one: Candidate) -> Iterator[Candidate]:
        """Yield a candidate for each place that calls a module, and for each turn of a loop there, or one for all."""
        groups: dict[Any, list[Call | Visit]] = {}
        for use in one.uses:
            groups.setdefault((id(self._caller(use)), use.place), []).append(use)
        turns = [self._turns(uses) for uses in groups.values()]
        if one.reason or self.sharing == "shared" or (len(groups) < 2 and all(len(some) < 2 for some in turns)):
            yield one
            return
        try:
            sources = [self._in_own_slot(one, uses[0]) for uses in groups.values()]
        except CannotRewriteError as error:
            number = len(groups) if len(groups) > 1 else len(one.uses)
            yield replace(one, note=f"its {number} uses share one pair: {error}")
            return
        places = sorted(zip(sources, groups.values(), turns, strict=True), key=lambda place: _position(place[0]))
        kept = False
        for source, uses, each in places:
            call = replace(one, kind="call", slots=(), source=source)
            if len(each) > 1 and source.countable:
                yield from (replace(call, uses=tuple(turn), turn=number) for number, turn in enumerate(each))
            elif kept:
                yield replace(call, uses=tuple(uses))
            else:
                # The first place keeps the slot, the others call children of their own.
                kept = True
                yield replace(one, uses=tuple(uses))

    def _in_own_slot(self, one: Candidate, use: Call | Visit) -> SourceCall:
        caller = self._caller(use)
        if use.place is None or caller is None:
            raise CannotRewriteError("one of them is not in a method of a module")
        if caller is not one.owner:
            raise CannotRewriteError(
                f"one of them is in {use.caller or 'the model itself'}, which does not own the module"
            )
        source = source_call(caller, use.place, frozenset({one.key}))
        if source.attribute != one.key or not source.alone:
            raise CannotRewriteError("one of them is no plain call of the attribute")
        return source

    def _composites(self) -> dict[int, Known | None]:
        """Return the modules that only compute an elementwise function of their one argument, the outermost ones."""
        found: dict[int, Known | None] = {}
        inner: set[int] = set()
        for _, module in walked(self.model):
            visits = self.visits.get(id(module))
            if id(module) in inner or not visits or not _may_be_composite(module):
                continue
            runs = [self._composite(visit) for visit in visits]
            if all(run is not None for run in runs):
                # One call of a function with a base, on the argument itself, is that base; anything else is wrapped.
                same = all(run == runs[0] for run in runs) and id(module) not in self.patched
                found[id(module)] = (runs[0] or None) if same else None
                inner |= {id(child) for child in module.modules()}
        return found

    def _composite(self, visit: Visit) -> Known | tuple[()] | None:
        """Return the base function that a run of a module is; an empty tuple for another one; None if it is none."""
        calls = self._in(visit)
        if len(visit.inputs) != 1 or len(visit.outputs) != 1 or not calls:
            return None
        source, result = visit.inputs[0], visit.outputs[0]
        made_inside = result.maker is not None and visit.start <= result.maker.index < visit.stop
        if result.shape != source.shape or not made_inside:
            return None
        within = {
            index
            for child in visit.module.modules()
            if child is not visit.module and id(child) in self.known
            for part in self.visits.get(id(child), ())
            for index in range(part.start, part.stop)
        }
        inside = {output.index for call in calls for output in call.outputs} | {source.index}
        for call in calls:
            if call.name not in POINTWISE and call.index not in within:
                return None
            # A tensor from elsewhere may be one number, never one for each element.
            if any(value.index not in inside and value.shape.numel() != 1 for value in call.inputs):
                return None
        # What only calls activation modules is a container: each of them is a place of its own.
        if all(call.index in within for call in calls):
            return None
        if not any(call.index in within or call.name in ACTIVATING for call in calls):
            return None
        return known_call(calls[0]) or () if len(calls) == 1 and result.dtype == source.dtype else ()

    # --- Functions ---

    def functions(self) -> Iterator[Candidate]:
        groups: dict[Any, list[Call]] = {}
        for call in self.recording.calls:
            if call.name in FUNCTIONS and call.index not in self.inside:
                owner = self._caller(call) or self.model.get_submodule(call.owner)
                exact = call.place is not None and call.place.column is not None
                groups.setdefault((id(owner), call.place, "" if exact else call.name), []).append(call)
        found = [one for calls in groups.values() for one in self._function(calls)]
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
                name = f"{one.name}.{attribute}" if one.name else attribute
                original = one.owner.__dict__[attribute]
                yield replace(one, kind="attribute", key=attribute, original=original, name=name)
            else:
                yield one

    def _function(self, calls: list[Call]) -> list[Candidate]:
        """Return the site of the calls from one place, or a site for each turn of a loop over layers."""
        one = self._called(calls)
        turns = self._turns(calls) if one.source is not None and one.source.countable else []
        if len(turns) < 2 or self.sharing == "shared":
            return [replace(one, reason=one.reason or _varying(calls))]
        each = [self._called(turn) for turn in turns]
        reason = next((other.reason for other in each if other.reason), "")
        return [replace(other, source=one.source, turn=turn, reason=reason) for turn, other in enumerate(each)]

    def written_out(self) -> Iterator[Candidate]:
        """Yield activations that are written as mathematics."""
        for formula in self.formulas:
            first = formula.uses[0]
            one = Candidate(
                "call",
                first.caller or "",
                f"{_shortened(ast.unparse(formula.source.node))}{_where(first)}",
                formula.known[0] if formula.known else formula.name,
                formula.known[1] if formula.known else None,
                uses=formula.uses,
                owner=self.model.get_submodule(first.caller or ""),
                source=formula.source,
                function=first.module,
                reason="its numbers change from run to run" if formula.varies else "",
            )
            turns = self._turns(formula.uses) if formula.source.countable and self.sharing == "per_use" else []
            if len(turns) < 2:
                yield one
            else:
                for number, turn in enumerate(turns):
                    yield replace(one, uses=tuple(turn), function=turn[0].module, turn=number)
        for calls in self.missed:
            why = "it has no base function, and no expression around it depends on one tensor alone, element by element"
            yield self._refusal(calls, calls[0].caller or calls[0].owner, f"{why}; write a module for it")

    def _refusal(self, calls: list[Call], owner: str, reason: str) -> Candidate:
        one = calls[0]
        module = self.model.get_submodule(owner)
        where = f"{one.name}{_where(one)}"
        return Candidate("call", owner, where, one.name, uses=tuple(calls), owner=module, reason=reason)

    def _turns(self, calls: Sequence[Use]) -> list[list[Use]]:
        """Return the uses by their turn in a run of the method, if each turn has a layer of its own before it."""
        frames: dict[int, list[Use]] = {}
        for call in calls:
            frames.setdefault(call.frame, []).append(call)
        turns = [list(turn) for turn in zip(*frames.values(), strict=False)]
        layers = [{layer_before(call.inputs[0]) if call.inputs else None for call in turn} for turn in turns]
        apart = all(len(one) == 1 and None not in one for one in layers) and len(set.union(set(), *layers)) == len(
            turns
        )
        return turns if apart and len({len(frame) for frame in frames.values()}) == 1 else []

    def _called(self, calls: list[Call]) -> Candidate:
        call = calls[0]
        base = FUNCTIONS[call.name]
        owner = call.owner if call.caller is None else call.caller
        known = [known_call(each) for each in calls]
        options = known[0][1] if known[0] else None
        one = Candidate(
            "call",
            owner,
            f"{_called(call)}{_where(call)}",
            base,
            options,
            uses=tuple(calls),
            owner=self.model.get_submodule(owner),
            function=functools.partial(bases.get(base).function, **(options or {})),
            reason=_function_obstacle(calls, known),
        )
        if one.reason:
            return one
        assert call.place is not None
        assert one.owner is not None
        try:
            names = frozenset({call.name, f"{call.name}_"})
            return replace(one, source=source_call(one.owner, call.place, names, made=call.stranger is not None))
        except CannotRewriteError as error:
            return replace(one, reason=str(error))

    # --- What cannot be agile ---

    def refused(self) -> Iterator[Candidate]:
        inside: set[str] = set()
        for name, module in walked(self.model, _unseen):
            kind = type(module).__name__
            if isinstance(module, torch.jit.ScriptModule):
                base = getattr(module, "original_name", kind)
                yield Candidate("module", name, "torch.jit.ScriptModule", base, reason=_SCRIPTED)
                continue
            refused = refused_module(module)
            if refused is not None:
                inside.add(name)
                calls = [call for call in self.recording.calls if call.owner == name]
                yield Candidate("module", name, kind, kind, uses=tuple(calls), reason=refused, original=module)
        groups: dict[Any, list[Call]] = {}
        for call in self.recording.calls:
            if call.owner not in inside and call.index not in self.inside and refused_call(call):
                groups.setdefault((call.owner, call.name, call.place), []).append(call)
        for (owner, _, _), calls in groups.items():
            yield self._refusal(calls, owner, refused_call(calls[0]) or "")

    def scripted(self) -> Iterator[Candidate]:
        """Yield the scripted functions that methods call: a recording sees nothing of them."""
        for name, module in walked(self.model, _unseen):
            if _unseen(module):
                continue
            forward: Any = inspect.unwrap(type(module).forward)
            code = getattr(forward, "__code__", None)
            near = {key: forward.__globals__.get(key) for key in (code.co_names if code else ())} | vars(module)
            for key, value in near.items():
                if isinstance(value, torch.jit.ScriptFunction):
                    yield Candidate("call", name, f"{key} in {type(module).__qualname__}", key, reason=_MAY_RUN)


def walked(model: nn.Module, leaf: Callable[[nn.Module], bool] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module once with its name, but nothing that is only inside leaves (agile modules)."""
    leaf = leaf or _agile
    seen = {id(model)}
    stack = [("", model)]
    while stack:
        name, module = stack.pop()
        yield name, module
        if leaf(module):
            continue
        children = [(f"{name}.{key}" if name else key, child) for key, child in module.named_children()]
        for key, child in reversed(children):
            if id(child) not in seen:
                seen.add(id(child))
                stack.append((key, child))


def _agile(module: nn.Module) -> bool:
    return isinstance(module, AgileModule)


def _unseen(module: nn.Module) -> bool:
    return isinstance(module, (AgileModule, torch.jit.ScriptModule))


def _may_be_composite(module: nn.Module) -> bool:
    if isinstance(module, (AgileModule, torch.jit.ScriptModule)) or type(module).__module__.startswith("torch."):
        return False
    if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
        return False
    return not any(isinstance(child, AgileModule) for child in module.modules())


def _is_slot(visit: Visit, slot: tuple[str, nn.Module, str]) -> bool:
    return bool(visit.slot) and visit.slot[0] is slot[1] and visit.slot[1] == slot[2]


def _position(source: SourceCall) -> tuple[str, int, int, int]:
    # Of calls that begin together the inner one runs first.
    node = source.node
    return source.method.name, node.end_lineno or node.lineno, node.end_col_offset or 0, node.col_offset


def _function_obstacle(calls: list[Call], known: list[Known | None]) -> str:
    call = calls[0]
    if call.name in GATES and all(_gates_its_own(each) for each in calls):
        return (
            "it gates its own argument, and is no single activation: a step is used elsewhere or stands in a branch; "
            "write it as one expression, or as F.silu is written"
        )
    if call.name in GATES and all(_is_gate(each) for each in calls):
        return "used as a gate: its result only multiplies another signal"
    if any(one is None for one in known):
        return "it is called with options for which there is no base function"
    if any(each.reread for each in calls):
        return _REREAD
    if any(len(each.inputs) != 1 or len(each.outputs) != 1 for each in calls):
        return "it is called on something else than one tensor"
    if call.caller is None and call.stranger is not None:
        kind = type(call.stranger).__name__
        return f"it is in a {kind} that runs and is not in the model; keep that as an attribute or in a ModuleList"
    if call.step_of:
        return step_of(call)
    if call.caller is None or call.place is None:
        return (
            "it is called outside the methods of the model's modules; call it in a method, or write a module "
            "for it and keep that in the model"
        )
    return ""


def _varying(calls: list[Call]) -> str:
    known = [known_call(call) for call in calls]
    if any(call.name != calls[0].name for call in calls):
        return "what is called there changes from call to call"
    return "" if all(one == known[0] for one in known) else "its options differ from call to call"


def _gates_its_own(call: Call) -> bool:
    users = [user for output in call.outputs for user in output.users if user.name == "mul"]
    return any(value in user.inputs for user in users for value in call.inputs)


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
            elif user.name in ("add", "sub", "rsub", "neg") and len(user.inputs) == 1:
                outputs += user.outputs  # as in 1 - z
            elif user.name == "mul" and all(value.kind in ("result", "input") for value in user.inputs):
                multiplies = multiplies or len(user.inputs) == 2
            else:
                return False
    return multiplies


def _called(call: Call) -> str:
    return call.name if call.stranger is None or call.caller is None else f"nn.{type(call.stranger).__name__}"


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def _where(call: Call | Visit) -> str:
    if call.place is None:
        return ""
    code = call.place.code
    name = getattr(code, "co_qualname", code.co_name)
    return f" in {name}, {os.path.basename(original_file(code))}:{call.place.line}"
