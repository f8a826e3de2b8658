"""Data of the user's: loaded by a function of theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agileact._common.errors import DataError
from agileact.study.data.dataset import DataSet, register_data
from agileact.study.data.download import Progress
from agileact.study.data.preparation import assembled, options, split
from agileact.study.spec.trial import DataSpec
from agileact.study.spec.user_targets import call


def build_custom(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``custom``: what the function that the option ``target`` names returns.

    The function takes no arguments and returns a :class:`~agileact.study.data.dataset.DataSet`, or pairs (inputs,
    targets) of tensors or arrays: training, validation and test, or training and test, where ``validation`` samples
    are set aside of the former. Whole-numbered targets (N,) are classes; floating ones (N,) or (N, outputs) a
    regression; whole-numbered inputs and targets (N, length) text; inputs of int64 with classes are tokens. Nothing is
    standardised.

    Raises:
        ArgumentError: If the function cannot be had, or too few samples are there.
        DataError: If it returns something else.

    Example:
        >>> build_custom(DataSpec("custom", options=(("target", "math"),)), None, None)
        Traceback (most recent call last):
        ...
        agileact.ArgumentError: the data must be named as package.module:function, not 'math'
    """
    target = options(spec, {"target": None})["target"]
    loaded = call(target, "data")
    if isinstance(loaded, DataSet):
        return loaded
    pairs = _pairs(target, loaded)
    kind, classes = _kind(target, pairs)
    tensors = [_input(target, pairs[0][0], kind), _target(pairs[0][1], kind)]
    if len(pairs) == 2:
        where = split(spec, len(tensors[1]), 0)
        held = [tensors[0][where["validation"]], tensors[1][where["validation"]]]
        tensors = [tensors[0][where["train"]], tensors[1][where["train"]], *held]
    for x, y in pairs[1:]:
        tensors += [_input(target, x, kind), _target(y, kind)]
    text = f"{spec.name}: {{train}} training, {{validation}} validation and {{test}} test samples from {target}"
    # Parts that the user has divided stay divided.
    return dataclasses.replace(assembled(spec, tensors, text, classes, kind), mixable=len(pairs) == 2)


def _pairs(target: str, loaded: Any) -> list[tuple[Tensor, Tensor]]:
    if (
        not isinstance(loaded, Sequence)
        or len(loaded) not in (2, 3)
        or any(not isinstance(pair, Sequence) or len(pair) != 2 for pair in loaded)
    ):
        raise DataError(
            f"the data {target!r} must return a DataSet, or two or three pairs (inputs, targets): training, validation "
            "(if there is one) and test"
        )
    pairs = []
    for x, y in loaded:
        for values in (x, y):
            if not isinstance(values, (Tensor, np.ndarray)):
                raise DataError(f"the data {target!r} must hold tensors or arrays, not a {type(values).__name__}")
        pairs.append((_plain(target, x), _plain(target, y)))
    return pairs


def _plain(target: str, values: Any) -> Tensor:
    """Return values as a tensor in memory, on the CPU and outside any graph."""
    try:
        tensor = torch.as_tensor(values)
    except TypeError as error:  # an array of text or of objects
        raise DataError(f"the data {target!r} must hold numbers: {error}") from None
    if tensor.is_meta or tensor.layout != torch.strided:
        what = "on the device 'meta'" if tensor.is_meta else f"of the layout {tensor.layout}"
        raise DataError(f"the data {target!r} must hold ordinary tensors, not one {what}")
    return tensor.detach().cpu()


def _kind(target: str, pairs: list[tuple[Tensor, Tensor]]) -> tuple[str, int]:
    x, y = pairs[0]
    if y.is_floating_point():
        return "regression", y.shape[1] if y.ndim == 2 else 1
    if y.dtype == torch.bool or y.is_complex() or any(len(part) == 0 for _, part in pairs):
        raise DataError(
            f"the data {target!r} must have whole numbers or floating-point numbers as targets, and samples"
        )
    classes = 1 + max(int(part.max()) for _, part in pairs)
    if y.ndim == 2 and not x.is_floating_point():
        return "text", max(classes, 1 + max(int(part.max()) for part, _ in pairs))
    return "classification", classes


def _input(target: str, x: Tensor, kind: str) -> Tensor:
    if kind == "text" or x.dtype == torch.int64:
        return x.to(torch.int64).contiguous()
    if not x.is_floating_point():
        raise DataError(
            f"the data {target!r} must have floating-point inputs, not {x.dtype}; scale them first (or give tokens as "
            "int64)"
        )
    return x.to(torch.float32).contiguous()


def _target(y: Tensor, kind: str) -> Tensor:
    if kind == "regression":
        return (y[:, None] if y.ndim == 1 else y).to(torch.float32).contiguous()
    return y.to(torch.int64).contiguous()


register_data("custom", build_custom)
