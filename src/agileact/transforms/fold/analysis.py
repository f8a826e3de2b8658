"""What fold and lint begin with: run a model, note what it demands, say where scales and locations can go."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from agileact._common.errors import FoldError
from agileact.transforms.fold.labels import Activation, Constraints, is_agile
from agileact.transforms.fold.locations import Shifts, Target, move_locations
from agileact.transforms.fold.rules import constraints
from agileact.transforms.fold.weights import Weights
from agileact.transforms.trace.forward_runs import outcome
from agileact.transforms.trace.operations import DROPPING, NORMS
from agileact.transforms.trace.recorder import record
from agileact.transforms.trace.recording import Examples, Outcome, Recording, Ref, examples, mapped

Run = tuple[str, Any, bool]
"""The method that is called, its arguments, and whether in training mode."""


@dataclass
class Analysis:
    """What a model did on its examples, in evaluation and in training, and what that demands.

    ``idle`` is the error of a training that does not run on the example, if there is one.
    """

    runs: list[tuple[Run, Outcome]]
    found: Constraints
    shifts: list[Shifts]
    idle: str = ""

    @property
    def sites(self) -> dict[str, Activation]:
        """The agile modules that ran, by name, in the order of their first call."""
        return self.found.sites

    def locations(self, locations: Mapping[str, Tensor]) -> tuple[dict[str, list[Target]], dict[str, str]]:
        """Return the biases that take up the location of each site, and why others stay."""
        return move_locations(self.shifts, self.found.sites, locations)


def analysed(model: nn.Module, example_inputs: Examples, *, training: bool = True) -> Analysis:
    """Run a model on its examples in evaluation, and in training if it can; it stays as it was."""
    runs: list[tuple[Run, Outcome]] = []
    recordings: list[Recording] = []
    known: list[list[Any]] = []
    idle = ""
    for mode in (False, True)[: 1 + training]:
        for method, example in examples(example_inputs):
            try:
                recording = record(model, example, leaf=is_agile, training=mode, method=method)
            except Exception as error:
                if not mode:
                    raise
                idle = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                continue  # such as batch normalisation of a single number
            if any(is_agile(module) for module in recording.strangers.values()):
                raise FoldError(
                    "an agile module runs that is not in the model, so that nothing can take its place: a lambda or a "
                    "list in an attribute holds it; make it a module in an attribute, called in a method"
                )
            runs.append(((method, example, mode), recording.outcome))
            steps = _steps(recording)
            if not any(_same(steps, other) for other in known):
                known.append(steps)
                recordings.append(recording)
    weights = Weights(model, recordings)
    shifts = [Shifts(model, recording, weights, training=training) for recording in recordings]
    return Analysis(runs, constraints(recordings, weights), shifts, idle)


def again(model: nn.Module, run: Run) -> Outcome:
    """Let another model do what was run."""
    method, example, training = run
    return outcome(model, example, training=training, method=method)


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):  # such as arrays, which compare number by number
        return False


def _steps(recording: Recording) -> list[Any]:
    """Return what a run demands, for comparison: what is done to signals, apart from what only the mode changes."""
    numbers: dict[int, Any] = {}
    signals = {value.index for value in recording.inputs}
    for value in recording.values:
        if value.maker is None:
            numbers[value.index] = hash(value.name or (value.kind, len(numbers), tuple(value.shape)))
    steps: list[Any] = [
        (value.name, len(value.users), value.tainted)
        for value in recording.values
        if value.kind == "parameter" and value.users
    ]
    for call in recording.calls:
        taken = tuple(numbers[value.index] for value in call.inputs)
        if call.name != "module" and not signals.intersection(value.index for value in call.inputs):
            for place, value in enumerate(call.outputs):
                numbers.setdefault(value.index, hash((call.name, place, taken)))
            continue
        signals.update(value.index for value in call.outputs)
        given = mapped((call.args, call.kwargs), lambda ref: ("value", numbers[ref.index]), Ref)
        what = id(call.function) if call.name == "module" else call.name
        flags = [(tuple(one.shape), one.returned, one.kept, one.tainted, len(one.users)) for one in call.outputs]
        steps.append((what, call.owner, taken if call.name in DROPPING or call.name in NORMS else given, flags))
        for place, value in enumerate(call.outputs):
            numbers[value.index] = hash((len(steps), place))
    return steps
