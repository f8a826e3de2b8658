"""A picture of what the activations of a model have become."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from agileact import bases
from agileact._common.optional import require
from agileact.nn import AgileModule, AgileWrapped

_UNITS = 32
"""So many units of a layer are drawn at most, evenly spread over it."""
_LAYERS = 24
"""Of so many layers at most: the first ones and the last ones."""
_LEARNED, _PLAIN = "#0072B2", "#222222"


def agile_layers(model: nn.Module) -> dict[str, AgileModule]:
    """Return the agile modules that have parameters, by name; a name as the monitor gives it."""
    return {
        name.removeprefix("_orig_mod").removeprefix(".") or "model": module
        for name, module in model.named_modules()
        if isinstance(module, AgileModule) and not module.has_uninitialized_params()
    }


@torch.no_grad()
def shape(module: AgileModule, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return f at the points x, and :math:`\sum_j a_j f(x - b_j)` of up to 32 units as rows.

    Args:
        module: The module.
        x: Points, 1-D, on the CPU.

    Example:
        >>> import agileact as ag
        >>> plain, learned = shape(ag.AgileReLU(2), torch.tensor([-1.0, 2.0]))
        >>> plain.tolist(), learned.tolist()
        ([0.0, 2.0], [[0.0, 2.0], [0.0, 2.0]])
    """
    scale, location = (_values(one).view(module.terms, -1) for one in (module.scale, module.location))
    kept = torch.linspace(0, scale.shape[1] - 1, min(scale.shape[1], _UNITS)).round().long()
    shifted = x - location[:, kept, None]
    return _function(module, x), (scale[:, kept, None] * _function(module, shifted)).sum(0)


def _function(module: AgileModule, x: Tensor) -> Tensor:
    if isinstance(module, AgileWrapped):
        # It computes where its own numbers lie.
        own = module.scale
        return module.function(x.to(own.device, own.dtype)).to(x.device, x.dtype)
    return bases.get(module.base).function(x, **module.options)


def _values(parameter: Tensor) -> Tensor:
    """Return a parameter's numbers on the CPU; of one that is sharded, this process's part."""
    local: Any = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    values: Tensor = local.detach().to("cpu", torch.float32)
    return values


def draw_shapes(model: nn.Module) -> Any:
    """Return a picture with a panel for each agile layer: f dotted, and each unit's learned a f(x - b).

    Returns:
        A :class:`matplotlib.figure.Figure`; None if no layer has a unit here.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    layers = [(name, module) for name, module in agile_layers(model).items() if _values(module.scale).numel()]
    if len(layers) > _LAYERS:
        layers = layers[: _LAYERS // 2] + layers[-_LAYERS // 2 :]
    if not layers:
        return None
    x = torch.linspace(-4, 4, 161)
    columns = min(4, len(layers))
    rows = -(-len(layers) // columns)
    figure = require("matplotlib.figure", "monitor").Figure(
        figsize=(max(4.2, 2.5 * columns), 0.7 + 2.1 * rows), dpi=100, layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(layers) :]:
        axis.set_visible(False)
    for axis, (name, module) in zip(axes.flat, layers, strict=False):
        plain, learned = shape(module, x)
        for index, row in enumerate(learned):
            axis.plot(x, row, color=_LEARNED, alpha=0.5, linewidth=1.0, label="" if index else "learned, by unit")
        axis.plot(x, plain, color=_PLAIN, linestyle=(0, (1, 1.5)), linewidth=1.4, label="plain f")
        axis.set_title(f"{name}: {module.base}", fontsize=9, loc="left", parse_math=False)
        axis.tick_params(labelsize=8)
        axis.grid(color="#e4e4e4", linewidth=0.6)
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False
    )
    return figure
