"""The agile layers of a model, and the units of each; a unit is what one pair (scale, location) belongs to."""

import torch
from torch import Tensor, nn

from agileact.functional import find_axes
from agileact.nn import AgileModule
from agileact.nn.rows import local


def agile_layers(model: nn.Module, *, made: bool = False) -> dict[str, AgileModule]:
    """Return the agile modules by name, or only those whose parameters are made.

    The names are without what torch.compile puts in front; "model" is the model itself.
    """
    return {
        name.removeprefix("_orig_mod").removeprefix(".") or "model": module
        for name, module in model.named_modules()
        if isinstance(module, AgileModule) and not (made and module.has_uninitialized_params())
    }


def on_cpu(parameter: Tensor) -> Tensor:
    """Return a parameter's numbers, or this process's part of them, in float32 on the CPU."""
    return local(parameter).to("cpu", torch.float32)


def units_of(module: AgileModule, x: Tensor) -> tuple[int, int]:
    """Return the axes of a module's units in an input or output of it."""
    size = () if module.granularity == "layer" else (module.num_parameters or 0,)
    return find_axes(x, size, module.dim, module.granularity)


def as_rows(x: Tensor, start: int, stop: int) -> Tensor:
    """Return a matrix with a row for each unit."""
    if start == stop:
        return x.reshape(1, -1)
    kept = x.movedim(tuple(range(start, stop)), tuple(range(stop - start)))
    return kept.reshape(kept.shape[: stop - start].numel(), -1)
