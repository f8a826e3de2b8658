"""From a monitor to a logger: any of those that people use, told apart by the methods that each has."""

import logging
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any
from weakref import WeakSet

from agileact._common.errors import ArgumentError, ArgumentTypeError
from agileact.monitor import Monitor

Steps = dict[int, dict[str, float]]
"""Numbers by name, for each step, in the order of the steps."""
Deliver = Callable[[Steps, str], object]
"""Writes what is new; the text is the prefix of all names."""

_SHOWN = (("scale", "a"), ("location", "b"))
_known_runs: WeakSet[Any] = WeakSet()


def report(monitor: Monitor, logger: Any, prefix: str = "agileact") -> int:
    """Write what a monitor has recorded since the last report to a logger.

    Args:
        monitor: The monitor; whatever is written is written once.
        logger: One of these, tried in this order: a TensorBoard ``SummaryWriter``, by ``add_scalar(name, value,
            step)``; Python's ``logging.Logger``, a line for each layer; a Weights & Biases run, by ``log(metrics,
            step=step)``; MLflow (the module) or a Lightning logger, by ``log_metrics(metrics, step=step)``; or a
            function of ``(metrics, step)``. A run of Weights & Biases gets the newest numbers with the row that it is
            at, and ``prefix/step`` says which step they are of: it drops what comes for an earlier row, and a later
            one would make it drop what you log. For a row a step, where nothing else is logged, give ``lambda metrics,
            step: run.log(metrics, step=step)``.
        prefix: What all names begin with: ``prefix/layer/parameter/statistic``.

    Returns:
        How many numbers were written.

    Raises:
        ArgumentTypeError: If the logger is none of these.
        ArgumentError: If it is the module ``wandb``, and no run was begun.

    Example:
        >>> import torch, agileact as ag
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), ag.AgileSigmoid(3))
        >>> def show(metrics, step):
        ...     print(step, len(metrics), metrics["agileact/1/scale/max"])
        >>> report(ag.Monitor(model), show)
        0 14 1.0
        14
    """
    deliver = delivery(logger)
    found = collect(monitor, prefix)
    if found:
        deliver(found, prefix)
    return sum(map(len, found.values()))


def collect(monitor: Monitor, prefix: str) -> Steps:
    """Return what a monitor has recorded since it was last asked."""
    found: Steps = {}

    def add_scalar(tag: str, value: float, step: int) -> None:
        found.setdefault(step, {})[tag] = value

    monitor.to_tensorboard(SimpleNamespace(add_scalar=add_scalar), prefix)
    return dict(sorted(found.items()))


def delivery(logger: Any) -> Deliver:
    """Return the function that writes steps to a logger; an error as of :func:`report` if there is none."""
    if callable(getattr(logger, "add_scalar", None)):
        return lambda steps, prefix: [
            logger.add_scalar(name, value, step) for step, metrics in steps.items() for name, value in metrics.items()
        ]
    if isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
        return lambda steps, prefix: _to_lines(logger, steps, prefix)
    if isinstance(logger, ModuleType) and hasattr(logger, "run") and hasattr(logger, "define_metric"):
        if logger.run is None:
            raise ArgumentError(
                f"{logger.__name__} has no run; call {logger.__name__}.init() first, and give what it returns"
            )
        logger = logger.run
    if callable(getattr(logger, "define_metric", None)) and hasattr(logger, "step"):
        return lambda steps, prefix: _to_run(logger, steps, prefix)
    for name in ("log", "log_metrics"):
        method = getattr(logger, name, None)
        if callable(method):
            return lambda steps, prefix: [method(metrics, step=step) for step, metrics in steps.items()]
    if callable(logger):
        return lambda steps, prefix: [logger(metrics, step) for step, metrics in steps.items()]
    raise ArgumentTypeError(
        "logger must have log(metrics, step=...), log_metrics(metrics, step=...) or add_scalar(name, value, step), be "
        f"a logging.Logger, or a function of (metrics, step); {type(logger).__name__} is none of these"
    )


def _to_run(run: Any, steps: Steps, prefix: str) -> None:
    """Write the newest numbers to the present step of a run of Weights & Biases.

    Never to a later one: the run would drop what its owner then logs of the steps before.
    """
    own = f"{prefix}/step"
    if run not in _known_runs:
        run.define_metric(own, hidden=True)
        run.define_metric(f"{prefix}/*", step_metric=own)
        _known_runs.add(run)
    run.log({**_newest(steps), own: max(steps)}, step=int(run.step))


def _newest(steps: Steps) -> dict[str, float]:
    return {name: value for metrics in steps.values() for name, value in metrics.items()}


def _to_lines(logger: Any, steps: Steps, prefix: str) -> None:
    """Write the newest numbers as text, a line for each layer."""
    layers: dict[str, dict[str, float]] = {}
    for name, value in _newest(steps).items():
        layer, parameter, statistic = name.removeprefix(f"{prefix}/").rsplit("/", 2)
        layers.setdefault(layer, {})[f"{parameter}/{statistic}"] = value
    for layer, found in layers.items():
        parts = [
            f"{symbol} {found[f'{name}/median']:.4g} [{found[f'{name}/min']:.4g}, {found[f'{name}/max']:.4g}]"
            for name, symbol in _SHOWN
            if f"{name}/median" in found
        ]
        shares = [("dead", "activation/dead"), ("saturated", "activation/saturated"), ("flipped", "scale/flipped")]
        parts += [f"{100 * found[key]:.0f} % {word}" for word, key in shares if found.get(key)]
        logger.info("%s step %d, layer %s: %s", prefix, max(steps), layer, ", ".join(parts))
