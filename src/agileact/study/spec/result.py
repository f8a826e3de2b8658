"""What a trial returns: curves, probes, and the numbers that tables are made of."""

import dataclasses
import json
from dataclasses import dataclass, field

from agileact.study.spec.reading import read
from agileact.study.spec.trial import TrialSpec


@dataclass(frozen=True)
class Curve:
    """Measurements at each evaluation; all lists that are not empty are equally long.

    ``test_loss`` and ``test_accuracy`` are empty where the test set is touched only once or not at all, and both
    accuracies for a regression.
    """

    iteration: list[int] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Probe:
    """The loss of one training batch around one step of the optimizer (the paper's Figs. 5 and 9).

    ``before``: before the step. ``after_weights``: weights moved, scale and location still old.
    ``after_activations``: both moved. Without trainable activations the last two are equal.
    """

    iteration: list[int] = field(default_factory=list)
    before: list[float] = field(default_factory=list)
    after_weights: list[float] = field(default_factory=list)
    after_activations: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class LayerTrace:
    """Smallest and largest scale and location of one activation layer at each evaluation."""

    scale_min: list[float] = field(default_factory=list)
    scale_max: list[float] = field(default_factory=list)
    location_min: list[float] = field(default_factory=list)
    location_max: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class DirectionTrace:
    """How far the last step before each evaluation but the first turned the rows of a standardised layer.

    The median and the largest angle of its rows, in radians.
    """

    turn_median: list[float] = field(default_factory=list)
    turn_max: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Shape:
    """An activation layer whose function is learned, before and after the training: values at ``x``.

    A row is one of up to 32 channels, evenly spread over the layer; there is one row if all channels are alike.
    ``scale`` and ``location`` hold all final ones, term after term; they are empty for an activation that has none, and
    for more than 1,024.
    """

    x: tuple[float, ...]
    before: list[list[float]]
    after: list[list[float]]
    scale: list[float]
    location: list[float]


@dataclass(frozen=True)
class TrialResult:
    """The outcome of one trial.

    Attributes:
        spec: What was run.
        status: ``"finished"``, or ``"diverged"`` if the loss stopped being finite; a diverged trial keeps
            the curve up to there.
        curve: Losses and accuracies over iterations.
        probe: Losses around single steps; empty lists if the budget asks for none.
        layers: One trace for each agile layer, in order of the forward pass, by the layer's name.
        best_test_loss: Lowest test loss over the evaluations (the paper's protocol; flatters).
        best_iteration: Iteration of ``best_test_loss``.
        selected_iteration: Iteration of the lowest validation loss.
        selected_test_loss: Test loss at ``selected_iteration``; None where the test set was not touched.
        selected_test_accuracy: Test accuracy at ``selected_iteration``, between 0 and 1.
        parameters: Number of trainable parameters.
        seconds_per_iteration: Median duration of a training step, evaluations and probes left out.
        seconds: Duration of the whole trial.
        versions: Versions of Python, torch, numpy and agileact that ran the trial.
        saved_bytes: Memory that one training batch keeps for its backward pass, parameters left out; None in results
            that were stored before it was measured.
        shapes: The learned activations before and after the training, by layer as in ``layers``; empty where the test
            set was not touched, and in results that were stored before they were kept.
        directions: One trace for each layer whose rows of weights are put back after each step, by the layer's name;
            empty for other arms, and in results that were stored before it was measured.
    """

    spec: TrialSpec
    status: str
    curve: Curve
    probe: Probe
    layers: dict[str, LayerTrace]
    best_test_loss: float | None
    best_iteration: int | None
    selected_iteration: int | None
    selected_test_loss: float | None
    selected_test_accuracy: float | None
    parameters: int
    seconds_per_iteration: float
    seconds: float
    versions: dict[str, str]
    saved_bytes: int | None = None
    shapes: dict[str, Shape] = field(default_factory=dict)
    directions: dict[str, DirectionTrace] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the result as JSON."""
        raw = dataclasses.asdict(self) | {"spec": self.spec.to_json()}
        raw |= {name: list(raw[name].items()) for name in ("layers", "shapes", "directions")}
        # It came later: a result without it is written as it always was.
        if not self.directions:
            del raw["directions"]
        return json.dumps(raw, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "TrialResult":
        """Rebuild a result from :meth:`to_json`."""
        raw = json.loads(text)
        return read(cls, {**raw, "spec": json.loads(raw["spec"])})
