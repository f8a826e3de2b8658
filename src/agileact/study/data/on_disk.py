"""Samples that are too large for memory are kept in a file of the temporary folder and read in pieces."""

import contextlib
import itertools
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import numpy as np
import torch
from torch import Tensor

from agileact._common.errors import DataError

_PIECE = 2**26
"""Bytes that are worked on at once."""


def most_bytes() -> int:
    """Return how large an array may be in memory: a quarter of the machine's at most, since each worker has its own."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX
        return 2**31
    return min(2**33, memory // 4)


def at_once(sample: int) -> int:
    """Return how many samples of so many bytes are worked on at once."""
    return max(1, _PIECE // max(sample, 1))


def built(count: int, sample: int, make: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what ``make`` gives for the numbers of ``count`` samples of so many bytes, in a file where it is large."""
    if count * sample <= most_bytes():
        return make(torch.arange(count))
    samples = Samples()
    for numbers in torch.arange(count).split(at_once(sample)):
        samples.add(make(numbers))
    return samples.joined()


def taken(parts: Sequence[Tensor], where: Tensor) -> Tensor:
    """Return the samples of those numbers, counted through all parts, in a file where they are large."""
    if len(where) * sample_bytes(parts[0]) <= most_bytes():
        return torch.cat([*parts])[where] if len(parts) > 1 else parts[0][where]
    starts = [0, *itertools.accumulate(len(part) for part in parts)]

    def make(numbers: Tensor) -> Tensor:
        batch = torch.empty((len(numbers), *parts[0].shape[1:]), dtype=parts[0].dtype)
        for start, part in zip(starts, parts, strict=False):
            local = where[numbers] - start
            inside = (local >= 0) & (local < len(part))
            batch[inside] = part[local[inside]]
        return batch

    return built(len(where), sample_bytes(parts[0]), make)


def sample_bytes(x: Tensor) -> int:
    """Return the bytes of one sample; 0 where there is none."""
    return x.element_size() * x[:1].numel()


class Samples:
    """Batches of samples one after the other; in memory while they fit, then in a file that ends with the process."""

    def __init__(self) -> None:
        self._batches: list[Tensor] = []
        self._bytes = 0
        self._count = 0
        self._file: IO[bytes] | None = None

    def add(self, batch: Tensor) -> None:
        """Append a batch; a DataError says that its samples are unlike those before, or the disk is full."""
        first = self._batches[0] if self._batches else batch
        if (batch.dtype, batch.shape[1:]) != (first.dtype, first.shape[1:]):
            found = " and ".join(f"{one.dtype} {tuple(one.shape[1:])}" for one in (first, batch))
            raise DataError(f"its samples are {found}; make them alike")
        self._count += len(batch)
        self._bytes += batch.nbytes
        self._batches.append(batch)
        if self._file is None and self._bytes <= most_bytes():
            return
        with _enough_room():
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the samples
                weakref.finalize(self, _close, self._file)
            for one in self._batches:
                self._file.write(one.contiguous().numpy().data)
        self._batches = [first[:0]]

    def joined(self) -> Tensor:
        """Return all samples."""
        if self._file is None:
            return torch.cat(self._batches)
        with _enough_room():
            self._file.flush()
        (first,) = self._batches
        # Copied where it is written to, so that a network that changes its input leaves the file alone.
        array = np.memmap(self._file, first.numpy().dtype, "c", shape=(self._count, *first.shape[1:]))
        return torch.from_numpy(array)


@contextlib.contextmanager
def _enough_room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the samples do not fit into memory, and not into {tempfile.gettempdir()} either: {error}; "
            "set TMPDIR to a folder with more room"
        ) from None


def _close(file: IO[bytes]) -> None:
    # What a full disk did not take is tried once more, and was said before.
    with contextlib.suppress(OSError):
        file.close()
