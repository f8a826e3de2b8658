"""A gain folds as the scale of an identity does: a f(g (x - b)) is a f behind g (x - b), two activations in a row."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from agileact.nn import Agile, AgileIdentity
from agileact.transforms.edit.plain_modules import plain_module
from agileact.transforms.edit.revert import share_hooks, with_hooks_of
from agileact.transforms.report import FoldedSite
from agileact.transforms.trace.writable import hooked

INNER, OUTER = "gain", "function"


class Apart(nn.Sequential):
    """An activation with a gain, taken apart: the identity with g as its scale and b, then f with a."""

    def __init__(self, whole: Agile) -> None:
        size = (whole.sample_shape or whole.num_parameters) if whole.granularity != "layer" else None
        layout: dict[str, Any] = {"granularity": whole.granularity, "dim": whole.dim}
        layout |= {"device": whole.scale.device, "dtype": whole.scale.dtype}
        inner, outer = AgileIdentity(size, **layout), Agile(whole.base, size, **{**layout, **whole.options})
        super().__init__()
        self.add_module(INNER, inner)
        self.add_module(OUTER, outer)
        assert whole.gain is not None
        for taken, given in ((inner.scale, whole.gain), (inner.location, whole.location), (outer.scale, whole.scale)):
            with torch.no_grad():
                taken.copy_(given)
            taken.requires_grad_(given.requires_grad)
        self.whole = [whole]  # in a list: a module in an attribute would be a child
        share_hooks(whole, self)
        self.train(whole.training)


def taken_apart(model: nn.Module) -> nn.Module:
    """Put what is taken apart into the slots of the activations with a gain, in place; return the model."""
    made: dict[nn.Module, Apart] = {}

    def of(module: nn.Module) -> nn.Module:
        if not isinstance(module, Agile) or module.gain is None:
            return module
        if module not in made:
            made[module] = Apart(module)
        return made[module]

    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child is not None:
                parent._modules[key] = of(child)
    return of(model)


def put_together(model: nn.Module) -> tuple[nn.Module, dict[str, Agile]]:
    """Undo :func:`taken_apart`, with the numbers that the parts have now; return model and activations, by name."""
    names = {}
    for name, module in model.named_modules():
        if isinstance(module, Apart):
            names[name] = whole = module.whole[0]
            for key, part, own in (
                ("gain", INNER, "scale"),
                ("location", INNER, "location"),
                ("scale", OUTER, "scale"),
            ):
                with torch.no_grad():
                    getattr(whole, key).copy_(module.get_submodule(part).get_parameter(own))
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if isinstance(child, Apart):
                parent._modules[key] = child.whole[0]
    return (model.whole[0] if isinstance(model, Apart) else model), names


def inner_name(name: str) -> str:
    """Return the name of the part with the gain and the location."""
    return f"{name}.{INNER}" if name else INNER


def outer_name(name: str) -> str:
    """Return the name of the part with f and the scale."""
    return f"{name}.{OUTER}" if name else OUTER


def siblings(name: str, names: Container[str]) -> list[str]:
    """Return the name of the other part, if a name is that of a part."""
    whole, _, part = name.rpartition(".")
    other = {INNER: outer_name, OUTER: inner_name}.get(part)
    return [other(whole)] if other is not None and other(whole) in names else []


def joined(
    name: str, whole: Agile, lefts: Sequence[nn.Module | None], sites: Mapping[str, FoldedSite]
) -> tuple[nn.Module | None, FoldedSite]:
    """Return what is left of an activation, of what is left of its parts, and its line in the report."""
    inner, outer = sites[inner_name(name)], sites[outer_name(name)]
    first, second = lefts
    left = second
    if first is not None or hooked(whole):
        some = [part for part in (first, second or plain_module(whole)) if part is not None]
        left = with_hooks_of(whole, nn.Sequential(*some).train(whole.training))
    reasons = [inner.reason.replace("scale stays", "gain stays"), outer.reason]
    statuses = {inner.status, outer.status}
    return left, replace(
        outer,
        name=name,
        status=statuses.pop() if len(statuses) == 1 else "partly folded",
        reason="; ".join(dict.fromkeys(filter(None, reasons))),
        location_into=inner.location_into,
        created=inner.created,
        gain_into=inner.scale_into or outer.scale_into,
        kept=tuple("gain" if one == "scale" else one for one in inner.kept) + outer.kept,
    )
