"""TensorBoard: histograms of scale and location, and the learned activations as pictures.

The curves over the steps come from :func:`agileact.integrations.report`; the callbacks and
:class:`~agileact.integrations.AgileLogger` write all three to every ``SummaryWriter`` that they are given.
"""

from typing import Any

import torch
from torch import Tensor, nn

from agileact import bases
from agileact._common.errors import ArgumentTypeError, MissingExtraError
from agileact._common.optional import require
from agileact.monitor.units import agile_layers, on_cpu
from agileact.nn import AgileModule, AgileWrapped

_UNITS = 32
"""So many units of a layer are drawn at most, evenly spread over it."""
_LAYERS = 24
"""Of so many layers at most: the first ones and the last ones."""
_LEARNED, _PLAIN = "#0072B2", "#222222"


def add_histograms(writer: Any, model: nn.Module, step: int, prefix: str = "agileact") -> int:
    """Write a histogram of each layer's scales and of its locations.

    Args:
        writer: A :class:`torch.utils.tensorboard.SummaryWriter`, or anything with its ``add_histogram``.
        model: The model.
        step: The step that they are of.
        prefix: What all names begin with: ``prefix/layer/scale`` and ``prefix/layer/location``.

    Returns:
        How many were written; a layer with a number that is not finite has none.

    Raises:
        ArgumentTypeError: If ``writer`` has no ``add_histogram``.

    Example:
        >>> import agileact as ag
        >>> class Writer:
        ...     def add_histogram(self, tag, values, step):
        ...         print(tag, values.tolist(), step)
        >>> add_histograms(Writer(), nn.Sequential(nn.Linear(4, 2), ag.AgileReLU(2)), step=7)
        agileact/1/scale [1.0, 1.0] 7
        agileact/1/location [0.0, 0.0] 7
        2
    """
    _check(writer, "add_histogram")
    written = 0
    for name, module in agile_layers(model, made=True).items():
        for parameter in ("scale", "location"):
            values = on_cpu(getattr(module, parameter))
            if values.numel() and values.isfinite().all():
                writer.add_histogram(f"{prefix}/{name}/{parameter}", values, step)
                written += 1
    return written


def add_shapes(writer: Any, model: nn.Module, step: int, prefix: str = "agileact") -> bool:
    """Write a picture of the learned activations: a panel for each layer, a line for each unit, f dotted.

    Args:
        writer: A :class:`torch.utils.tensorboard.SummaryWriter`, or anything with its ``add_figure``.
        model: The model.
        step: The step that it is of.
        prefix: The picture is ``prefix/shapes``.

    Returns:
        Whether it was written: not without matplotlib, nor without agile layers.

    Raises:
        ArgumentTypeError: If ``writer`` has no ``add_figure``.

    Example:
        >>> import agileact as ag
        >>> class Writer:
        ...     def add_figure(self, tag, figure, step):
        ...         print(tag, len(figure.axes), step)
        >>> add_shapes(Writer(), nn.Sequential(nn.Linear(4, 2), ag.AgileReLU(2)), step=7)
        agileact/shapes 1 7
        True
    """
    _check(writer, "add_figure")
    try:
        figure = draw_shapes(model)
    except MissingExtraError:
        return False
    if figure is None:
        return False
    writer.add_figure(f"{prefix}/shapes", figure, step)
    return True


def _check(writer: Any, method: str) -> None:
    if not callable(getattr(writer, method, None)):
        raise ArgumentTypeError(
            f"writer must have {method}, as TensorBoard's SummaryWriter does; {type(writer).__name__} does not"
        )


@torch.no_grad()
def shape(module: AgileModule, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return f at the points x, and :math:`\sum_j a_j f(x - b_j)`, with its gain, of up to 32 units as rows."""
    scale, location = (on_cpu(one).view(module.terms, -1) for one in (module.scale, module.location))
    kept = torch.linspace(0, scale.shape[1] - 1, min(scale.shape[1], _UNITS)).round().long()
    shifted = x - location[:, kept, None]
    gain = getattr(module, "gain", None)
    if gain is not None:
        shifted = shifted * on_cpu(gain)[kept, None]
    return _function(module, x), (scale[:, kept, None] * _function(module, shifted)).sum(0)


def _function(module: AgileModule, x: Tensor) -> Tensor:
    if isinstance(module, AgileWrapped):
        # It computes where its own numbers lie.
        own = module.scale
        return module.function(x.to(own.device, own.dtype)).to(x.device, x.dtype)
    return bases.get(module.base).function(x, **module.options)


def draw_shapes(model: nn.Module) -> Any:
    """Return a picture with a panel for each agile layer, f dotted and a line a unit; None if no layer has a unit."""
    made = agile_layers(model, made=True)
    layers = [(name, module) for name, module in made.items() if on_cpu(module.scale).numel()]
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
