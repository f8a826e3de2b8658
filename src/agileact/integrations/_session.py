"""What every callback does: watch from the first step to the last, report now and then, fold at the end."""

from __future__ import annotations

from typing import Any

from torch import nn

from agileact.integrations._report import log_function, report
from agileact.monitor import Monitor
from agileact.transforms import FoldReport, fold


class Session:
    """The monitoring of one training and what came of it.

    Args:
        loggers: Where to report to, as :func:`report` takes them.
        example_inputs: With it, the model is folded at the end.
        monitor: Arguments of :class:`agileact.Monitor`.
    """

    def __init__(self, loggers: list[Any], example_inputs: Any, monitor: dict[str, Any]) -> None:
        for logger in loggers:
            if not hasattr(logger, "add_scalar"):
                log_function(logger)
        self.loggers = loggers
        self.example_inputs = example_inputs
        self.arguments = monitor
        self.monitor: Monitor | None = None
        self.folded: nn.Module | None = None
        self.fold_report: FoldReport | None = None
        self._state: dict[str, Any] | None = None

    def start(self, model: nn.Module) -> None:
        """Begin to watch; go on where a loaded state was."""
        self.monitor = Monitor(model, **self.arguments)
        if self._state is not None:
            self.monitor.load_state_dict(self._state)
            self._state = None

    def step(self) -> None:
        """Say that the optimizer has taken a step."""
        if self.monitor is not None:
            self.monitor.step()

    def report(self, loggers: list[Any] | None = None) -> None:
        """Write what is new to the loggers; all must be given each time, because each number is written once."""
        chosen = self.loggers if loggers is None else [*self.loggers, *loggers]
        if self.monitor is not None and chosen:
            report(self.monitor, _All(chosen))

    def end(self, model: nn.Module, loggers: list[Any] | None = None) -> None:
        """Report what is left, take the hooks off, and fold if an example was given."""
        if self.monitor is not None:
            self.report(loggers)
            self.monitor.close()
        if self.example_inputs is not None:
            training = model.training
            self.folded, self.fold_report = fold(model.eval(), example_inputs=self.example_inputs)
            model.train(training)

    def state(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Take a state; it counts from the next :meth:`start` on, or at once."""
        if state and self.monitor is not None:
            self.monitor.load_state_dict(state)
        elif state:
            self._state = state


class _All:
    """Several loggers as one."""

    def __init__(self, loggers: list[Any]) -> None:
        self.writers = [logger for logger in loggers if hasattr(logger, "add_scalar")]
        self.functions = [log_function(logger) for logger in loggers if not hasattr(logger, "add_scalar")]

    def log(self, metrics: dict[str, float], step: int) -> None:
        for function in self.functions:
            function(metrics, step)
        for writer in self.writers:
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)
