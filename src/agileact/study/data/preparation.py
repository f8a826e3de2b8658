"""What the builders share: options with checks, files below the data folder, splits, standardisation, fingerprints.

Every split is fixed: neither a trial's seed nor the state of a generator moves it. Images are put in the order of the
SHA-256 of the part's name and their pixels (:func:`mixed_order`), and a part takes the first ones of each class;
other samples in an order that their number alone decides (:func:`split`). scikit-learn's splits would be other
samples than those of the studies that are stored.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agileact._common import checks
from agileact._common.errors import ArgumentError, DataError
from agileact._common.names import unknown
from agileact.study.data.dataset import PARTS, DataSet, generator
from agileact.study.spec.trial import DataSpec

Array = npt.NDArray[Any]


def options(spec: DataSpec, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec's options over the defaults; a default of None means that the option must be given."""
    given = dict(spec.options)
    for name, value in given.items():
        if name not in defaults:
            known = (*defaults, "validation")  # which every data set has
            raise ArgumentError(unknown(f"option of the data set {spec.name!r}:", name, known))
        default = defaults[name]
        wanted = str if default is None else type(default)
        if isinstance(value, bool) or not isinstance(value, (float, int) if wanted is float else wanted):
            raise ArgumentError(
                f"option {name!r} of the data set {spec.name!r} must be of type {wanted.__name__}, not {value!r}"
            )
    missing = [name for name, default in defaults.items() if default is None and name not in given]
    if missing:
        raise ArgumentError(f"the data set {spec.name!r} needs the option {missing[0]!r}")
    return {**defaults, **given}


def locate(spec: DataSpec, name: str, data_dir: Path | None) -> Path:
    """Return the path of a file or folder: relative ones lie below the data folder, or the working directory."""
    path = Path(name).expanduser()
    if not path.is_absolute() and data_dir is not None:
        path = data_dir / path
    if not path.exists():
        raise DataError(f"{spec.name}: there is no {path}")
    return path


def assembled(
    spec: DataSpec,
    tensors: Sequence[torch.Tensor],
    description: str,
    classes: int,
    kind: str = "classification",
    *,
    mixable: bool = True,
) -> DataSet:
    """Build a data set from six tensors: inputs and targets of the training, validation and test part.

    In the description "{train}", "{validation}" and "{test}" become the numbers of samples; they come first, so that
    braces in a file's name stay.
    """
    for part, values in zip(("train", "validation", "test"), tensors[1::2], strict=True):
        description = description.replace(f"{{{part}}}", f"{len(values):,}", 1)
    parts: dict[str, Any] = dict(zip(PARTS, tensors, strict=True))
    found = fingerprint(tensors)
    return DataSet(
        spec.name, **parts, description=description, fingerprint=found, classes=classes, kind=kind, mixable=mixable
    )


def image_data(spec: DataSpec, train: tuple[Array, Array], test: tuple[Array, Array], description: str) -> DataSet:
    """Build a data set from images of 0 to 255 and labels from 0; the validation part is carved from ``train``.

    Images are uint8, (N, height, width) or (N, channels, height, width). Training samples are set aside as equally by
    class as they can be. The description is as for :func:`assembled`.
    """
    for x, y in (train, test):
        fits = x.dtype == np.uint8 and x.ndim in (3, 4) and y.shape == x.shape[:1] and y.dtype.kind in "iu"
        if not fits or (y < 0).any():
            raise DataError(
                f"{spec.name}: expected uint8 images (N, height, width) and labels (N,) from 0, "
                f"not {x.dtype} {x.shape} and {y.dtype} {y.shape}"
            )
    images, labels = train
    kept, held = take_by_class(labels, mixed_order(images, "validation"), spec.validation, name=spec.name)
    # Taking out the first of each class left its mark on the order of the rest.
    kept = kept[mixed_order(images[kept], "train")]
    tensors = []
    for x, y in ((images[kept], labels[kept]), (images[held], labels[held]), test):
        pixels = x if x.ndim == 4 else x[:, None]
        # A division of its own array: the tensor owns its memory, is writable and can be shared with processes.
        tensors.append(torch.from_numpy(pixels.astype(np.float32) / np.float32(255)))
        tensors.append(torch.from_numpy(y.astype(np.int64)))
    return assembled(spec, tensors, description, 1 + max(int(labels.max()), int(test[1].max())))


def mixed_order(images: Array, part: str) -> Array:
    """Return the indices of ``images`` in the order of the SHA-256 of ``part`` and their pixels.

    It mixes classes and writers as well as a random order would, and needs no generator that could change.
    """
    digests = [hashlib.sha256(part.encode() + image.tobytes()).digest() for image in images]
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)


def take_by_class(labels: Array, order: Array, count: int, *, name: str = "the data set") -> tuple[Array, Array]:
    """Split ``order`` into (kept, taken), where ``taken`` has ``count`` indices, the first of each class.

    Classes give equally many where ``count`` is divisible and every class has so many; else the first
    classes give one more, and a class that is too small gives all but one, so that each keeps a sample.
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
        quota[open_classes if each else open_classes[:rest]] += each or 1
        quota = np.minimum(quota, room)
    taken = place_in_class(labels[order]) < quota[labels[order]]
    return order[~taken], order[taken]


def place_in_class(labels: Array) -> Array:
    """Return how many of the same label stand before each label."""
    place = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        where = np.flatnonzero(labels == label)
        place[where] = np.arange(len(where))
    return place


def fingerprint(tensors: Sequence[torch.Tensor]) -> str:
    """Return the first 16 hex digits of the SHA-256 over the tensors' shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def standardised(
    spec: DataSpec, x: Array, y: Array, *, test: int, what: str, classes: int, columns: str = "each"
) -> DataSet:
    """Build a data set from samples, split by :func:`split` and standardised by the training part.

    The values (N, outputs) of a regression get mean 0 and deviation 1: a mean squared error is then a share of the
    variance. "each" column of the inputs gets mean 0 and deviation 1, "all" together do, or "none". ``what`` ends the
    description, which begins with the numbers of samples.
    """
    regression = y.ndim == 2
    where = split(spec, len(y), test)
    train_x, train_y = x[where["train"]], y[where["train"]]
    shift, size = _moments(train_x, 0 if columns == "each" else None) if columns != "none" else (0.0, 1.0)
    shift_y, size_y = _moments(train_y, 0) if regression else (0.0, 1.0)
    tensors: list[torch.Tensor] = []
    for index in where.values():
        tensors.append(torch.from_numpy(np.ascontiguousarray((x[index] - shift) / size, dtype=np.float32)))
        values = (y[index] - shift_y) / size_y
        tensors.append(torch.from_numpy(values.astype(np.float32 if regression else np.int64)))
    description = f"{spec.name}: {{train}} training, {{validation}} validation and {{test}} test {what}"
    return assembled(spec, tensors, description, classes, "regression" if regression else "classification")


def _moments(values: Array, axis: int | None) -> tuple[Array, Array]:
    deviation = values.std(axis=axis, dtype=np.float64)
    # A column without spread is left as wide as it is.
    return values.mean(axis=axis, dtype=np.float64), np.where(deviation > 0, deviation, 1.0)


def split(spec: DataSpec, count: int, test: int) -> dict[str, Array]:
    """Return indices of the training, validation and test part: a permutation that the number of samples decides."""
    if spec.validation + test >= count:
        raise ArgumentError(
            f"{spec.name} has {count:,} samples{f', of which {test:,} are for testing' * (test > 0)}: at most "
            f"{count - test - 1:,} can be set aside for validation, not {spec.validation:,}"
        )
    order = generator(0).random(count).argsort(kind="stable")
    held = test + spec.validation
    return {"train": order[held:], "validation": order[test:held], "test": order[:test]}
