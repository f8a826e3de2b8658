"""What every callback does: watch from the first step to the last, report now and then, fold at the end."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils._pytree import tree_map_only

from agileact._common.errors import ArgumentError
from agileact.integrations.reporting import collect, delivery
from agileact.integrations.tensorboard import add_histograms, add_shapes
from agileact.monitor import Monitor
from agileact.monitor.units import agile_layers
from agileact.transforms import FoldReport, fold
from agileact.transforms.fold.fold import Architecture


class Session:
    """Monitors one training; with an example, it folds the model at the end."""

    def __init__(
        self,
        loggers: Iterable[Any],
        example_inputs: Any,
        monitor: dict[str, Any],
        *,
        prefix: str = "agileact",
        architecture: Architecture = "keep",
    ) -> None:
        self.loggers = list(loggers)
        for logger in self.loggers:
            delivery(logger)
        self.example_inputs = example_inputs
        self.arguments = monitor
        self.prefix = prefix
        if architecture not in ("extend", "keep"):
            raise ArgumentError(f"architecture must be 'extend' or 'keep', not {architecture!r}")
        self.architecture = architecture
        self.monitor: Monitor | None = None
        self.folded: nn.Module | None = None
        self.fold_report: FoldReport | None = None
        self.steps = 0
        self._model: nn.Module | None = None
        self._watching = False
        self._before = 0
        self._pictures = 0
        self._counted = self._drawn = -1
        self._state: dict[str, Any] | None = None

    def start(self, model: nn.Module, optimizers: Sequence[Any] = (), *, step: int = 0) -> None:
        """Begin to watch; go on where a loaded state was. A fold that could not be is an error now, not at the end.

        ``step`` is how many steps were taken before, if they were not watched, or what was seen of them is lost.
        """
        if self.monitor is not None:
            # The training before may have ended without a word. One that this one goes on with is not forgotten.
            self.monitor.close()
            if self._state is None and 0 < step == self.steps and self._model is _bare(model):
                self._state = self.monitor.state_dict()
        self._model = _bare(model)
        self.monitor = Monitor(model, **self.arguments)
        self._watching = True
        self.folded = self.fold_report = None
        self.steps, self._pictures, self._before = step, 0, step
        self._counted = self._drawn = -1
        if self._state is not None:
            self._resume(self._state)
            self._state = None
        _check_groups(self._model, optimizers)
        if self.example_inputs is not None:
            self._fold(self._model)

    def step(self) -> None:
        """Say that the optimizer has taken a step."""
        if self.monitor is not None:
            self.monitor.step()
            self.steps += 1

    def report(self, loggers: Sequence[Any] = (), *, last: bool = False) -> None:
        """Write what is new; all loggers must be given each time, because each number is written once."""
        chosen = [_writer(logger) for logger in (*self.loggers, *loggers)]
        if self.monitor is None or self._model is None or not chosen:
            return
        found = {step + self._before: metrics for step, metrics in collect(self.monitor, self.prefix).items()}
        for logger in chosen:
            if found:
                delivery(logger)(found, self.prefix)
        self._pictures += 1
        # The more there are, the less each one shows that is new: the 1st report, the 2nd, the 4th, and so on.
        drawn = (last or self._pictures & (self._pictures - 1) == 0) and self.steps != self._drawn
        for writer in chosen:
            if hasattr(writer, "add_histogram") and self.steps != self._counted:
                add_histograms(writer, self._model, self.steps, self.prefix)
            if hasattr(writer, "add_figure") and drawn:
                add_shapes(writer, self._model, self.steps, self.prefix)
        self._counted = self.steps
        self._drawn = self.steps if drawn else self._drawn

    def close(self, loggers: Sequence[Any] = ()) -> None:
        """Report what is left, and take the hooks off."""
        if self.monitor is not None:
            self.report(loggers, last=True)
            self.monitor.close()
        self._watching = False

    def fold(self, model: nn.Module) -> None:
        """Fold, if an example was given."""
        if self.example_inputs is None:
            return
        self.folded, self.fold_report = self._fold(_bare(model))
        if not self.fold_report.same_architecture:
            warnings.warn(
                f"{self.fold_report.fit}: a checkpoint of the folded model loses it when that class loads it. "
                + "".join(f"{note}. " for note in self.fold_report.note.splitlines() if note.startswith("config."))
                + "See fold_report for the reasons",
                stacklevel=3,
            )

    def _fold(self, model: nn.Module) -> tuple[nn.Module, FoldReport]:
        parameter = next(model.parameters(), None)
        example = self.example_inputs if parameter is None else _moved(self.example_inputs, parameter.device)
        with _as_written(model):
            plain, report = fold(model, example_inputs=example, architecture=self.architecture)
        return plain.eval(), report

    def state(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Take a state; it counts at once while a training is watched, and otherwise from the next :meth:`start` on."""
        if state and self._watching:
            self._resume(state)
        elif state:
            self._state = state

    def _resume(self, state: dict[str, Any]) -> None:
        assert self.monitor is not None
        self.monitor.load_state_dict(state)
        self.steps, self._before = int(state["step"]), 0


class Outcome:
    """What a user reads off a callback or a logger."""

    _session: Session

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


def _bare(model: nn.Module) -> nn.Module:
    """Return the model inside what distributes and compiles it."""
    while True:
        if isinstance(model, (DistributedDataParallel, DataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            inside: Any = model._orig_mod
            model = inside
        else:
            return model


@contextmanager
def _as_written(model: nn.Module) -> Iterator[None]:
    """Take off, for a while, what Accelerate puts around ``forward`` for mixed precision.

    A fold would be checked in the low precision, and the plain model would always compute in it.
    """
    kept = vars(model)
    names = ("forward", "_original_forward") if "_original_forward" in kept else ()
    wrapped = {name: kept.pop(name) for name in names if name in kept}
    try:
        yield
    finally:
        kept.update(wrapped)


def _writer(logger: Any) -> Any:
    """Return the SummaryWriter inside Lightning's TensorBoard logger, and every other logger as it is."""
    inside = getattr(logger, "experiment", None) if hasattr(logger, "log_metrics") else None
    return inside if hasattr(inside, "add_histogram") and hasattr(inside, "add_scalar") else logger


def _moved(example: Any, device: torch.device) -> Any:
    if hasattr(example, "to") and not isinstance(example, Tensor):  # what tokenizers return
        return example.to(device)
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), example)


def _check_groups(model: nn.Module, optimizers: Sequence[Any]) -> None:
    """Warn of optimizers that decay scales and locations to 0, or do not know them."""
    if not optimizers:
        return
    own = {
        parameter: f"{layer}.{name}"
        for layer, module in agile_layers(model, made=True).items()
        for name, parameter in (("scale", module.scale), ("location", module.location))
        if parameter.requires_grad
    }
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    held = {parameter for group in groups for parameter in group["params"]}
    # Wrappers of a model that is sharded hold other tensors in the place of these.
    lost = [name for parameter, name in own.items() if parameter not in held]
    if lost and not any(hasattr(parameter, "to_local") or hasattr(parameter, "_handle") for parameter in held):
        warnings.warn(
            f"no optimizer holds {_first(lost)}, so that they do not learn; make the optimizer after agileact.convert, "
            "with agileact.param_groups",
            stacklevel=3,
        )
    decaying = {parameter for group in groups if group.get("weight_decay") for parameter in group["params"]}
    decayed = [name for parameter, name in own.items() if parameter in decaying]
    if decayed:
        warnings.warn(
            f"weight decay pulls {_first(decayed)} to 0, where an activation is dead; give the optimizer "
            "agileact.param_groups(model, lr=..., weight_decay=...), which keeps them out of it",
            stacklevel=3,
        )


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more scales and locations" if len(names) > 1 else "")
