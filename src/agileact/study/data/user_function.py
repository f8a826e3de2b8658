"""Data of the user's: loaded by a function of theirs."""

import contextlib
import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Subset

from agileact._common.errors import DataError
from agileact.study.data.dataset import PARTS, DataSet, register_data
from agileact.study.data.download import Progress
from agileact.study.data.on_disk import Samples, taken
from agileact.study.data.preparation import assembled, fingerprint, options, split
from agileact.study.data.several_inputs import Layout, layout_of, packed
from agileact.study.spec.trial import DataSpec
from agileact.study.spec.user_targets import call


def build_custom(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``custom``: what the function that the option ``target`` names returns, without arguments.

    It returns a :class:`~agileact.study.data.dataset.DataSet`, or two or three
    parts: training, validation and test, or training and test, where ``validation`` samples are set aside of the
    former. A part is a pair (inputs, targets) of tensors or arrays, a ``torch.utils.data.Dataset``, or a
    ``DataLoader``, whose samples are taken in the order of their indices. Inputs may be several, a tuple or a dict of
    tensors, which the network takes by position or by name. Whole-numbered targets (N,) are classes;
    floating ones (N,) or (N, outputs) a regression; whole-numbered inputs and targets (N, length) text; inputs of
    int64 with classes are tokens. Nothing is standardised.
    """
    target = options(spec, {"target": None})["target"]
    loaded = _ahead.pop(target, None) or _loaded(target)
    if isinstance(loaded, DataSet):
        # A fingerprint that was made up would let results on other data pass for these.
        return dataclasses.replace(loaded, fingerprint=fingerprint([getattr(loaded, part) for part in PARTS]))
    found, layout = loaded
    kind, classes = _kind(target, found)
    if layout and kind != "regression" and found[0][1].ndim != 1:
        raise DataError(f"the data {target!r} has several inputs, and targets (N, length) as text has, of one input")
    if kind == "regression":
        found = [(x, (y[:, None] if y.ndim == 1 else y).to(torch.float32)) for x, y in found]
    pairs = [
        (_input(target, x, kind), (y if kind == "regression" else y.to(torch.int64)).contiguous()) for x, y in found
    ]
    mixable = len(pairs) == 2  # parts that the user has divided stay divided
    if mixable:
        x, y = pairs[0]
        where = split(spec, len(y), 0)
        pairs[:1] = [(taken([x], torch.from_numpy(where[part])), y[where[part]]) for part in ("train", "validation")]
    text = f"{spec.name}: {{train}} training, {{validation}} validation and {{test}} test samples from {target}"
    tensors = [values for pair in pairs for values in pair]
    data = assembled(spec, tensors, text, classes, kind, mixable=mixable)
    if not layout:
        return data
    mixed = hashlib.sha256(f"{data.fingerprint}{layout}".encode()).hexdigest()[:16]
    return dataclasses.replace(data, inputs=layout, fingerprint=mixed)


_Loaded = DataSet | tuple[list[tuple[Tensor, Tensor]], Layout]
"""What a function of the user's gave: a whole data set, or pairs by part, and how several inputs are packed."""

_ahead: dict[str, _Loaded] = {}
"""What was loaded to look at its size, for the next build to take: to load may take minutes."""


@contextlib.contextmanager
def loaded_ahead(target: str) -> Iterator[int]:
    """Load data for the first build in the block; give how many samples are usually set aside: 500, at most a fifth."""
    loaded = _loaded(target)
    usual = DataSpec("custom").validation
    if not isinstance(loaded, DataSet) and len(loaded[0]) == 2:  # else the number means nothing
        usual = max(1, min(usual, len(loaded[0][0][1]) // 5))
    _ahead[target] = loaded
    del loaded  # the build that takes it has it for itself: it may be as large as the memory
    try:
        yield usual
    finally:
        _ahead.pop(target, None)


def _loaded(target: str) -> _Loaded:
    loaded = call(target, "data")
    return loaded if isinstance(loaded, DataSet) else _pairs(target, loaded)


def _pairs(target: str, loaded: Any) -> tuple[list[tuple[Tensor, Tensor]], Layout]:
    """Return inputs and targets of each part, as many of the one as of the other; and how several inputs are packed."""
    if not isinstance(loaded, Sequence) or len(loaded) not in (2, 3):
        raise DataError(_UNLIKE.format(target))
    names = ("training", "validation", "test") if len(loaded) == 3 else ("training", "test")
    pairs, kinds = [], set()
    for name, part in zip(names, loaded, strict=True):
        if isinstance(part, (DataLoader, Dataset)):
            part = _materialised(target, name, part)
        if not isinstance(part, Sequence) or len(part) != 2:
            raise DataError(_UNLIKE.format(target))
        given, targets = part
        inputs, what = _inputs(given)
        for values in (*inputs.values(), targets):
            if not isinstance(values, (Tensor, np.ndarray)):
                raise DataError(f"the data {target!r} must hold tensors or arrays, not a {type(values).__name__}")
        x, y = {str(key): _plain(target, values) for key, values in inputs.items()}, _plain(target, targets)
        for values in x.values():
            if values.ndim == 0 or y.ndim == 0 or len(values) != len(y):
                raise DataError(
                    f"the {name} part of the data {target!r} has inputs {tuple(values.shape)} and targets "
                    f"{tuple(y.shape)}: there must be a target for each input, along the first axis"
                )
        pairs.append((x, y))
        kinds.add(what)
    if len(kinds) > 1:
        found = " and ".join(sorted(kinds))
        raise DataError(f"the inputs of the data {target!r} are {found}, by part; make them alike")
    if kinds == {"a tensor"}:
        return [(x["inputs"], y) for x, y in pairs], ()
    layout = layout_of(target, [x for x, _ in pairs], named=kinds == {"a dict"})
    return [(packed(x), y) for x, y in pairs], layout


_UNLIKE = (
    "the data {!r} must return a DataSet, or two or three pairs (inputs, targets), Datasets or DataLoaders: training, "
    "validation (if there is one) and test"
)
_LOADED = 256
"""Samples of a Dataset that are collected at once."""


def _materialised(target: str, name: str, part: Any) -> tuple[Any, Tensor]:
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
    x: defaultdict[Any, Samples] = defaultdict(Samples)
    y, what = Samples(), ""
    for batch in _told(target, name, batches):
        pair = isinstance(batch, Sequence) and len(batch) == 2
        inputs, what = _inputs(batch[0]) if pair else ({}, "")
        if not pair or not all(isinstance(one, Tensor) for one in (*inputs.values(), batch[1])):
            raise DataError(
                f"the {name} part of the data {target!r} must give pairs (input, target) of tensors or numbers"
            )
        with _of_part(target, name):
            for key, one in inputs.items():
                x[key].add(_single(one))
            y.add(_single(batch[1]))
    if not x:
        raise DataError(f"the {name} part of the data {target!r} is empty")
    with _of_part(target, name):
        joined, targets = {key: values.joined() for key, values in x.items()}, y.joined()
    given = joined if what == "a dict" else tuple(joined.values()) if what == "a tuple" else joined["inputs"]
    return given, targets


@contextlib.contextmanager
def _of_part(target: str, name: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"the {name} part of the data {target!r}: {error}") from None


def _told(target: str, name: str, batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the batches; what the user's samples raise becomes one line."""
    try:
        yield from batches
    except Exception as error:
        raise DataError(
            f"the {name} part of the data {target!r} cannot be collected: {type(error).__name__}: {error}"
        ) from error


def _single(batch: Tensor) -> Tensor:
    return batch.to(torch.float32) if batch.is_floating_point() else batch


def _inputs(given: Any) -> tuple[dict[Any, Any], str]:
    """Return inputs by name or position, and what they came as."""
    if isinstance(given, Mapping):
        return dict(given), "a dict"
    if isinstance(given, Sequence) and not isinstance(given, str):
        return dict(enumerate(given)), "a tuple"
    return {"inputs": given}, "a tensor"


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


register_data("custom", build_custom)
