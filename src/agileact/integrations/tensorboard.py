"""TensorBoard: histograms of scale and location, and the learned activations as pictures.

The curves over the steps come from :func:`agileact.integrations.report`; the callbacks and
:class:`~agileact.integrations.AgileLogger` write all three to every ``SummaryWriter`` that they are given.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from agileact._common.errors import ArgumentTypeError, MissingExtraError
from agileact.integrations.shapes import _values, agile_layers, draw_shapes


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
    for name, module in agile_layers(model).items():
        for parameter in ("scale", "location"):
            values = _values(getattr(module, parameter))
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
            f"writer must have {method}, as TensorBoard's SummaryWriter does; {type(writer).__name__} has not"
        )
