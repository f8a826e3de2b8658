"""A callback for the Trainer of transformers: watch agile activations, log what they do, fold at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from agileact._optional import require
from agileact.integrations._session import Session
from agileact.monitor import Monitor
from agileact.transforms import FoldReport

if TYPE_CHECKING:
    TrainerCallback: Any = object
else:
    TrainerCallback = require("transformers", "transformers").TrainerCallback


class AgileTrainerCallback(TrainerCallback):
    """Watch the agile activations of a model under the ``Trainer`` and fold them into its weights at the end.

    The Trainer's own optimizer would decay scales and locations towards 0. Give it one with groups of ours:
    ``Trainer(model, ..., optimizers=(torch.optim.AdamW(ag.param_groups(model, lr=5e-5, weight_decay=0.01)), None))``;
    it makes the schedule itself.

    Args:
        example_inputs: With it (a dict of keyword arguments, such as ``{"input_ids": ...}``) the model is folded at the
            end; None to leave it as it is.
        loggers: Where to report to whenever the Trainer logs, as :func:`agileact.integrations.report` takes them: a
            Weights & Biases run, MLflow, a TensorBoard writer, a function.
        **monitor: Arguments of :class:`agileact.Monitor`, such as ``alerts=False``.

    Raises:
        MissingExtraError: On import, if transformers is not installed.
        ArgumentError: When training starts, if the model has no agile modules.

    Example:
        >>> import torch
        >>> callback = AgileTrainerCallback(example_inputs={"input_ids": torch.ones(1, 8, dtype=torch.int64)})
        >>> trainer = Trainer(model, args, train_dataset=data, callbacks=[callback])  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
        >>> callback.folded.save_pretrained("plain")  # doctest: +SKIP
    """

    def __init__(self, *, example_inputs: Any = None, loggers: Sequence[Any] = (), **monitor: Any) -> None:
        self._session = Session(list(loggers), example_inputs, monitor)

    @property
    def monitor(self) -> Monitor | None:
        """The monitor; None before training."""
        return self._session.monitor

    @property
    def folded(self) -> nn.Module | None:
        """The plain model; None before the end of training, or without an example."""
        return self._session.folded

    @property
    def fold_report(self) -> FoldReport | None:
        """What became of each site."""
        return self._session.fold_report

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Begin to watch."""
        self._session.start(model)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note a step of the optimizer."""
        self._session.step()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report when the Trainer does."""
        if state.is_world_process_zero:
            self._session.report()

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Report what is left, and fold."""
        self._session.end(model)
