"""Text from a file of the user's, cut into pieces of characters, each with the next one as its target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from agileact._common.errors import ArgumentError, DataError
from agileact.study.data.dataset import DataSet, register_data
from agileact.study.data.download import Progress
from agileact.study.data.idx import open_regular
from agileact.study.data.preparation import Array, assembled, locate, options
from agileact.study.spec.trial import DataSpec


def pieces(codes: Array, length: int) -> tuple[Array, Array]:
    """Cut a sequence into pieces that do not overlap, and the same pieces one place further on.

    Example:
        >>> x, y = pieces(np.arange(8), 3)
        >>> x.tolist(), y.tolist()
        ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    count = max(0, (len(codes) - 1) // length)
    return codes[: count * length].reshape(count, length), codes[1 : count * length + 1].reshape(count, length)


def build_text(spec: DataSpec, data_dir: Path | None, progress: Progress | None) -> DataSet:
    """Build ``text``: predict the next character of a text file (UTF-8).

    The option ``file`` names it (below the data folder); ``length`` is that of the pieces (64). The text is cut in
    order: the last tenth of the pieces (option ``test``: how many) is for testing, the ``validation`` pieces before
    it for validation, so that no tested character was trained on. Characters that the training part does not have
    are one class of their own, "unknown"; the alphabet is known from the training part alone.
    """
    given = options(spec, {"file": None, "length": 64, "test": 0})
    length = given["length"]
    if length < 1 or given["test"] < 0:
        raise ArgumentError(f"text needs a length of at least 1 and a test part of at least 0, not {given}")
    path = locate(spec, given["file"], data_dir)
    try:
        with open_regular(path) as stream:
            text = stream.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: byte {error.start:,} is {error.object[error.start]:#04x}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    x, y = pieces(points, length)
    test = given["test"] or max(1, len(x) // 10)
    train = len(x) - test - spec.validation
    if train < 1:
        raise ArgumentError(
            f"{path} has {len(points):,} characters, {len(x):,} pieces of {length}: too few for {spec.validation:,} to "
            f"validate and {test:,} to test on"
        )
    # What follows the training part is in its last target already.
    alphabet = np.unique(points[: train * length + 1])
    unknown = len(alphabet)
    tensors: list[torch.Tensor] = []
    for part in (slice(0, train), slice(train, train + spec.validation), slice(train + spec.validation, None)):
        for values in (x[part], y[part]):
            codes = np.searchsorted(alphabet, values).clip(max=unknown - 1)
            codes = np.where(alphabet[codes] == values, codes, unknown)
            tensors.append(torch.from_numpy(codes.astype(np.int64)))
    description = (
        f"{spec.name}: {{train}} training, {{validation}} validation and {{test}} test pieces of {length} characters "
        f"from {path.name}, in order, {unknown} different ones"
    )
    return assembled(spec, tensors, description, unknown + 1, "text")


register_data("text", build_text)
