"""A callback for Lightning: watch agile activations, log what they do, fold at the end."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from agileact._common import checks
from agileact._common.errors import ArgumentError
from agileact._common.optional import require
from agileact.integrations.session import Outcome, Session
from agileact.transforms.fold.fold import Architecture

if TYPE_CHECKING:
    Callback: Any = object
else:
    Callback = require("lightning.pytorch", "lightning").Callback


class AgileCallback(Outcome, Callback):
    """Watch the agile activations of a LightningModule and fold them into its weights when training ends.

    The trainer's loggers get scale and location over the steps; its TensorBoard logger also gets histograms and
    pictures of the learned activations.

    In the module's ``configure_optimizers``, give the optimizer ``ag.param_groups(self, lr=..., weight_decay=...)``, so
    that scales and locations have no weight decay.

    Args:
        module: The name of the submodule to watch and fold, such as ``"network"``; "" for the LightningModule itself.
        example_inputs: With it (a tensor, a tuple of positional or a dict of keyword arguments) the submodule is folded
            at the end; tried once at the start, so that an example that does not fit costs no training. None to leave
            it as it is.
        loggers: Besides the trainer's own loggers, as :func:`agileact.integrations.report` takes them.
        every_n_steps: How often what is new is logged; None for the trainer's ``log_every_n_steps``.
        architecture: As for :func:`agileact.fold`: "keep" folds only what the class can hold, so that a checkpoint of
            the folded model loads into it; a warning says so where something stays. "extend" may add biases.
        **monitor: Arguments of :class:`agileact.Monitor`, such as ``alerts=False``.

    Attributes:
        monitor: The monitor, from the start of training on.
        folded: The plain network that training ended with, after ``fit``. Strategies that start their processes
            afresh, such as ``ddp_spawn``, leave it in these processes: fold the module after ``fit`` then.
        fold_report: What became of each site.

    Raises:
        MissingExtraError: On import, if Lightning is not installed.
        ArgumentError: When training starts, if there is no such submodule, or it has no agile modules.
        FoldError: When training starts, if the submodule cannot be folded.

    Warns:
        UserWarning: When training starts, if an optimizer decays scales and locations, or holds none of them, or if
            ``folded`` will be in another process; at the end, if the folded state does not fit the original class.

    Example:
        >>> import torch, lightning.pytorch as L, agileact as ag
        >>> class Task(L.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.network = torch.nn.Sequential(torch.nn.Linear(4, 8), ag.AgileReLU(8), torch.nn.Linear(8, 1))
        ...     def training_step(self, batch, index):
        ...         return self.network(batch).square().mean()
        ...     def configure_optimizers(self):
        ...         return torch.optim.AdamW(ag.param_groups(self, lr=0.01, weight_decay=0.05))
        >>> callback = AgileCallback("network", example_inputs=torch.ones(1, 4))
        >>> trainer = L.Trainer(max_epochs=2, callbacks=[callback])  # doctest: +SKIP
        >>> trainer.fit(Task(), torch.utils.data.DataLoader(torch.randn(64, 4), 16))  # doctest: +SKIP
        >>> callback.folded  # doctest: +SKIP
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=1, bias=True)
        )
    """

    def __init__(
        self,
        module: str = "",
        *,
        example_inputs: Any = None,
        loggers: Sequence[Any] = (),
        every_n_steps: int | None = None,
        architecture: Architecture = "keep",
        **monitor: Any,
    ) -> None:
        if every_n_steps is not None:
            checks.integer("every_n_steps", every_n_steps, least=1)
        self._module = module
        self._every = every_n_steps
        self._example = example_inputs
        self._stage = "fit"
        self._session = Session(list(loggers), example_inputs, monitor, architecture=architecture)

    def _watched(self, module: nn.Module) -> nn.Module:
        try:
            return module.get_submodule(self._module)
        except AttributeError:
            names = ", ".join(repr(name) for name, _ in module.named_children())
            raise ArgumentError(f"there is no submodule {self._module!r}; the first level has {names}") from None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Note whether this is a training."""
        self._stage = stage

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to watch."""
        if self._example is not None and trainer.is_global_zero:
            check_launcher(trainer.strategy)
        self._steps = trainer.global_step
        # With parameters of half or double precision, the trainer brings what a batch holds to theirs.
        self._session.example_inputs = trainer.precision_plugin.convert_input(self._example)
        if not trainer.is_global_zero:
            self._session.loggers.clear()  # one process writes
        self._session.start(self._watched(pl_module), trainer.optimizers, step=trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note a step of the optimizer, if there was one: with accumulated gradients not every batch is one."""
        if trainer.global_step == self._steps:
            return
        self._steps = trainer.global_step
        self._session.step()
        if self._session.steps % (self._every or trainer.log_every_n_steps) == 0:
            self._session.report(_loggers(trainer))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Log what is left."""
        self._session.close(_loggers(trainer))

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Fold, after all callbacks, because one that averages weights puts them in place at the end of training."""
        self._session.fold(self._watched(pl_module))

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Log what is left, take the hooks off, and do not fold."""
        self._session.close(_loggers(trainer))

    def state_dict(self) -> dict[str, Any]:
        """Return the monitor's state, for Lightning's checkpoints."""
        return self._session.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the monitor's state from a checkpoint, unless it is only tested."""
        if self._stage == "fit":
            self._session.load(state_dict)


def _loggers(trainer: Any) -> list[Any]:
    # Only the process that logs may write.
    return list(trainer.loggers) if trainer.is_global_zero else []


def check_launcher(strategy: Any) -> None:
    """Warn if the training runs in processes that take what callbacks know with them when they end."""
    method = getattr(getattr(strategy, "launcher", None), "_start_method", "")
    if method:
        warnings.warn(
            f"the strategy starts its processes by {method!r}, and callback.folded stays in them: use strategy='ddp', "
            "or call agileact.fold(module, example_inputs) after fit, to which the weights come back",
            stacklevel=3,
        )
