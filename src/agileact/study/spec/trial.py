"""What a trial is: frozen dataclasses, and an identity that is the hash of their contents."""

import dataclasses
import fnmatch
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

from agileact._common.errors import ArgumentError
from agileact._common.names import suggestion
from agileact.study.spec.reading import Options as Options
from agileact.study.spec.reading import freeze as freeze
from agileact.study.spec.reading import read


def _check(name: str, value: float, *, least: float, exclusive: bool = False) -> None:
    wrong = value <= least if exclusive else value < least
    if wrong or not math.isfinite(value):
        bound = f"greater than {least}" if exclusive else f"at least {least}"
        raise ArgumentError(f"{name} must be {bound}{'' if wrong else ' and finite'}, not {value}")


_LATER = {"later": True}
"""Marks a field that came after results had been stored: at its default it is no part of the identity."""


@dataclass(frozen=True)
class DataSpec:
    """A data set by its registered name.

    Attributes:
        name: The registered name.
        validation: Training samples that are set aside for validation.
        fingerprint: Hash of the arrays that were found under the name, so that trials on other data
            of the same name never mix; empty until the data has been loaded.
        options: The builder's options, such as the file that holds the data.
        split: Which division of the samples into training and validation ones; 0 is the builder's own.
    """

    name: str
    validation: int = 500
    fingerprint: str = ""
    options: Options = field(default=(), metadata=_LATER)
    split: int = field(default=0, metadata=_LATER)

    def __post_init__(self) -> None:
        _check("the split's number", self.split, least=0)
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
        use_test: Whether the test set is touched at all; not while learning rates are tuned.
        device: "cpu" or "cuda": what the network is trained on.
        precision: "fp32"; "bf16" or "fp16" for mixed precision, by Accelerate.
        processes: In how many processes, each with its part of every batch, one network is trained (DDP, by
            Accelerate); with "cuda" each has a GPU of its own.
        sharded: Share the network itself out too: each process keeps a part of every weight, of its gradient and of
            the optimizer's numbers (FSDP), for a network that is too large for one device.
        patience: Stop after so many evaluations in a row without a lower validation loss; 0 for never.
    """

    iterations: int
    batch_size: int = 100
    evaluate_every: int = 50
    probe_every: int = 0
    test_curve: bool = True
    use_test: bool = field(default=True, metadata=_LATER)
    device: str = field(default="cpu", metadata=_LATER)
    precision: str = field(default="fp32", metadata=_LATER)
    processes: int = field(default=1, metadata=_LATER)
    sharded: bool = field(default=False, metadata=_LATER)
    patience: int = field(default=0, metadata=_LATER)

    def __post_init__(self) -> None:
        check_choice("device", self.device, ("cpu", "cuda"))
        check_choice("precision", self.precision, ("fp32", "bf16", "fp16"))
        if self.precision == "fp16" and self.device == "cpu":
            raise ArgumentError("precision 'fp16' needs the device 'cuda'; on the CPU take 'bf16'")
        _check("the number of processes", self.processes, least=1)
        _check("the number of iterations", self.iterations, least=1)
        _check("the batch size", self.batch_size, least=1)
        if self.batch_size < self.processes:
            raise ArgumentError(f"a batch of {self.batch_size} cannot be shared by {self.processes} processes")
        if not isinstance(self.sharded, bool):
            raise ArgumentError(f"sharded must be True or False, not {self.sharded!r}")
        if self.sharded and self.processes == 1:
            raise ArgumentError("a network can only be sharded over several processes; name how many, such as 2")
        if self.sharded and self.precision == "fp16":
            raise ArgumentError("a sharded network trains in 'fp32' or 'bf16', not in 'fp16'")
        _check("the number of iterations between evaluations", self.evaluate_every, least=1)
        _check("the number of iterations between probes", self.probe_every, least=0)
        _check("patience", self.patience, least=0)
        if self.test_curve and not self.use_test:
            raise ArgumentError("a budget with use_test=False cannot have a test curve; pass test_curve=False")


@dataclass(frozen=True)
class TaskSpec:
    """What is learned: data, model and budget."""

    data: DataSpec
    model: ModelSpec
    budget: Budget


HELD = ("standardized", "hidden-standardized", "centred-start", "length-one")
"""Weights whose rows are put back after each step."""
SCHEDULES = ("constant", "cosine", "linear", "one-cycle")
_CHOICES = {
    "scale_sign": ("free", "positive"),
    "start": ("identity", "calibrated", "folded", "one", "skip-init"),
    "updates": ("own", "folded", "folded-reset"),
    "width": ("given", "matched"),
    "normalisation": ("none", "batch", "layer"),
    "weights": ("free", *HELD, "weight-standardized", "weight-norm"),
    "schedule": SCHEDULES,
}


@dataclass(frozen=True)
class ArmSpec:
    """What is compared: activations, and how the network that has them is trained.

    Attributes:
        activations: Pairs (where, activation), such as ``(("conv", "agile-relu"), ("fc", "sigmoid"))``. "Where" is a
            role of the model, or a pattern (with ``*``, ``?`` or ``[``) that the names of activation modules are
            matched against. A pattern goes before a role, and ``*`` behind it.
        optimizer: Name of a registered optimizer.
        lr: Learning rate of the weights.
        activation_lr: Learning rate of what the activations learn; None means ``lr``.
        scale_lr: Learning rate of scales; None means ``activation_lr``.
        location_lr: Learning rate of locations; None means ``activation_lr``.
        freeze: "scale", "location", "gain" or several: what stays at its start.
        weight_decay: Weight decay of the weights; activations get none.
        activation_decay: Decay of scales and locations towards their start.
        scale_sign: "free", or "positive": after each step scales below 0.001 are set to it.
        bias_lr_multiplier: The biases' learning rate is ``lr`` times this.
        start: "identity"; "calibrated": scales and locations from data; "folded": a plain network that computes what
            the calibrated agile one does; "one": scales of 1 where weights are standardised, instead of 1 / std f;
            "skip-init": scales of 0 where a branch of a residual sum ends, if weights are standardised.
        updates: "own"; "folded": a plain network that takes the steps that its agile form would
            (:mod:`agileact.study.training.folded_steps`); "folded-reset": the same, folded anew after each step.
        width: "given"; "matched": a plain network with one layer widened so that it has at least as many parameters
            as its agile form.
        normalisation: "none"; "batch" or "layer": batch or layer normalisation before each activation (after a
            convolution over all channels and positions of a sample).
        weights: "free". Rows before agile activations have length 1 after every step (:func:`agileact.standardize`),
            and mean 0: "standardized": in all layers; "hidden-standardized": behind an activation; "centred-start": in
            all layers, at the start alone; "length-one": in none. "weight-standardized": as "standardized", with the
            mean and length divided out in the forward pass and free weights beneath (Qiao et al. 2019);
            "weight-norm": :func:`torch.nn.utils.parametrizations.weight_norm` of every layer but the last.
        schedule: What becomes of all learning rates over the training: "constant"; "cosine" or "linear": down to 0 at
            the last iteration; "one-cycle": up from a 25th and down to nearly 0 (L. N. Smith, arXiv 1708.07120).
        warmup: Share of the iterations, below 1, over which the rates rise to what they are; for "one-cycle" the share
            of the rise, with 0 for its usual 0.3.
        clip_norm: Largest norm of the gradient of all parameters together; None for any.
        label_smoothing: Share of each target, below 1, that is spread evenly over all classes in the training loss;
            the losses on validation and test data have none.
        optimizer_options: Further arguments of the optimizer, such as ``(("betas", (0.9, 0.95)),)``.
        direction_turn: How far a step of Adam may turn a row of standardised weights, in units of the learning rate
            (:func:`agileact.param_groups`); None for no limit.
        code: Hash of the user's own activations, so that trials of other code never mix; filled in when a study begins.
    """

    activations: Options
    optimizer: str = "adam"
    lr: float = 0.001
    activation_lr: float | None = None
    scale_lr: float | None = field(default=None, metadata=_LATER)
    location_lr: float | None = field(default=None, metadata=_LATER)
    freeze: tuple[str, ...] = field(default=(), metadata=_LATER)
    weight_decay: float = field(default=0.0, metadata=_LATER)
    activation_decay: float = field(default=0.0, metadata=_LATER)
    scale_sign: str = field(default="free", metadata=_LATER)
    bias_lr_multiplier: float = field(default=1.0, metadata=_LATER)
    start: str = field(default="identity", metadata=_LATER)
    updates: str = field(default="own", metadata=_LATER)
    width: str = field(default="given", metadata=_LATER)
    normalisation: str = field(default="none", metadata=_LATER)
    schedule: str = field(default="constant", metadata=_LATER)
    warmup: float = field(default=0.0, metadata=_LATER)
    clip_norm: float | None = field(default=None, metadata=_LATER)
    label_smoothing: float = field(default=0.0, metadata=_LATER)
    optimizer_options: Options = field(default=(), metadata=_LATER)
    weights: str = field(default="free", metadata=_LATER)
    direction_turn: float | None = field(default=None, metadata=_LATER)
    code: str = field(default="", metadata=_LATER)

    def __post_init__(self) -> None:
        _check("the learning rate", self.lr, least=0.0, exclusive=True)
        for name in ("activation_lr", "scale_lr", "location_lr"):
            rate = getattr(self, name)
            if rate is not None:
                _check("the " + name.replace("_lr", " learning rate"), rate, least=0.0)
        for name in ("weight_decay", "activation_decay", "bias_lr_multiplier"):
            _check(name, getattr(self, name), least=0.0)
        for name, allowed in _CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        for name in ("warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ArgumentError(f"{name} must be at least 0 and less than 1, not {getattr(self, name)}")
        if self.clip_norm is not None:
            _check("clip_norm", self.clip_norm, least=0.0, exclusive=True)
        if self.direction_turn is not None:
            _check("direction_turn", self.direction_turn, least=0.0, exclusive=True)
            if self.weights not in HELD:
                raise ArgumentError(
                    f"direction_turn is for weights {' or '.join(map(repr, HELD))}, not {self.weights!r}"
                )
        if self.start in ("calibrated", "folded") and self.weights != "free":
            raise ArgumentError(f"the start {self.start!r} is for free weights, not for {self.weights!r} ones")
        for entry in self.freeze:
            check_choice("an entry of freeze", entry, ("scale", "location", "gain"))
        if len(set(self.freeze)) < len(self.freeze):
            raise ArgumentError(f"freeze names something twice: {', '.join(self.freeze)}")
        if list(self.freeze) != sorted(self.freeze):
            # One identity for one meaning.
            object.__setattr__(self, "freeze", tuple(sorted(self.freeze)))

    def activation(self, role: str, module: str = "") -> str | None:
        """Return the activation of a role, or of the pattern that fits the module's name; None if there is neither.

        Example:
            >>> arm = ArmSpec(freeze({"fc": "relu", "conv[12]*": "gelu"}))
            >>> arm.activation("conv", "conv2_activation"), arm.activation("fc"), arm.activation("conv")
            ('gelu', 'relu', None)
        """
        given = dict(self.activations)
        name = module or role
        patterns = [where for where in given if where != "*" and any(sign in where for sign in "*?[")]
        fitting = {where: str(given[where]) for where in patterns if fnmatch.fnmatchcase(name, where)}
        if len(set(fitting.values())) > 1:
            raise ArgumentError(f"several patterns fit the activation {name!r}: {', '.join(fitting)}")
        found = next(iter(fitting.values()), given.get(role, given.get("*")))
        return None if found is None else str(found)


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise unless a field has one of its values."""
    if value not in allowed:
        raise ArgumentError(
            f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r}{suggestion(value, allowed)}"
        )


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
        """Return the spec as canonical JSON: sorted keys, no spaces, later fields only where they are not default."""
        return json.dumps(_plain(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "TrialSpec":
        """Rebuild a spec from :meth:`to_json`; an ArgumentError says what does not fit."""
        return read(cls, json.loads(text))

    @property
    def key(self) -> str:
        """The trial's identity: the first 16 hex digits of the SHA-256 of its canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """Return a spec as dicts and lists, without the later fields that have their default."""
    if dataclasses.is_dataclass(value):
        return {
            entry.name: _plain(getattr(value, entry.name))
            for entry in dataclasses.fields(value)
            if not (entry.metadata.get("later") and getattr(value, entry.name) == entry.default)
        }
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
