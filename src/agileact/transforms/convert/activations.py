"""Which modules of a model are activations: those of PyTorch, and those that only compute an elementwise function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import nn

from agileact.bases import Value
from agileact.nn import AgileModule
from agileact.transforms.trace.activation_tables import (
    ACTIVATING,
    POINTWISE,
    known_call,
    known_module,
    torch_activation,
)
from agileact.transforms.trace.recorder import record
from agileact.transforms.trace.recording import Arguments, Recording, Visit

Known = tuple[str, dict[str, Value]]
REREAD = "it works in place, and what it overwrites is used again: an agile module does not work in place"


class Activations:
    """Which modules of a model are activations, before the model runs and after.

    Modules that stand in several slots are given a copy for each slot, so that a run tells the slots apart.
    """

    def __init__(self, model: nn.Module, sharing: str) -> None:
        self.model = model
        self.sharing = sharing
        self.known: dict[int, Known | None] = {}
        self.in_place: dict[int, str] = {}
        # What stood in a slot before it was given a copy.
        self.apart: list[tuple[nn.Module, str, nn.Module]] = []
        self.originals: dict[int, nn.Module] = {}
        self.patched = {id(module) for module in model.modules() if "forward" in module.__dict__}
        for _, module in walked(model):
            known = known_module(module)
            # One with options that our function does not take is an activation all the same.
            if known is not None or torch_activation(module) is not None:
                self.known[id(module)] = known

    def is_leaf(self, module: nn.Module) -> bool:
        """Return whether a recording takes a module as one call."""
        return isinstance(module, AgileModule) or id(module) in self.known

    def walked(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield every module once with its name, but nothing inside activations."""
        return walked(self.model, self.is_leaf)

    def run(self, example_inputs: Arguments) -> Recording:
        """Run the model, find what more is an activation, and return a recording in which all are single calls."""
        recording = record(self.model, example_inputs, leaf=self.is_leaf)
        found = self._composites(recording)
        self.known.update(found)
        if self._take_apart() or found:
            recording = record(self.model, example_inputs, leaf=self.is_leaf)
        return recording

    def put_together(self) -> None:
        """Put the shared module back into every slot that still has a copy of it."""
        for parent, key, original in self.apart:
            child = parent._modules.get(key)
            if child is not None and id(child) in self.originals:
                parent._modules[key] = original
        self.apart.clear()

    def original(self, module: nn.Module) -> nn.Module:
        """Return the module that a copy was made of."""
        return self.originals.get(id(module), module)

    def _take_apart(self) -> bool:
        if self.sharing == "shared":
            return False
        slots: dict[int, list[tuple[nn.Module, str]]] = {}
        for _, parent in self.walked():
            if not self.is_leaf(parent):
                for key, child in parent._modules.items():
                    if child is not None and id(child) in self.known and child is not self.model:
                        slots.setdefault(id(child), []).append((parent, key))
        for places in slots.values():
            for parent, key in places[1:]:
                original = parent._modules[key]
                assert original is not None
                single = copy.copy(original)
                parent._modules[key] = single
                self.apart.append((parent, key, original))
                self.originals[id(single)] = original
                self.known[id(single)] = self.known[id(original)]
                if id(original) in self.in_place:
                    self.in_place[id(single)] = self.in_place[id(original)]
        return any(len(places) > 1 for places in slots.values())

    def _composites(self, recording: Recording) -> dict[int, Known | None]:
        """Return the modules that only compute an elementwise function of their one argument, the outermost ones."""
        visits: dict[int, list[Visit]] = {}
        for visit in recording.visits:
            visits.setdefault(id(visit.module), []).append(visit)
        found: dict[int, Known | None] = {}
        inner: set[int] = set()
        for _, module in walked(self.model):
            if id(module) in inner or id(module) not in visits or not _may_be_composite(module):
                continue
            runs = [_composite(visit, recording) for visit in visits[id(module)]]
            if all(run is not None for run in runs):
                # One call of a function with a base, on the argument itself, is that base; anything else is wrapped.
                same = all(run == runs[0] for run in runs) and id(module) not in self.patched
                found[id(module)] = (runs[0] or None) if same else None
                inner |= {id(child) for child in module.modules()}
                calls = [call for visit in visits[id(module)] for call in recording.calls[visit.start : visit.stop]]
                if any(call.inplace and call.reread for call in calls):
                    self.in_place[id(module)] = REREAD
        return found


def walked(
    model: nn.Module, leaf: Callable[[nn.Module], bool] = lambda module: isinstance(module, AgileModule)
) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module once with its name, but nothing that is only inside leaves."""
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


def _may_be_composite(module: nn.Module) -> bool:
    if isinstance(module, (AgileModule, torch.jit.ScriptModule)) or type(module).__module__.startswith("torch."):
        return False
    if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
        return False
    return not any(isinstance(child, AgileModule) for child in module.modules())


def _composite(visit: Visit, recording: Recording) -> Known | tuple[()] | None:
    """Return the base function that a run of a module is; an empty tuple for another function; None if it is none."""
    calls = recording.calls[visit.start : visit.stop]
    if len(visit.inputs) != 1 or len(visit.outputs) != 1 or not calls:
        return None
    source, result = visit.inputs[0], visit.outputs[0]
    made_inside = result.maker is not None and visit.start <= result.maker.index < visit.stop
    if result.shape != source.shape or not made_inside:
        return None
    inside = {output.index for call in calls for output in call.outputs} | {source.index}
    active = False
    for call in calls:
        if call.name not in POINTWISE and (call.name != "module" or isinstance(call.function, AgileModule)):
            return None
        # A tensor from elsewhere may be one number, never one for each element.
        if any(value.index not in inside and value.shape.numel() != 1 for value in call.inputs):
            return None
        active = active or call.name == "module" or call.name in ACTIVATING
    # What only calls activation modules is a container: each of them is a place of its own.
    if not active or all(call.name == "module" for call in calls):
        return None
    if len(calls) == 1 and result.dtype == source.dtype:
        return known_call(calls[0]) or ()
    return ()
