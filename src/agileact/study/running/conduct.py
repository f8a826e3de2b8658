"""Run a study to its end: plan, run what comes next, plan again."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from agileact._common.errors import ArgumentError
from agileact.study.data import dataset as data_room
from agileact.study.data.dataset import DataSet
from agileact.study.models import arm_fingerprint, model_fingerprint
from agileact.study.running.executors import Event, Executor, Finished
from agileact.study.running.planner import Plan, plan
from agileact.study.running.runner import run_study
from agileact.study.running.store import Store
from agileact.study.spec.arms import Arm
from agileact.study.spec.protocol import Study
from agileact.study.spec.result import TrialResult
from agileact.study.spec.tasks import Task
from agileact.study.spec.trial import DataSpec, ModelSpec, TrialSpec, freeze


def identified(study: Study, data_dir: Path | None = None) -> tuple[Study, dict[str, DataSet]]:
    """Load the data of every task, and return the study with its fingerprints, and the data by task.

    With the fingerprint in each trial's identity, results on other data of the same name never mix.

    Args:
        study: The study.
        data_dir: Folder with data files.

    Raises:
        AgileactError: If data cannot be had.

    Example:
        >>> from agileact.study.spec.arms import arm
        >>> from agileact.study.spec.tasks import task
        >>> study, data = identified(Study("s", (arm("relu"),), (task("digits-mlp"),)))
        >>> data["digits-mlp"].classes, study.tasks[0].spec.data.fingerprint == data["digits-mlp"].fingerprint
        (10, True)
    """
    loaded: dict[DataSpec, DataSet] = {}
    tasks: list[Task] = []
    for task in study.tasks:
        spec = dataclasses.replace(task.spec.data, fingerprint="")
        if spec not in loaded:
            try:
                loaded[spec] = data_room.load(spec, data_dir=data_dir)
                data_room.check_repeatable(spec, loaded[spec], data_dir=data_dir)
            except ArgumentError as error:
                raise ArgumentError(f"task {task.name!r}: {error}") from error
        named = dataclasses.replace(spec, fingerprint=loaded[spec].fingerprint)
        model = _with_inputs(task, _with_fingerprint(task.spec.model), loaded[spec])
        tasks.append(dataclasses.replace(task, spec=dataclasses.replace(task.spec, data=named, model=model)))
    sets = {task.name: loaded[dataclasses.replace(task.spec.data, fingerprint="")] for task in study.tasks}
    arms = tuple(_with_code(arm, arm_fingerprint(arm.spec.activations)) for arm in study.arms)
    return dataclasses.replace(study, tasks=tuple(tasks), arms=arms), sets


def unidentified(study: Study) -> Study:
    """Return a study without the fingerprints of its data and models, as :func:`identified` takes it."""

    def bare(task: Task) -> Task:
        data, model = dataclasses.replace(task.spec.data, fingerprint=""), task.spec.model
        if model.name == "custom":
            options = {name: value for name, value in model.options if name not in ("fingerprint", "inputs")}
            model = ModelSpec(model.name, freeze(options))
        return dataclasses.replace(task, spec=dataclasses.replace(task.spec, data=data, model=model))

    arms = tuple(_with_code(arm, "") for arm in study.arms)
    return dataclasses.replace(study, tasks=tuple(map(bare, study.tasks)), arms=arms)


def _with_code(arm: Arm, code: str) -> Arm:
    return dataclasses.replace(arm, spec=dataclasses.replace(arm.spec, code=code))


def _with_fingerprint(model: ModelSpec) -> ModelSpec:
    """Return a model of the user's with its fingerprint; another one is what its name and options say it is."""
    options = dict(model.options)
    if model.name != "custom" or options.get("fingerprint"):
        return model
    return ModelSpec("custom", freeze({**options, "fingerprint": model_fingerprint(str(options.get("target", "")))}))


class Results:
    """Results by spec, each read from a store and checked once: planning asks for the same ones over and over.

    Args:
        store: The open store.
        found: What was read before; receives what is read now, and loses what the store no longer holds.
    """

    def __init__(self, store: Store, found: dict[TrialSpec, TrialResult] | None = None) -> None:
        self._store = store
        self._found: dict[TrialSpec, TrialResult] = {} if found is None else found
        # The study may have been begun anew, in a store of the same name.
        for spec in [spec for spec in self._found if spec not in store]:
            del self._found[spec]

    def __call__(self, spec: TrialSpec) -> TrialResult | None:
        """Return the result of ``spec``, or None."""
        if spec not in self._found:
            result = self._store.get(spec)
            if result is None:
                return None
            self._found[spec] = result
        return self._found[spec]

    def __len__(self) -> int:
        """Return how many trials are stored, of whatever study."""
        return len(self._store)

    def add(self, result: TrialResult) -> None:
        """Take a result that was stored a moment ago, and need not be read."""
        self._found[result.spec] = result


def _with_inputs(task: Task, model: ModelSpec, data: DataSet) -> ModelSpec:
    """Return a model that is told how several inputs are packed."""
    if not data.inputs:
        return model
    if model.name != "custom":
        raise ArgumentError(
            f"task {task.name!r}: the data has several inputs, and the model {model.name!r} takes one; use a network "
            "of your own"
        )
    return ModelSpec(model.name, freeze({**dict(model.options), "inputs": data.inputs}))


def conduct(
    study: Study,
    store: Store,
    executor: Executor,
    *,
    results: Results | None = None,
    on_plan: Callable[[Plan], Callable[[Event], None] | None] = lambda plan: None,
) -> Plan:
    """Run what the study lacks until nothing is left, and return the last plan.

    Stopped at any moment, it goes on from the store when it is called again, and ends with the same results.

    Args:
        study: The study, with the fingerprints of its data (:func:`identified`).
        store: Holds what was done before and receives what is done now.
        executor: Where trials run.
        results: The store's results as far as they were read before; receives those that are read or run now.
        on_plan: Called before each round of trials; what it returns is called with each event of the round.

    Raises:
        TrialError: If trials failed; the others of that round were run and stored all the same.
    """
    known = Results(store) if results is None else results
    while True:
        current = plan(study, known)
        show = on_plan(current)
        if current.finished:
            return current

        def seen(event: Event, show: Callable[[Event], None] | None = show) -> None:
            if isinstance(event, Finished):
                known.add(event.result)
            if show:
                show(event)

        run_study(current.next, store, executor, seen)
