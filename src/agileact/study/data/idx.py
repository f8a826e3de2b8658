"""The IDX file format of MNIST and its relatives: two zero bytes, a dtype code, the sizes, the items.

Nothing in a file is believed before it is checked: the sizes that the header claims are held against the
bytes that are there (or, for a compressed file, that could be there) before any memory is set aside.
"""

import contextlib
import gzip
import hashlib
import io
import math
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from agileact._common.errors import DataError

#: The dtype codes of the format; items of several bytes are big-endian.
DTYPES: dict[int, np.dtype[Any]] = {
    code: np.dtype(name)
    for code, name in zip((8, 9, 11, 12, 13, 14), ("u1", "i1", ">i2", ">i4", ">f4", ">f8"), strict=True)
}

#: The largest content that is read unless the caller says otherwise.
MAX_BYTES = 2**32

_MAX_DIMENSIONS = 32  # what numpy 1.x can hold
_CHUNK = 2**20
# Deflate cannot expand by more than this (https://zlib.net/zlib_tech.html, "maximum compression factor").
_DEFLATE_LIMIT = 1032


def read_idx(
    source: str | os.PathLike[str] | bytes,
    *,
    dimensions: int | None = None,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> npt.NDArray[Any]:
    """Read an IDX file or its bytes, gzip-compressed or not (the content decides, not the name), as a writable array.

    ``dimensions`` and ``sha256``, of the content after decompression, must be these if they are given. A content over
    ``max_bytes`` is refused before memory is set aside for it. A DataError says what is wrong with the file.
    """
    name = "IDX content" if isinstance(source, bytes) else os.fspath(source)
    with _content(source, name) as (stream, size, most):
        if size == 0:
            raise DataError(f"{name}: the file is empty, an IDX file was expected")
        head = stream.read(4)
        dtype, rank = _parse_magic(head, name, dimensions)
        head += stream.read(4 * rank)
        if len(head) < 4 + 4 * rank:
            raise DataError(f"{name}: truncated: the header has {len(head)} bytes of {4 + 4 * rank}")
        shape = np.frombuffer(head, ">u4", offset=4).tolist()
        expected = math.prod(shape) * dtype.itemsize
        described = f"{' x '.join(map(str, shape))} items of {dtype.itemsize} bytes"
        # A size of 0 must not hide absurd others: numpy would refuse such a shape with an error of its own.
        if math.prod(max(length, 1) for length in shape) * dtype.itemsize > max_bytes:
            raise DataError(
                f"{name}: the header claims {described}, more than the "
                f"{max_bytes:,} bytes that are read at most; the file is corrupt or not an IDX file"
            )
        if expected > most - len(head):
            raise DataError(
                f"{name}: truncated or corrupt: the header claims {described}, {expected:,} bytes, "
                f"but a file of {size:,} bytes cannot hold them"
            )
        body = stream.read(expected)
        if len(body) < expected:
            raise DataError(f"{name}: truncated: {len(body):,} bytes of items, {expected:,} were expected")
        if stream.read(1):
            raise DataError(f"{name}: more bytes follow the {described} that the header claims")
    if sha256 is not None and (found := hashlib.sha256(head + body).hexdigest()) != sha256:
        raise DataError(
            f"{name}: an IDX file, but another one than expected: its content has SHA-256 {found}, not {sha256}"
        )
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open ``path`` for reading if it is a regular file: opening a pipe would wait for ever."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise DataError(f"{os.fspath(path)}: a file was expected, this is {what}")
    return Path(path).open("rb")


def content_sha256(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> str:
    """Return the SHA-256 of a file's content, decompressed if it is a gzip file.

    So the same array has the same checksum whether it is stored raw or was compressed once more.
    """
    name, digest, total = os.fspath(path), hashlib.sha256(), 0
    with _content(path, name) as (stream, _, _):
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            total += len(chunk)
            if total > max_bytes:
                raise DataError(f"{name}: the content is larger than {max_bytes:,} bytes")
    return digest.hexdigest()


@contextlib.contextmanager
def _content(source: str | os.PathLike[str] | bytes, name: str) -> Iterator[tuple[BinaryIO, int, int]]:
    """Yield a stream of the content, decompressed, the file's size, and how many bytes the content can have."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            packed = file.read(2) == b"\x1f\x8b"  # an IDX file never starts as gzip does
            file.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=file) as stream:
                    yield stream, size, size * _DEFLATE_LIMIT  # type: ignore[misc]
            else:
                yield file, size, size
    except EOFError as error:
        raise DataError(f"{name}: truncated: the gzip stream ends early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: corrupt gzip file: {error}") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error


def _parse_magic(head: bytes, name: str, dimensions: int | None) -> tuple[np.dtype[Any], int]:
    if len(head) < 4:
        raise DataError(f"{name}: truncated: {len(head)} bytes, an IDX file has a header of at least 8")
    code, rank = head[2], head[3]
    if head[:2] != b"\0\0" or code not in DTYPES:
        codes = ", ".join(f"{known:#04x}" for known in DTYPES)
        raise DataError(
            f"{name}: not an IDX file: it starts with the bytes {head.hex(' ')}, expected 00 00, "
            f"a dtype code ({codes}) and the number of dimensions"
        )
    if not 1 <= rank <= _MAX_DIMENSIONS or dimensions not in (None, rank):
        wanted = f"1 to {_MAX_DIMENSIONS}" if dimensions is None else str(dimensions)
        raise DataError(f"{name}: an array of {wanted} dimensions was expected, the header says {rank}")
    return DTYPES[code], rank
