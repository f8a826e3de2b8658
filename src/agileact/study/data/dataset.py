"""What a trial trains on, is tuned on and is tested on, and the registry of data sets by name.

A worker process that starts afresh knows the data sets of this folder alone: call :func:`register_data` in a
module that the worker imports too.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agileact._common.errors import ArgumentError, DataError
from agileact._common.names import hint
from agileact.study.data.download import Progress
from agileact.study.data.objective import OPTIONS, Objective, objective
from agileact.study.data.on_disk import at_once, sample_bytes, taken
from agileact.study.data.several_inputs import Layout
from agileact.study.spec.trial import DataSpec

KINDS = ("classification", "regression", "text")
PARTS = ("train_x", "train_y", "validation_x", "validation_y", "test_x", "test_y")


@dataclass(frozen=True, eq=False)
class DataSet:
    """Inputs and targets in three parts; the arrays are contiguous tensors and must not be changed.

    Attributes:
        name: The name that it is registered under.
        train_x: Inputs, shape (N, ...): float32, or int64 characters (N, length) for text. Images are
            (N, channels, height, width) in [0, 1].
        train_y: Targets: int64 labels (N,); float32 values (N, outputs) for regression; int64 characters (N, length),
            the next one at each position, for text.
        validation_x, validation_y, test_x, test_y: As ``train_x`` and ``train_y``.
        description: One sentence that says exactly which data this is.
        fingerprint: The first 16 hex digits of the SHA-256 over the arrays' bytes.
        classes: How many classes, characters or outputs there are; labels are 0 to ``classes - 1``.
        kind: "classification" and "text" have the loss cross-entropy, "regression" the mean squared error.
        mixable: Whether training and validation samples may change places.
        loss: A loss of the user's in place of it; see :class:`agileact.study.data.objective.Objective`.
        class_weights: Of each class in the cross-entropy.
        metric: What is told beside the loss; None is the accuracy, which a regression has not.
        augment: A function of the user's that changes the inputs of a training batch.
        inputs: How several inputs of the network are packed into one; empty for one input.
    """

    name: str
    train_x: torch.Tensor = field(repr=False)
    train_y: torch.Tensor = field(repr=False)
    validation_x: torch.Tensor = field(repr=False)
    validation_y: torch.Tensor = field(repr=False)
    test_x: torch.Tensor = field(repr=False)
    test_y: torch.Tensor = field(repr=False)
    description: str
    fingerprint: str
    classes: int
    kind: str = "classification"
    mixable: bool = True
    loss: str = ""
    class_weights: tuple[float, ...] = ()
    metric: str | None = None
    augment: str = ""
    inputs: Layout = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"{self.name}: kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        for part in ("train", "validation", "test"):
            self._check(part, getattr(self, f"{part}_x"), getattr(self, f"{part}_y"))
        for part in ("validation", "test"):
            x = getattr(self, f"{part}_x")
            if (x.dtype, x.shape[1:]) != (self.train_x.dtype, self.train_x.shape[1:]):
                raise DataError(
                    f"{self.name}: a sample of the {part} part is {x.dtype} {tuple(x.shape[1:])}, one of the train "
                    f"part {self.train_x.dtype} {tuple(self.train_x.shape[1:])}"
                )

    @property
    def objective(self) -> Objective:
        """What is minimised, and what is told beside the loss."""
        usual = "" if self.kind == "regression" else "accuracy"
        metric = usual if self.metric is None else self.metric
        return Objective(self.kind, self.classes, self.loss, self.class_weights, metric, self.augment)

    @property
    def summary(self) -> str:
        """What was found, in few words."""
        shape = self.train_x.shape[1:]
        inputs = f"{shape[0]} features" if len(shape) == 1 else f"inputs {'x'.join(map(str, shape))}"
        if self.inputs:
            shapes = [(name, "x".join(map(str, shape)) or "1") for name, _, shape, _ in self.inputs]
            inputs = "inputs " + " and ".join(f"{name} {shape}".strip() for name, shape in shapes)
        elif not self.train_x.is_floating_point():
            inputs = f"sequences of {shape[0]}"
        outputs = {"classification": "classes", "regression": "outputs", "text": "characters"}[self.kind]
        outputs = outputs if self.classes > 1 else outputs.removesuffix("s")
        counts = "/".join(f"{len(getattr(self, name)):,}" for name in PARTS[1::2])
        own = [f"loss {self.loss}"] if self.loss else []
        own += [f"augmented by {self.augment}"] if self.augment else []
        if self.class_weights:
            own.append("class weights " + "/".join(f"{weight:.3g}" for weight in self.class_weights))
        if self.metric not in (None, "", "accuracy"):
            own.append(f"metric {self.metric}")
        return ", ".join([f"{self.kind}, {self.classes} {outputs}, {inputs}, {counts} samples", *own])

    @property
    def largest_share(self) -> float | None:
        """The accuracy of answering the test samples' largest class always; None where no accuracy is told."""
        if self.objective.metric != "accuracy":
            return None
        return int(self.test_y.flatten().bincount().max()) / self.test_y.numel()

    def to(self, device: torch.device) -> "DataSet":
        """Return the data on a device."""
        return dataclasses.replace(self, **{name: getattr(self, name).to(device) for name in PARTS})

    @property
    def mixes(self) -> bool:
        """Whether :meth:`resampled` moves anything."""
        return self.mixable and self.kind != "text"

    def resampled(self, number: int) -> "DataSet":
        """Return the data with its training and validation samples shared out anew, parts as large as before.

        The test part stays, and so does the fingerprint, which is of the data that was loaded. Classes keep their
        numbers of samples in each part. Nothing is moved where the validation part is not to be mixed with the other:
        text, whose samples are neighbours, and parts that the user has divided. The same number gives the same parts.
        """
        if not self.mixes:
            return self
        x, y = [self.train_x, self.validation_x], torch.cat([self.train_y, self.validation_y])
        held = torch.cat([torch.zeros(len(self.train_y)), torch.ones(len(self.validation_y))]).bool()
        random = generator(number)
        new = torch.empty_like(held)
        labels = y if self.kind == "classification" else torch.zeros(len(y), dtype=torch.int64)
        for label in labels.unique():
            where = torch.nonzero(labels == label)[:, 0]
            new[where] = held[where[torch.from_numpy(random.permutation(len(where)))]]
        order = torch.from_numpy(random.permutation(len(y)))
        train, validation = order[~new[order]], order[new[order]]
        new_parts = (taken(x, train), y[train], taken(x, validation), y[validation])
        parts: dict[str, Any] = dict(zip(PARTS, new_parts, strict=False))
        description = f"{self.description}; split {number} into training and validation samples"
        return dataclasses.replace(self, **parts, description=description)

    def _check(self, part: str, x: torch.Tensor, y: torch.Tensor) -> None:
        found = f"{x.dtype} {tuple(x.shape)} and {y.dtype} {tuple(y.shape)}"
        if self.kind == "text":
            fits = x.dtype == y.dtype == torch.int64 and x.dim() == 2 and y.shape == x.shape
            wanted = "int64 characters (N, length), twice"
        elif self.kind == "regression":
            fits = x.dtype == y.dtype == torch.float32 and x.dim() >= 2 and y.shape == (len(x), self.classes)
            wanted = f"float32 inputs (N, ...) and float32 targets (N, {self.classes})"
        else:
            inputs = x.dtype in (torch.float32, torch.int64)  # numbers, or tokens
            fits = inputs and y.dtype == torch.int64 and x.dim() >= 2 and y.shape == x.shape[:1]
            wanted = "float32 inputs (N, ...), or int64 tokens, and int64 labels (N,)"
        if not fits:
            raise DataError(f"{self.name}: the {part} part must be {wanted}, not {found}")
        if len(y) == 0:
            raise DataError(f"{self.name}: the {part} part is empty")
        views = x.split(at_once(sample_bytes(x)))
        if x.is_floating_point() and not all(torch.isfinite(view).all() for view in views):
            raise DataError(f"{self.name}: the {part} part has inputs that are not finite")
        if self.kind == "regression":
            if not bool(torch.isfinite(y).all()):
                raise DataError(f"{self.name}: the {part} part has targets that are not finite")
        elif not 0 <= int(y.min()) <= int(y.max()) < self.classes:
            raise DataError(f"{self.name}: the {part} part must hold labels from 0 to {self.classes - 1}")


def generator(seed: int) -> np.random.Generator:
    """Return numpy's PCG64: numpy promises its stream for ever, but not which generator is the default."""
    return np.random.Generator(np.random.PCG64(seed))


Builder = Callable[[DataSpec, "Path | None", "Progress | None"], DataSet]
"""Makes a data set from its spec, the folder that the user named, and a progress callback."""

_builders: dict[str, Builder] = {}


def register_data(name: str, builder: Builder) -> None:
    """Make ``builder`` available under ``name``.

    Raises:
        ArgumentError: If the name is empty or taken.

    Example:
        >>> register_data("mnist5k", lambda spec, data_dir, progress: ...)
        Traceback (most recent call last):
        ...
        agileact.ArgumentError: a data set named 'mnist5k' exists already
    """
    if not name:
        raise ArgumentError("the name of a data set must not be empty")
    if name in _builders:
        raise ArgumentError(f"a data set named {name!r} exists already")
    _builders[name] = builder


def names() -> tuple[str, ...]:
    """Return the names of all registered data sets, sorted."""
    return tuple(sorted(_builders))


def load(spec: DataSpec, *, data_dir: Path | None = None, progress: Progress | None = None) -> DataSet:
    """Return the data set that ``spec`` names.

    Files come from ``data_dir`` and nowhere else if it is given; else from the user's cache, into which they are
    downloaded. ``progress`` is called with a file's name, the bytes that are there and the bytes in all.

    Raises:
        ArgumentError: If there is no such data set, or too few samples for such a validation part.
        DataError: If a file is missing, broken or not the one expected.
        MissingExtraError: If the package that ships the data is not installed.

    Example:
        >>> data = load(DataSpec("mnist5k-split", validation=500))
        >>> data.train_x.shape, data.validation_x.shape, data.test_x.shape
        (torch.Size([3500, 1, 28, 28]), torch.Size([500, 1, 28, 28]), torch.Size([1000, 1, 28, 28]))
    """
    builder = _builders.get(spec.name)
    if builder is None:
        raise ArgumentError(f"no data set is named {spec.name!r}{hint(spec.name, names())}")
    told = {name: value for name, value in spec.options if name in OPTIONS}
    bare = dataclasses.replace(spec, options=tuple(pair for pair in spec.options if pair[0] not in told))
    data = builder(bare, None if data_dir is None else Path(data_dir), progress)
    if spec.split:
        data = data.resampled(spec.split)
    if not told:
        return data
    held = [data.validation_y, data.test_y]
    found = objective(spec.name, data.kind, data.classes, (data.train_x, data.train_y), held, told)
    code = found.source_hash
    mixed = hashlib.sha256((data.fingerprint + code).encode()).hexdigest()[:16] if code else data.fingerprint
    return dataclasses.replace(data, fingerprint=mixed, **{name: getattr(found, name) for name in OPTIONS})


def check_repeatable(spec: DataSpec, data: DataSet, *, data_dir: Path | None = None) -> None:
    """Load data of the user's once more: every worker loads it, and must get the same samples."""
    builder = _builders[spec.name]
    target = dict(spec.options).get("target")
    if target is None and builder.__module__.startswith("agileact."):
        return
    again = load(spec, data_dir=data_dir)
    if again.fingerprint != data.fingerprint:
        raise ArgumentError(
            f"the data {target or spec.name!r} are not the same when they are loaded again (fingerprints "
            f"{data.fingerprint} and {again.fingerprint}); give its random numbers a seed of their own, such as "
            "numpy.random.default_rng(0), torch.Generator().manual_seed(0) or random_state=0"
        )
