"""What a trial is: frozen dataclasses, and an identity that is the hash of their contents."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agileact._errors import ArgumentError

Options = tuple[tuple[str, Any], ...]
"""Named options in a form that is hashable and has one order: pairs sorted by name."""


def freeze(options: Mapping[str, Any]) -> Options:
    """Return ``options`` as sorted pairs, with lists turned into tuples.

    Example:
        >>> freeze({"kernel": 3, "filters": [16, 8, 4]})
        (('filters', (16, 8, 4)), ('kernel', 3))
    """
    return tuple(sorted((name, _frozen_value(value)) for name, value in options.items()))


def _frozen_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return freeze(value)
    if isinstance(value, (list, tuple)):
        return tuple(_frozen_value(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ArgumentError(f"an option must be a number, a string, None or a list of these, not {value!r}")


def _check(name: str, value: float, *, least: float, exclusive: bool = False) -> None:
    wrong = value <= least if exclusive else value < least
    if math.isnan(value) or wrong:
        bound = f"greater than {least}" if exclusive else f"at least {least}"
        raise ArgumentError(f"{name} must be {bound}, not {value}")


@dataclass(frozen=True)
class DataSpec:
    """A data set by its registered name.

    Attributes:
        name: The registered name.
        validation: Training samples that are set aside for validation.
        fingerprint: Hash of the arrays that were found under the name, so that trials on other data
            of the same name never mix; empty until the data has been loaded.
    """

    name: str
    validation: int = 500
    fingerprint: str = ""

    def __post_init__(self) -> None:
        _check("the number of validation samples", self.validation, least=1)


@dataclass(frozen=True)
class ModelSpec:
    """A model by its registered name, with the builder's options."""

    name: str
    options: Options = ()


@dataclass(frozen=True)
class Budget:
    """How long a trial trains and how often it is measured.

    Attributes:
        iterations: Steps of the optimizer.
        batch_size: Training samples per step.
        evaluate_every: Steps between two evaluations on the validation set.
        probe_every: Steps between two probes of one training step (the paper's Figs. 5 and 9); 0 for none.
        test_curve: Evaluate the test set at every evaluation, as the paper does. If False the test set
            is touched once, at the iteration that validation chose.
    """

    iterations: int
    batch_size: int = 100
    evaluate_every: int = 50
    probe_every: int = 0
    test_curve: bool = True

    def __post_init__(self) -> None:
        _check("the number of iterations", self.iterations, least=1)
        _check("the batch size", self.batch_size, least=1)
        _check("the number of iterations between evaluations", self.evaluate_every, least=1)
        _check("the number of iterations between probes", self.probe_every, least=0)


@dataclass(frozen=True)
class TaskSpec:
    """What is learned: data, model and budget."""

    data: DataSpec
    model: ModelSpec
    budget: Budget


@dataclass(frozen=True)
class ArmSpec:
    """What is compared: an activation for each role of the model, and how it is trained.

    Attributes:
        activations: Pairs (role, activation), such as ``(("conv", "agile-relu"), ("fc", "sigmoid"))``.
        optimizer: Name of a registered optimizer.
        lr: Learning rate of the weights.
        activation_lr: Learning rate of scale and location; None means ``lr``.
    """

    activations: Options
    optimizer: str = "adam"
    lr: float = 0.001
    activation_lr: float | None = None

    def __post_init__(self) -> None:
        _check("the learning rate", self.lr, least=0.0, exclusive=True)
        if self.activation_lr is not None:
            _check("the activation learning rate", self.activation_lr, least=0.0)

    def activation(self, role: str) -> str | None:
        """Return the activation of ``role``, or None if the arm has no such role."""
        value = dict(self.activations).get(role)
        return None if value is None else str(value)


@dataclass(frozen=True)
class TrialSpec:
    """One training run: a task, an arm and a seed.

    Example:
        >>> spec = TrialSpec(
        ...     TaskSpec(DataSpec("mnist5k-split"), ModelSpec("cnn"), Budget(iterations=100)),
        ...     ArmSpec(freeze({"conv": "relu", "fc": "agile-sigmoid"})),
        ...     seed=0,
        ... )
        >>> TrialSpec.from_json(spec.to_json()) == spec
        True
        >>> len(spec.key)
        16
    """

    task: TaskSpec
    arm: ArmSpec
    seed: int

    def __post_init__(self) -> None:
        _check("the seed", self.seed, least=0)

    def to_json(self) -> str:
        """Return the spec as canonical JSON: sorted keys, no spaces."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> TrialSpec:
        """Rebuild a spec from :meth:`to_json`."""
        raw = json.loads(text)
        task = raw["task"]
        return cls(
            TaskSpec(
                DataSpec(**task["data"]),
                ModelSpec(task["model"]["name"], _frozen_value(task["model"]["options"])),
                Budget(**task["budget"]),
            ),
            ArmSpec(**{**raw["arm"], "activations": _frozen_value(raw["arm"]["activations"])}),
            raw["seed"],
        )

    @property
    def key(self) -> str:
        """The trial's identity: the first 16 hex digits of the SHA-256 of its canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]
