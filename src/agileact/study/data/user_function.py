"""Data of the user's: loaded by a function of theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Subset

from agileact._common.errors import DataError
from agileact.study.data.dataset import PARTS, DataSet, register_data
from agileact.study.data.download import Progress
from agileact.study.data.preparation import assembled, fingerprint, options, split
from agileact.study.spec.trial import DataSpec
from agileact.study.spec.user_targets import call


def build_custom(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``custom``: what the function that the option ``target`` names returns.

    The function takes no arguments and returns a :class:`~agileact.study.data.dataset.DataSet`, or two or three
    parts: training, validation and test, or training and test, where ``validation`` samples are set aside of the
    former. A part is a pair (inputs, targets) of tensors or arrays, a ``torch.utils.data.Dataset``, or a
    ``DataLoader``, whose samples are taken in the order of their indices. Whole-numbered targets (N,) are classes;
    floating ones (N,) or (N, outputs) a regression; whole-numbered inputs and targets (N, length) text; inputs of
    int64 with classes are tokens. Nothing is standardised.
    """
    target = options(spec, {"target": None})["target"]
    loaded = call(target, "data")
    if isinstance(loaded, DataSet):
        # A fingerprint that was made up would let results on other data pass for these.
        return dataclasses.replace(loaded, fingerprint=fingerprint([getattr(loaded, part) for part in PARTS]))
    pairs = _pairs(target, loaded)
    kind, classes = _kind(target, pairs)
    pairs = [(_input(target, x, kind), _target(y, kind)) for x, y in pairs]
    if len(pairs) == 2:
        x, y = pairs[0]
        where = split(spec, len(y), 0)
        pairs[:1] = [(x[where[part]], y[where[part]]) for part in ("train", "validation")]
    text = f"{spec.name}: {{train}} training, {{validation}} validation and {{test}} test samples from {target}"
    tensors = [values for pair in pairs for values in pair]
    # Parts that the user has divided stay divided.
    return assembled(spec, tensors, text, classes, kind, mixable=len(loaded) == 2)


def _pairs(target: str, loaded: Any) -> list[tuple[Tensor, Tensor]]:
    """Return inputs and targets of each part, as many of the one as of the other."""
    if not isinstance(loaded, Sequence) or len(loaded) not in (2, 3):
        raise DataError(_UNLIKE.format(target))
    names = ("training", "validation", "test") if len(loaded) == 3 else ("training", "test")
    pairs = []
    for name, part in zip(names, loaded, strict=True):
        if isinstance(part, (DataLoader, Dataset)):
            part = _materialised(target, name, part)
        if not isinstance(part, Sequence) or len(part) != 2:
            raise DataError(_UNLIKE.format(target))
        for values in part:
            if not isinstance(values, (Tensor, np.ndarray)):
                raise DataError(f"the data {target!r} must hold tensors or arrays, not a {type(values).__name__}")
        x, y = (_plain(target, values) for values in part)
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            raise DataError(
                f"the {name} part of the data {target!r} has inputs {tuple(x.shape)} and targets {tuple(y.shape)}: "
                "there must be a target for each input, along the first axis"
            )
        pairs.append((x, y))
    return pairs


_UNLIKE = (
    "the data {!r} must return a DataSet, or two or three pairs (inputs, targets), Datasets or DataLoaders: training, "
    "validation (if there is one) and test"
)
_LOADED = 256
"""Samples of a Dataset that are collected at once."""
_MOST_BYTES = 8 * 2**30
"""Samples stay in memory while trials run, and each worker has them."""


def _materialised(target: str, name: str, part: Any) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of a Dataset or a DataLoader, in the order of their indices."""
    loader = part if isinstance(part, DataLoader) else DataLoader(part)
    samples = loader.dataset
    if isinstance(samples, IterableDataset):
        batches = iter(loader)
    else:
        # Which samples a loader gives is kept; in which order, and in which batches, is the study's to say.
        own = loader.batch_sampler
        ours = own is None or type(own) is BatchSampler
        chosen = [*loader.sampler] if ours or own is None else [i for batch in own for i in batch]
        collate = None if own is None else loader.collate_fn
        batches = iter(DataLoader(Subset(samples, sorted(chosen)), batch_size=_LOADED, collate_fn=collate))
    x, y, size = [], [], 0
    for batch in batches:
        if not isinstance(batch, Sequence) or len(batch) != 2 or not all(isinstance(one, Tensor) for one in batch):
            raise DataError(
                f"the {name} part of the data {target!r} must give pairs (input, target) of tensors or numbers"
            )
        x.append(batch[0])
        y.append(batch[1])
        size += sum(one.numel() * one.element_size() for one in batch)
        if size > _MOST_BYTES:
            raise DataError(
                f"the {name} part of the data {target!r} has more than {_MOST_BYTES / 2**30:g} GiB; a study keeps its "
                "samples in memory: take fewer of them, or smaller ones"
            )
    if not x:
        raise DataError(f"the {name} part of the data {target!r} is empty")
    return torch.cat(x), torch.cat(y)


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
