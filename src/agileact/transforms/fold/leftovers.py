"""What is left of an agile activation that does not fold whole: a graph of plain PyTorch, or the rest of its pair."""

import operator
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn

from agileact.nn import AgileMaxPool2d, AgileModule
from agileact.transforms.edit.gains import inner_name, outer_name
from agileact.transforms.edit.plain_modules import plain_module
from agileact.transforms.edit.revert import with_hooks_of
from agileact.transforms.fold.gauge import Numbers
from agileact.transforms.fold.labels import Activation
from agileact.transforms.fold.solve import Solution, residual_factor

Pair = tuple[Numbers, Numbers]
"""Scale and location."""


def residual_module(
    module: AgileModule, locations: Sequence[Tensor | None], scales: Sequence[Tensor | None], *, swap: int | None = None
) -> nn.Module:
    """Return a module of plain PyTorch that computes the sum of a_j f(x - b_j); None for a_j or b_j that has no effect.

    It is picklable and needs nothing of this package. Parameters and hooks are as those of ``module``, and copies keep
    them. ``swap`` is an axis of the input to be exchanged with the last one first, and back at the end.
    """
    root = nn.Module()
    plain = plain_module(module)
    if isinstance(module, AgileMaxPool2d):
        plain, pool = plain.children()
        root.add_module("pool", pool)
    root.add_module("function", plain)
    graph = fx.Graph()
    x = graph.placeholder("x")
    given = x if swap is None else graph.call_method("transpose", (x, swap, -1))
    total: fx.Node | None = None
    for number, (location, scale) in enumerate(zip(locations, scales, strict=True)):
        suffix = str(number) if len(locations) > 1 else ""
        term = given
        if location is not None:
            name = f"location{suffix}"
            root.register_parameter(name, _parameter(location, module.location))
            term = graph.call_function(operator.sub, (term, _cast(graph, name, given)))
        term = graph.call_module("function", (term,))
        if scale is not None:
            name = f"scale{suffix}"
            root.register_parameter(name, _parameter(scale, module.scale))
            term = graph.call_function(operator.mul, (term, _cast(graph, name, given)))
        total = term if total is None else graph.call_function(operator.add, (total, term))
    assert total is not None
    if swap is not None:
        total = graph.call_method("transpose", (total, swap, -1))
    if isinstance(module, AgileMaxPool2d):
        total = graph.call_module("pool", (total,))
    graph.output(total)
    return with_hooks_of(module, fx.GraphModule(root, graph).train(module.training))


def _cast(graph: fx.Graph, name: str, x: fx.Node) -> fx.Node:
    """Read a parameter in the dtype of the signal, which it may not have under autocast."""
    return graph.call_method("type_as", (graph.get_attr(name), x))


def _parameter(values: Tensor, like: Tensor) -> nn.Parameter:
    made = values.to(device=like.device, dtype=like.dtype).clone()
    return nn.Parameter(made, requires_grad=like.requires_grad)


def unseen_module(module: AgileModule) -> nn.Module | None:
    """Return the replacement of an agile module of unknown input, as it did not run; None for its origin."""
    if module.num_parameters is None:
        return None
    starts = module.initial_values().items()
    if module.start_scale == 1 and all(torch.equal(getattr(module, name), start) for name, start in starts):
        return None
    scales, locations = (one.detach().view(module.terms, -1) for one in (module.scale, module.location))
    swap = None
    if module.granularity == "channel" and module.dim != -1:
        swap = module.dim
    elif module.granularity == "element":
        shape = (module.terms, *(module.sample_shape or (-1,)))
        scales, locations = scales.view(shape), locations.view(shape)
    return residual_module(module, list(locations), list(scales), swap=swap)


# --- What stays agile ---


def remaining_pair(site: Activation, solution: Solution, stays: bool, scale: Numbers, location: Numbers) -> Pair | None:
    """Return the pair with which an agile module does what is not folded of it; None if no pair does.

    ``stays`` says whether its location does.
    """
    if site.module.terms > 1:
        return scale, location
    pair = np.ones_like(scale), np.zeros_like(location)
    parts = []
    for use in site.uses:
        factor = (
            residual_factor(use, scale, solution.gauges) if site.name in solution.reasons else np.ones(use.index.size)
        )
        moved = location[use.index] / solution.gauges[use.inputs] if stays else np.zeros(use.index.size)
        parts.append((use.index, factor, moved))
        pair[0][use.index], pair[1][use.index] = factor, moved
    # A gauge that differs from place to place, where there is one pair for all of them, fits no pair.
    fits = (
        np.allclose(one[index], part, 1e-12, 0, True)
        for index, *both in parts
        for one, part in zip(pair, both, strict=True)
    )
    return pair if all(fits) else None


def changes(pair: Pair, before: Pair) -> bool:
    """Return whether a pair is another one than before."""
    return not all(np.array_equal(one, other, equal_nan=True) for one, other in zip(pair, before, strict=True))


def remains(pair: Pair) -> bool:
    """Return whether a pair does anything."""
    return bool((pair[0] != 1).any() or (pair[1] != 0).any())


def put_pair(module: AgileModule, pair: Pair) -> None:
    """Give an agile module another pair."""
    with torch.no_grad():
        for parameter, values in zip((module.scale, module.location), pair, strict=True):
            parameter.copy_(torch.from_numpy(values))


def not_writable(model: nn.Module) -> set[str]:
    """Return the names of the agile modules whose parameters are pruned, parametrised or shared with others."""
    uses = Counter(id(one) for module in model.modules() for one in module._parameters.values() if one is not None)
    found = set()
    for name, module in model.named_modules():
        if isinstance(module, AgileModule):
            gained = getattr(module, "gain", None) is not None
            keys = ("scale", "location", "gain")[: 2 + gained]
            if any(uses[id(module._parameters.get(key))] != 1 for key in keys):
                found |= {inner_name(name), outer_name(name)} if gained else {name}
    return found
