"""What the builders share: options with checks, files below the data folder, splits, standardisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agileact._common.errors import ArgumentError, DataError
from agileact._common.names import unknown
from agileact.study.data.dataset import Array, DataSet, fingerprint
from agileact.study.spec.trial import DataSpec


def options(spec: DataSpec, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec's options over the defaults; a default of None means that the option must be given.

    Raises:
        ArgumentError: If an option is unknown or missing, or has another type than its default.
    """
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
    """Return the path of a file or folder: relative ones lie below the data folder, or the working directory.

    Raises:
        DataError: If there is nothing there.
    """
    path = Path(name).expanduser()
    if not path.is_absolute() and data_dir is not None:
        path = data_dir / path
    if not path.exists():
        raise DataError(f"{spec.name}: there is no {path}")
    return path


def standardised(
    spec: DataSpec,
    parts: Mapping[str, tuple[Array, Array]],
    *,
    description: str,
    kind: str,
    classes: int,
    inputs: bool = True,
) -> DataSet:
    """Build a data set whose columns have mean 0 and deviation 1 over the training part, and by its numbers alone.

    Args:
        spec: The data set's name.
        parts: "train", "validation" and "test": inputs (N, ...) and targets, (N,) labels or (N, outputs) values.
        description: As for :func:`agileact.study.data.dataset.make_data_set`.
        kind: "classification" or "regression"; for the latter targets are standardised too, so that its mean squared
            error is a share of the variance.
        classes: Number of classes or outputs.
        inputs: Whether to standardise the inputs.

    Raises:
        DataError: If a part holds numbers that are not finite.
    """
    for part, (x, y) in parts.items():
        if not np.isfinite(np.asarray(x, dtype=np.float64)).all() or not np.isfinite(y).all():
            raise DataError(f"{spec.name}: the {part} part holds numbers that are not finite")
    train_x, train_y = parts["train"]
    shift, size = _moments(train_x) if inputs else (0.0, 1.0)
    shift_y, size_y = _moments(train_y) if kind == "regression" else (0.0, 1.0)
    tensors: list[torch.Tensor] = []
    for part in ("train", "validation", "test"):
        x, y = parts[part]
        tensors.append(torch.from_numpy(np.ascontiguousarray((x - shift) / size, dtype=np.float32)))
        values = (y - shift_y) / size_y
        tensors.append(torch.from_numpy(values.astype(np.float32 if kind == "regression" else np.int64)))
    return assembled(spec, tensors, description, classes, kind)


def assembled(
    spec: DataSpec, tensors: list[torch.Tensor], description: str, classes: int, kind: str = "classification"
) -> DataSet:
    """Build a data set from six tensors: inputs and targets of the training, validation and test part."""
    train_x, train_y, validation_x, validation_y, test_x, test_y = tensors
    return DataSet(
        name=spec.name,
        train_x=train_x,
        train_y=train_y,
        validation_x=validation_x,
        validation_y=validation_y,
        test_x=test_x,
        test_y=test_y,
        description=description.format(
            train=f"{len(train_y):,}", validation=f"{len(validation_y):,}", test=f"{len(test_y):,}"
        ),
        fingerprint=fingerprint(tensors),
        classes=classes,
        kind=kind,
    )


def _moments(values: Array) -> tuple[Array, Array]:
    deviation = values.std(axis=0, dtype=np.float64)
    # A column without spread is left as wide as it is.
    return values.mean(axis=0, dtype=np.float64), np.where(deviation > 0, deviation, 1.0)


def split(spec: DataSpec, count: int, test: int) -> dict[str, Array]:
    """Return indices of the training, validation and test part: a permutation that the data's name alone decides.

    Raises:
        ArgumentError: If nothing would be left to train on.
    """
    if spec.validation + test >= count:
        raise ArgumentError(
            f"{spec.name} has {count:,} samples, of which {test:,} are for testing: at most {count - test - 1:,} can "
            f"be set aside for validation, not {spec.validation:,}"
        )
    # PCG64 by name: numpy promises its stream for ever, but not which generator is the default.
    order = np.random.Generator(np.random.PCG64(0)).random(count).argsort(kind="stable")
    held = test + spec.validation
    return {"test": order[:test], "validation": order[test:held], "train": order[held:]}
