"""A callback for the Trainer of transformers: watch agile activations, log what they do, fold at the end."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from agileact._common.errors import ArgumentError
from agileact._common.files import write_atomically
from agileact._common.optional import require
from agileact.integrations.session import Outcome, Session
from agileact.optim import decay_activations, param_groups
from agileact.transforms.fold.fold import Architecture

if TYPE_CHECKING:
    TrainerCallback: Any = object
else:
    TrainerCallback = require("transformers", "transformers").TrainerCallback


def agile_optimizers(
    model: nn.Module, args: Any, *, activation_lr: float | None = None, activation_decay: float = 0.0
) -> tuple[torch.optim.Optimizer, None]:
    """Return what a ``Trainer`` takes as ``optimizers``: the optimizer of its arguments, over groups of ours.

    Matrices have the weight decay of the arguments; vectors (biases, normalisations) have none, and neither have scales
    and locations. The Trainer makes the schedule itself.

    Args:
        model: The model, after :func:`agileact.convert`.
        args: The ``TrainingArguments``: ``optim``, ``learning_rate``, ``weight_decay`` and what belongs to them.
        activation_lr: The learning rate of scales and locations; ``args.learning_rate`` unless given.
        activation_decay: Their decay towards their start.

    Raises:
        ArgumentError: If the optimizer is one that wants the model in place of groups.

    Example:
        >>> import torch, transformers, agileact as ag
        >>> args = transformers.TrainingArguments(output_dir="out", learning_rate=1e-3, weight_decay=0.1, use_cpu=True)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), ag.AgileGELU(8), torch.nn.Linear(8, 2))
        >>> optimizer, _ = agile_optimizers(model, args, activation_lr=1e-2)
        >>> [(len(group["params"]), group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        [(2, 0.001, 0.1), (2, 0.001, 0.0), (1, 0.01, 0.0), (1, 0.01, 0.0)]
    """
    trainer = require("transformers", "transformers").Trainer
    kind, settings = trainer.get_optimizer_cls_and_kwargs(args, model)
    if not isinstance(kind, type) or not issubclass(kind, torch.optim.Optimizer) or {"model", "params"} & set(settings):
        raise ArgumentError(
            f"the optimizer {args.optim!s} takes the model in place of groups of parameters; choose another optim, "
            "such as 'adamw_torch', or give the Trainer an optimizer of your own with agileact.param_groups(model, ...)"
        )
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = param_groups(
        model,
        args.learning_rate,
        activation_lr=activation_lr,
        activation_decay=activation_decay,
        groups=[
            {"params": [one for one in trainable if one.ndim > 1], "weight_decay": args.weight_decay},
            {"params": [one for one in trainable if one.ndim <= 1], "weight_decay": 0.0},
        ],
    )
    optimizer: torch.optim.Optimizer = kind(groups, **settings)
    if activation_decay:
        decay_activations(optimizer, model)
    return optimizer, None


class AgileTrainerCallback(Outcome, TrainerCallback):
    """Watch the agile activations of a model under the ``Trainer`` and fold them into its weights at the end.

    What the monitor has seen is kept in the Trainer's checkpoints (``agileact_monitor.pt``), so that a training that is
    resumed in the same ``output_dir`` goes on counting.

    The Trainer's own optimizer would decay scales and locations towards 0. Give it one with groups of ours:
    ``Trainer(model, args, ..., optimizers=agile_optimizers(model, args))``.

    Args:
        example_inputs: With it (a dict of keyword arguments, such as ``{"input_ids": ...}``) the model is folded at the
            end; tried once at the start, so that an example that does not fit costs no training. None to leave it as
            it is.
        loggers: Where to report to whenever the Trainer logs, as :func:`agileact.integrations.report` takes them: a
            Weights & Biases run, MLflow, a TensorBoard writer, a function.
        architecture: As for :func:`agileact.fold`: "keep" folds only what the class can hold, so that a checkpoint of
            the folded model loads into it; a warning says so where something stays. "extend" may add biases.
        **monitor: Arguments of :class:`agileact.Monitor`, such as ``alerts=False``.

    Attributes:
        monitor: The monitor, from the start of training on.
        folded: The plain model, after training.
        fold_report: What became of each site.

    Raises:
        MissingExtraError: On import, if transformers is not installed.
        ArgumentError: When training starts, if the model has no agile modules.
        FoldError: When training starts, if the model cannot be folded.

    Warns:
        UserWarning: When training starts, if the optimizer decays scales and locations, or holds none of them; at the
            end, if the folded state does not fit the original class.

    Example:
        >>> import torch
        >>> callback = AgileTrainerCallback(example_inputs={"input_ids": torch.ones(1, 8, dtype=torch.int64)})
        >>> trainer = Trainer(  # doctest: +SKIP
        ...     model, args, train_dataset=data, callbacks=[callback], optimizers=agile_optimizers(model, args)
        ... )
        >>> trainer.train()  # doctest: +SKIP
        >>> callback.folded.save_pretrained("plain")  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        example_inputs: Any = None,
        loggers: Sequence[Any] = (),
        architecture: Architecture = "keep",
        **monitor: Any,
    ) -> None:
        self._session = Session(list(loggers), example_inputs, monitor, architecture=architecture)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Begin to watch; go on where the checkpoint was, if there is one."""
        kept = _kept(args, state)
        if state.global_step and kept.is_file():
            self._session.load(torch.load(kept, weights_only=True))
        self._session.start(model, [] if optimizer is None else [optimizer], step=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note a step of the optimizer."""
        self._session.step()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put what was seen so far beside the checkpoint that was just written."""
        if state.is_world_process_zero:
            buffer = io.BytesIO()
            torch.save(self._session.state(), buffer)
            write_atomically(_kept(args, state), buffer.getvalue())

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report when the Trainer does."""
        if state.is_world_process_zero:
            self._session.report()

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Report what is left, and fold."""
        if not state.is_world_process_zero:
            self._session.loggers.clear()
        self._session.close()
        self._session.fold(model)


def _kept(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}" / "agileact_monitor.pt"
