"""What an activation has become: its function, sampled channel by channel."""

import torch
from torch import nn

from agileact.baselines import ParametricActivation
from agileact.nn import AgileModule
from agileact.study.spec.result import Shape

_POINTS = tuple(round(-6 + 0.2 * index, 1) for index in range(61))
_CHANNELS = 32
_NUMBERS = 1024
"""So many of a layer's numbers are kept at most: a picture can show no more, and a store holds many results."""


def sampled(model: nn.Module) -> dict[str, list[list[float]]]:
    """Return the rows of every learned activation of ``model``, by the module's name.

    Example:
        >>> import agileact as ag
        >>> rows = sampled(nn.Sequential(nn.Linear(2, 3), ag.AgileReLU(3)))
        >>> len(rows["1"]), rows["1"][0][30:33]
        (1, [0.0, 0.2, 0.4])
    """
    return {name: _rows(module) for name, module in _learned(model).items()}


def shapes(model: nn.Module, before: dict[str, list[list[float]]]) -> dict[str, Shape]:
    """Return the shapes of every learned activation, given what :func:`sampled` returned before the training."""
    found = {}
    for name, module in _learned(model).items():
        numbers = (module.scale, module.location) if isinstance(module, AgileModule) else ()
        scale, location = map(_numbers, numbers) if numbers else ([], [])
        found[name] = Shape(_POINTS, before[name], _rows(module), scale, location)
    return found


def _learned(model: nn.Module) -> dict[str, AgileModule | ParametricActivation]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (AgileModule, ParametricActivation)) and module.granularity != "element"
    }


@torch.no_grad()
def _rows(module: AgileModule | ParametricActivation) -> list[list[float]]:
    count = module.num_parameters or 1
    parameter = next(module.parameters())
    x = torch.tensor(_POINTS, dtype=parameter.dtype, device=parameter.device)
    # A sample a point, the channels along the module's own axis, everything else of size one.
    dimensions = module.dim + 1 if module.dim > 0 else 1 - module.dim
    sizes = [len(x)] + [1] * (dimensions - 1)
    sizes[module.dim] = count
    column = x.view(-1, *[1] * (dimensions - 1)).expand(sizes)
    rows = module(column.contiguous()).reshape(len(x), count).t()
    kept = torch.linspace(0, count - 1, min(count, _CHANNELS)).round().long()
    found = [[_short(value) for value in row] for row in rows[kept].tolist()]
    return found[:1] if all(row == found[0] for row in found) else found


def _numbers(values: torch.Tensor) -> list[float]:
    return [] if values.numel() > _NUMBERS else [_short(value) for value in values.detach().tolist()]


def _short(value: float) -> float:
    """Four digits: more than a picture shows."""
    return float(f"{value:.4g}")
