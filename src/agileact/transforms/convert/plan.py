"""What is put where: the agile module of each activation, put into the model and taken out again."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from agileact import bases
from agileact import nn as agile_nn
from agileact._common.errors import ArgumentError, ConversionError
from agileact.bases import Value
from agileact.functional import Granularity
from agileact.nn import Agile, AgileModule, AgileWrapped, CombinedAgile
from agileact.transforms.convert.parameter_shape import Geometry, MisfitError
from agileact.transforms.convert.sites import Candidate
from agileact.transforms.edit.plain_modules import plain_module
from agileact.transforms.edit.revert import (
    Origin,
    origin_of,
    refresh_fast_paths,
    set_origin,
    share_hooks,
    without_hooks,
)
from agileact.transforms.edit.rewrite import edited_class, edits_of
from agileact.transforms.edit.source import Edit

BaseArgument = str | Mapping[str, Any] | None
"""A base function that is asked for: its name, or a mapping of "name" and its options."""


@dataclass(frozen=True)
class Placement:
    """An activation and the agile module that takes its place; None where none does, for the site's reason."""

    site: Candidate
    module: AgileModule | None = None
    child: str = ""
    edit: Edit | None = None

    @property
    def name(self) -> str:
        """What the report calls it."""
        if self.module is None or self.site.kind != "call":
            return self.site.name
        prefix = self.site.name.rpartition(".")[0] if self.site.key else self.site.name
        turn = "" if self.site.turn is None else str(self.site.turn)
        return ".".join(filter(None, [prefix, self.child, turn]))

    def left(self, reason: str) -> "Placement":
        """Return the same without an agile module."""
        return Placement(replace(self.site, reason=reason))


@dataclass(frozen=True)
class Planner:
    """What a conversion was asked for, and the agile module of each activation."""

    model: nn.Module
    base: tuple[str, dict[str, Value]] | None
    granularity: Granularity
    terms: int
    dim: int | None

    def plan(self, sites: Iterable[Candidate]) -> list[Placement]:
        """Return what is put where; the model stays as it is."""
        # Each for the values of one recording.
        where = [Geometry(self.model, self.granularity, self.dim) for _ in range(2)]
        names = _Names()
        with torch.inference_mode(False):  # parameters made in it could never be trained
            return together([self._placement(one, where[one.training], names) for one in sites])

    def _placement(self, one: Candidate, where: Geometry, names: "_Names") -> Placement:
        if one.reason or one.already:
            return Placement(one)
        try:
            size, dim, note = where.of(one.uses)
        except MisfitError as misfit:
            return Placement(replace(one, reason="; ".join(filter(None, [str(misfit), one.note]))))
        device, dtype = where.placement(one.uses)
        keywords: dict[str, Any] = {"granularity": self.granularity, "dim": dim, "device": device, "dtype": dtype}
        original = one.original if isinstance(one.original, nn.Module) else None
        name, options = self.base if self.base is not None else (one.base, one.options)
        if options is None:
            note = "; ".join(filter(None, ["no base function: it computes itself", one.note, note]))
            function: Any = without_hooks(original) if original is not None else one.function
            module: AgileModule = AgileWrapped(function, size, terms=self.terms, **keywords)
        else:
            note = "; ".join(filter(None, [one.note, note]))
            module = agile_module(name, size, self.terms, keywords | options)
        module.train((original or one.owner or self.model).training)
        set_origin(module, Origin(one.kind, one.original, replaced=self.base is not None))
        if original is not None and not module.has_uninitialized_params():
            share_hooks(original, module)
        one = replace(one, note=note)
        if one.source is None or one.kind != "call":
            return Placement(one, module, one.key)
        child = names.of(one)
        return Placement(one, module, child, one.source.edit(child, one.key, one.turn is not None))

    def wrapped(self, placement: Placement) -> Placement:
        """Return a placement whose f is computed by what computed it before."""
        one, module = placement.site, placement.module
        assert module is not None
        here = next((each for each in (one.original, one.function) if isinstance(each, nn.Module)), None)
        plain = without_hooks(here) if here is not None else plain_module(module)
        size = module.num_parameters if self.granularity != "layer" else None
        wrapped = AgileWrapped(
            plain,
            size,
            terms=self.terms,
            granularity=self.granularity,
            dim=module.dim,
            device=module.scale.device,
            dtype=module.scale.dtype,
        ).train(module.training)
        origin = origin_of(module)
        assert origin is not None
        set_origin(wrapped, origin)
        share_hooks(module, wrapped)
        note = "on such an input our function has other bits: it computes itself"
        return replace(placement, site=replace(one, note="; ".join(filter(None, [note, one.note]))), module=wrapped)


def put_in(model: nn.Module, plan: Sequence[Placement]) -> nn.Module:
    """Put the agile modules of a plan into a model, and return it, or what takes the place of the model itself."""
    result = model
    for one in plan:
        site = one.site
        if one.module is None:
            continue
        if site.kind == "module":
            for parent, key in site.slots:
                parent._modules[key] = one.module
            result = one.module if site.original is model else result
        else:
            assert site.owner is not None
            site.owner.__dict__.pop(site.key if site.kind == "attribute" else "", None)
            if site.turn is None:
                site.owner._modules[one.child] = one.module
            else:
                turns = site.owner._modules.setdefault(one.child, nn.ModuleList())
                assert turns is not None
                turns._modules[str(site.turn)] = one.module
    for owner, edits in _by_owner(plan):
        kind = type(owner)
        try:
            owner.__class__ = edited_class(kind, edits_of(kind) | edits)
        except Exception as error:
            raise ConversionError(
                f"{kind.__qualname__} cannot be given another {sorted(edit.method for edit in edits)[0]}: {error}; "
                "leave the calls of functions in it out by filter_fn"
            ) from error
    refresh_fast_paths(result)
    return result


def take_out(model: nn.Module, plan: Sequence[Placement]) -> None:
    """Undo :func:`put_in`, also where it stopped in between: the plan backwards."""
    for owner, edits in _by_owner(plan):
        owner.__class__ = edited_class(type(owner), edits_of(type(owner)) - edits)
    for one in reversed(plan):
        site = one.site
        if one.module is None:
            continue
        for parent, key in site.slots:
            parent._modules[key] = site.original
        if site.kind == "module" or site.owner is None:
            continue
        if site.owner._modules.pop(one.child, None) is not None and site.kind == "attribute":
            site.owner.__dict__[site.key] = site.original
    refresh_fast_paths(model)


def _by_owner(plan: Sequence[Placement]) -> list[tuple[nn.Module, frozenset[Edit]]]:
    owners: dict[int, tuple[nn.Module, set[Edit]]] = {}
    for one in plan:
        if one.edit is not None and one.site.owner is not None:
            owners.setdefault(id(one.site.owner), (one.site.owner, set()))[1].add(one.edit)
    return [(owner, frozenset(edits)) for owner, edits in owners.values()]


def together(plan: Sequence[Placement]) -> list[Placement]:
    """Leave all turns of a call where one of them is left."""
    reasons = {id(one.site.source): one.site.reason for one in plan if one.site.turn is not None and one.module is None}
    return [
        one.left(reasons[id(one.site.source)]) if one.site.turn is not None and id(one.site.source) in reasons else one
        for one in plan
    ]


class _Names:
    """Gives new children names that nothing of their owner has, and all turns of a call the same."""

    def __init__(self) -> None:
        self.taken: dict[int, set[str]] = {}
        self.turns: dict[int, str] = {}

    def of(self, site: Candidate) -> str:
        if id(site.source) in self.turns:
            return self.turns[id(site.source)]
        wish = name = site.key or site.base
        number, taken = 1, self.taken.setdefault(id(site.owner), set())
        while hasattr(site.owner, name) or name in taken:
            number += 1
            name = f"{wish}_{number}"
        taken.add(name)
        if site.turn is not None:
            self.turns[id(site.source)] = name
        return name


# --- The module of a base function ---


def new_base(base: BaseArgument) -> tuple[str, dict[str, Value]] | None:
    """Return name and options of a base function that is asked for, None if none is."""
    if base is None:
        return None
    if isinstance(base, Mapping):
        options = dict(base)
        name = options.pop("name", None)
        if name is None:
            raise ArgumentError(
                f"base must have a 'name' beside its options, as {{'name': 'relu'}} has; it is {base!r}"
            )
    else:
        name, options = base, {}
    return name, bases.get(name).resolve(options)


def agile_module(base: str, size: int | None, terms: int, keywords: Mapping[str, Any]) -> AgileModule:
    """Return the agile module of a base function: of the class that is for it alone, where there is one."""
    if terms > 1:
        return CombinedAgile(base, size, terms, **keywords)
    named = _named_classes().get(base)
    return Agile(base, size, **keywords) if named is None else named(size, **keywords)


@functools.cache
def _named_classes() -> dict[str, Callable[..., Agile]]:
    classes = [kind for kind in vars(agile_nn).values() if isinstance(kind, type) and issubclass(kind, Agile)]
    return {kind(1).base: kind for kind in classes if kind.fixed_base}  # type: ignore[arg-type]
