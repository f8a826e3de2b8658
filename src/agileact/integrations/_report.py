"""From a monitor to a logger: any of those that people use, told apart by the method that each has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agileact._errors import ArgumentTypeError
from agileact.monitor import Monitor

Log = Callable[[dict[str, float], int], object]
"""Takes the numbers of one step by name, and the step."""


def report(monitor: Monitor, logger: Any, prefix: str = "agileact") -> int:
    """Write what a monitor has recorded since the last report to a logger.

    Args:
        monitor: The monitor; whatever is written is written once.
        logger: One of these, tried in this order: a Weights & Biases run, by its ``log(metrics, step=step)``; MLflow
            (the module, or a client's bound method as a function) or a Lightning logger, by ``log_metrics(metrics,
            step=step)``; a TensorBoard ``SummaryWriter``, by ``add_scalar(name, value, step)``; or a function of
            ``(metrics, step)``.
        prefix: What all names begin with: ``prefix/layer/parameter/statistic``.

    Returns:
        How many numbers were written.

    Raises:
        ArgumentTypeError: If the logger is none of these.

    Example:
        >>> import torch, agileact as ag
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), ag.AgileSigmoid(3))
        >>> def show(metrics, step):
        ...     print(step, len(metrics), metrics["agileact/1/scale/max"])
        >>> report(ag.Monitor(model), show)
        0 14 1.0
        14
    """
    if callable(getattr(logger, "add_scalar", None)):
        return monitor.to_tensorboard(logger, prefix)
    log = log_function(logger)
    steps = _Steps()
    written = monitor.to_tensorboard(steps, prefix)
    for step, metrics in steps.found.items():
        log(metrics, step)
    return written


def log_function(logger: Any) -> Log:
    """Return the function of ``(metrics, step)`` that writes to a logger.

    Raises:
        ArgumentTypeError: If there is none.
    """
    for name in ("log", "log_metrics"):
        method = getattr(logger, name, None)
        if callable(method):
            return lambda metrics, step: method(metrics, step=step)
    if callable(logger):
        function: Log = logger
        return function
    raise ArgumentTypeError(
        "logger must have log(metrics, step=...), log_metrics(metrics, step=...) or add_scalar(name, value, step), or "
        f"be a function of (metrics, step); {type(logger).__name__} has and is none of these"
    )


class _Steps:
    """Looks like a TensorBoard writer and collects what is written, step by step."""

    def __init__(self) -> None:
        self.found: dict[int, dict[str, float]] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.found.setdefault(step, {})[tag] = value
