"""Tasks by name: data, model and budget that belong together."""

import dataclasses
from dataclasses import dataclass

from agileact._common.errors import ArgumentError
from agileact._common.names import unknown
from agileact.study.spec.trial import Budget, DataSpec, ModelSpec, TaskSpec, check_choice, freeze


@dataclass(frozen=True)
class Task:
    """A task with the name that tables call it by.

    Attributes:
        name: The name.
        spec: What is learned.
        better: Which values of the metric are good, "higher" or "lower"; "" for what the metric's name says
            (:func:`agileact.study.data.objective.lower_is_better`). It is no part of a trial: it can be said later.
    """

    name: str
    spec: TaskSpec
    better: str = ""

    def __post_init__(self) -> None:
        check_choice("better", self.better or "higher", ("higher", "lower"))

    def with_data(self, data: DataSpec) -> "Task":
        """Return the task on other data."""
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, data=data))


def _make(
    data: DataSpec, model: str, iterations: int, batch: int = 100, every: int = 50, needs: str = "", **options: object
) -> tuple[TaskSpec, str]:
    """Return a task, and the option of its data that whoever takes it must give; "" for none."""
    budget = Budget(iterations, batch, every, 0, test_curve=False)
    return TaskSpec(data, ModelSpec(model, freeze(options)), budget), needs


_TASKS = {
    "paper-cnn": _make(DataSpec("mnist5k-split"), "cnn", 2000),
    "paper-mlp": _make(DataSpec("mnist5k-split"), "mlp", 1000, every=10, nodes=(30,)),
    "paper-cnn-official": _make(DataSpec("mnist5k"), "cnn", 2000),
    "paper-mlp-official": _make(DataSpec("mnist5k"), "mlp", 1000, every=10, nodes=(30,)),
    "deep-mlp": _make(DataSpec("mnist5k-split"), "deep-mlp", 2000, depth=10, width=32),
    "mnist1d-mlp": _make(DataSpec("mnist1d"), "mlp", 2000, nodes=(100, 100)),
    "digits-mlp": _make(DataSpec("digits", 200), "mlp", 1000, batch=50, every=20, nodes=(30,)),
    "diabetes-mlp": _make(DataSpec("diabetes", 66), "mlp", 500, batch=32, every=10, nodes=(16, 16)),
    "friedman1-mlp": _make(DataSpec("friedman1", 200), "mlp", 2000, batch=50, nodes=(32, 32)),
    "idx-cnn": _make(DataSpec("idx", 5000), "cnn", 2000, needs="folder"),
    "idx-mlp": _make(DataSpec("idx", 5000), "mlp", 1000, every=20, needs="folder", nodes=(30,)),
    "npz-cnn": _make(DataSpec("npz", 5000), "cnn", 2000, needs="file"),
    "npz-mlp": _make(DataSpec("npz", 5000), "mlp", 1000, every=20, needs="file", nodes=(30,)),
    "cifar-resnet": _make(DataSpec("cifar", 5000), "resnet", 4000, every=200, needs="folder"),
    "text-transformer": _make(DataSpec("text", 200), "char-transformer", 3000, batch=32, every=100, needs="file"),
}


def names() -> tuple[str, ...]:
    """Return the names of all tasks, sorted.

    Example:
        >>> {"paper-cnn", "cifar-resnet", "text-transformer"} <= set(names())
        True
    """
    return tuple(sorted(_TASKS))


def template(name: str) -> TaskSpec:
    """Return the task of this name, without the file or folder that it may need."""
    if name not in _TASKS:
        raise ArgumentError(unknown("task", name, names()))
    return _TASKS[name][0]


def needs(name: str) -> str | None:
    """Return the option of the data that a task of this name must be given, or None."""
    return _TASKS[name][1] or None


def task(name: str, path: str | None = None) -> Task:
    """Return the task of this name.

    Args:
        name: One of :func:`names`.
        path: The file or folder of its data, for a task that has none of its own.

    Raises:
        ArgumentError: If there is no such task, or a path is missing or too many.

    Example:
        >>> task("cifar-resnet", "cifar-10-batches-bin").spec.data.options
        (('folder', 'cifar-10-batches-bin'),)
    """
    spec, option = template(name), needs(name)
    if (path is None) != (option is None):
        raise ArgumentError(
            f"the task {name!r} brings its own data and takes no path"
            if option is None
            else f"the task {name!r} needs the path of its data's {option}"
        )
    data = spec.data if option is None else dataclasses.replace(spec.data, options=freeze({option: path}))
    return Task(name, spec).with_data(data)
