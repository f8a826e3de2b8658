"""For your own training loop: watch, report to any logger, fold at the end."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from agileact._common import checks
from agileact.integrations.session import Outcome, Session
from agileact.transforms.fold.fold import Architecture


class AgileLogger(Outcome):
    """Watch the agile activations of a model in a loop of your own, report to loggers, and fold when the loop ends.

    A ``SummaryWriter`` of TensorBoard gets curves, histograms and pictures of the learned activations; others get the
    curves. What is left is reported when the ``with`` block ends; the model is folded if it ends without an error.

    Args:
        model: The model, with agile modules.
        *loggers: Where to report to, as :func:`agileact.integrations.report` takes them.
        optimizer: Whose steps are counted; best with the groups of :func:`agileact.param_groups`.
        example_inputs: With it (a tensor, a tuple of positional or a dict of keyword arguments) the model is folded at
            the end; tried once at the start, so that an example that does not fit costs no training.
        every_n_steps: How often what is new is reported.
        prefix: What all names begin with.
        architecture: As for :func:`agileact.fold`: "keep" folds only what the class can hold, so that a checkpoint of
            the folded model loads into it; a warning says so where something stays. "extend" may add biases.
        **monitor: Arguments of :class:`agileact.Monitor`, such as ``alerts=False``.

    Attributes:
        monitor: The monitor.
        folded: The plain model, after the block.
        fold_report: What became of each site.

    Raises:
        ArgumentError: If the model has no agile modules, or a number is out of range.
        ArgumentTypeError: If a logger or the optimizer is none.
        FoldError: If the model cannot be folded.

    Warns:
        UserWarning: If the optimizer decays scales and locations, or does not hold them; at the end, if the folded
            state does not fit the original class.

    Example:
        >>> import torch, agileact as ag
        >>> from agileact.integrations import AgileLogger
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), ag.AgileReLU(8), torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.AdamW(ag.param_groups(model, lr=0.01, weight_decay=0.05))
        >>> steps = []
        >>> with AgileLogger(
        ...     model, lambda metrics, step: steps.append(step), optimizer=optimizer, example_inputs=torch.ones(1, 4)
        ... ) as watch:
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         model(torch.randn(16, 4)).square().mean().backward()
        ...         optimizer.step()
        >>> steps, len(watch.fold_report.folded)
        ([0, 1, 2, 3], 1)
        >>> watch.folded
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=1, bias=True)
        )
    """

    def __init__(
        self,
        model: nn.Module,
        *loggers: Any,
        optimizer: Optimizer,
        example_inputs: Any = None,
        every_n_steps: int = 100,
        prefix: str = "agileact",
        architecture: Architecture = "extend",
        **monitor: Any,
    ) -> None:
        checks.optimizer(optimizer)
        checks.integer("every_n_steps", every_n_steps, least=1)
        self._model = model
        self._every = every_n_steps
        self._session = Session(loggers, example_inputs, monitor, prefix=prefix, architecture=architecture)
        self._session.start(model, [optimizer])
        self._handle = optimizer.register_step_post_hook(lambda *_: self._step())

    def _step(self) -> None:
        self._session.step()
        if self._session.steps % self._every == 0:
            self._session.report()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs."""
        return self._session.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        self._session.load(state)

    def __enter__(self) -> "AgileLogger":
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self._handle.remove()
        self._session.close()
        if kind is None:
            self._session.fold(self._model)
