"""What is left of an agile activation that cannot be folded whole: a graph of plain PyTorch."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from agileact.nn import AgileMaxPool2d, AgileModule
from agileact.transforms.edit.plain_modules import plain_module
from agileact.transforms.edit.revert import with_hooks_of


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
    """Return what an agile module becomes of whose input nothing is known, as it did not run; None for its origin."""
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
