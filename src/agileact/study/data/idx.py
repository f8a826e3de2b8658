"""The IDX file format of MNIST and its relatives: two zero bytes, a dtype code, the sizes, the items.

Nothing in a file is believed before it is checked: the sizes that the header claims are held against the
bytes that are there (or, for a compressed file, that could be there) before any memory is set aside.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from agileact._common.errors import DataError

#: The dtype codes of the format; items of several bytes are big-endian.
DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(np.uint8),
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}

#: The largest content that is read unless the caller says otherwise.
MAX_BYTES = 2**32

_GZIP_MAGIC = b"\x1f\x8b"
_MAX_DIMENSIONS = 32  # what numpy 1.x can hold
_CHUNK = 2**20
# Deflate cannot expand by more than this (https://zlib.net/zlib_tech.html, "maximum compression factor").
_DEFLATE_LIMIT = 1032


def read_idx(
    path: str | os.PathLike[str],
    *,
    dimensions: int | None = None,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> npt.NDArray[Any]:
    """Read an IDX file, gzip-compressed or not (the content decides, not the name).

    Args:
        path: The file.
        dimensions: How many dimensions the array must have; None accepts any number.
        sha256: SHA-256 that the content must have, after decompression; None accepts any content.
        max_bytes: A larger content is refused before memory is set aside for it.

    Returns:
        A writable, contiguous array in the machine's byte order.

    Raises:
        DataError: If the file is missing, unreadable, not IDX, truncated, corrupt, too long, or another one
            than asked for.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "labels-idx1-ubyte")
        ...     _ = path.write_bytes(bytes([0, 0, 0x08, 1, 0, 0, 0, 3, 7, 2, 1]))
        ...     read_idx(path)
        array([7, 2, 1], dtype=uint8)
    """
    name = os.fspath(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            return _read(file, size, name, dimensions, sha256, max_bytes)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error


def parse_idx(content: bytes, name: str = "IDX content", *, dimensions: int | None = None) -> npt.NDArray[Any]:
    """Read an IDX array from bytes, gzip-compressed or not.

    Example:
        >>> parse_idx(bytes([0, 0, 0x0B, 1, 0, 0, 0, 2, 0, 5, 255, 255]))
        array([ 5, -1], dtype=int16)
    """
    return _read(io.BytesIO(content), len(content), name, dimensions, None, MAX_BYTES)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open ``path`` for reading if it is a regular file: opening a pipe would wait for ever.

    Raises:
        OSError: If it cannot be opened.
        DataError: If it is a directory, a pipe or a device.

    Example:
        >>> open_regular("/")
        Traceback (most recent call last):
        ...
        agileact.DataError: /: a file was expected, this is a directory
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise DataError(f"{os.fspath(path)}: a file was expected, this is {what}")
    return Path(path).open("rb")


def content_sha256(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> str:
    """Return the SHA-256 of a file's content, decompressed if it is a gzip file.

    So the same array has the same checksum whether it is stored raw or was compressed once more.

    Raises:
        DataError: If the file cannot be read or its compressed content is corrupt or too large.

    Example:
        >>> import gzip, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     raw, packed = pathlib.Path(folder, "raw"), pathlib.Path(folder, "packed.gz")
        ...     _ = raw.write_bytes(b"abc"), packed.write_bytes(gzip.compress(b"abc"))
        ...     content_sha256(raw) == content_sha256(packed)
        True
    """
    name = os.fspath(path)
    digest, total = hashlib.sha256(), 0
    try:
        with open_regular(path) as file:
            stream, _ = _decompressing(file)
            with stream:
                while chunk := _take(stream, _CHUNK, name):
                    digest.update(chunk)
                    total += len(chunk)
                    if total > max_bytes:
                        raise DataError(f"{name}: the content is larger than {max_bytes:,} bytes")
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _read(
    file: BinaryIO, size: int, name: str, dimensions: int | None, sha256: str | None, max_bytes: int
) -> npt.NDArray[Any]:
    if size == 0:
        raise DataError(f"{name}: the file is empty, an IDX file was expected")
    stream, compressed = _decompressing(file)
    with stream:
        head = _take(stream, 4, name)
        dtype, rank = _parse_magic(head, name, dimensions)
        head += _take(stream, 4 * rank, name)
        if len(head) < 4 + 4 * rank:
            raise DataError(f"{name}: truncated: the header has {len(head)} bytes of {4 + 4 * rank}")
        shape = struct.unpack(f">{rank}I", head[4:])
        expected = math.prod(shape) * dtype.itemsize
        described = f"{' x '.join(map(str, shape))} items of {dtype.itemsize} bytes"
        # A size of 0 must not hide absurd others: numpy would refuse such a shape with an error of its own.
        if math.prod(max(length, 1) for length in shape) * dtype.itemsize > max_bytes:
            raise DataError(
                f"{name}: the header claims {described}, more than the "
                f"{max_bytes:,} bytes that are read at most; the file is corrupt or not an IDX file"
            )
        available = size * _DEFLATE_LIMIT if compressed else size - len(head)
        if expected > available:
            raise DataError(
                f"{name}: truncated or corrupt: the header claims {described}, {expected:,} bytes, "
                f"but a file of {size:,} bytes cannot hold them"
            )
        body = _take(stream, expected, name)
        if len(body) < expected:
            raise DataError(f"{name}: truncated: {len(body):,} bytes of items, {expected:,} were expected")
        if _take(stream, 1, name):
            raise DataError(f"{name}: more bytes follow the {described} that the header claims")
    if sha256 is not None:
        digest = hashlib.sha256(head)
        digest.update(body)
        if (found := digest.hexdigest()) != sha256:
            raise DataError(
                f"{name}: an IDX file, but another one than expected: its content has SHA-256 {found}, not {sha256}"
            )
    items = np.frombuffer(body, dtype=dtype).reshape(shape)
    return items.astype(dtype.newbyteorder("="), copy=False)


def _decompressing(file: BinaryIO) -> tuple[BinaryIO, bool]:
    """Return a stream of the content, and whether it is compressed; an IDX file never starts as gzip does."""
    magic = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    if magic == _GZIP_MAGIC:
        return gzip.GzipFile(fileobj=file, mode="rb"), True  # type: ignore[return-value]
    return file, False


def _take(stream: BinaryIO, count: int, name: str) -> bytearray:
    """Read up to ``count`` bytes, growing as they come: what a header claims may not be there."""
    taken = bytearray()
    try:
        while len(taken) < count and (chunk := stream.read(min(_CHUNK, count - len(taken)))):
            taken += chunk
    except EOFError as error:
        raise DataError(f"{name}: truncated: the gzip stream ends early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: corrupt gzip file: {error}") from error
    return taken


def _parse_magic(head: bytes | bytearray, name: str, dimensions: int | None) -> tuple[np.dtype[Any], int]:
    if len(head) < 4:
        raise DataError(f"{name}: truncated: {len(head)} bytes, an IDX file has a header of at least 8")
    code, rank = head[2], head[3]
    if head[:2] != b"\0\0" or code not in DTYPES:
        codes = ", ".join(f"{known:#04x}" for known in DTYPES)
        raise DataError(
            f"{name}: not an IDX file: it starts with the bytes {head.hex(' ')}, expected 00 00, "
            f"a dtype code ({codes}) and the number of dimensions"
        )
    if not 1 <= rank <= _MAX_DIMENSIONS:
        raise DataError(f"{name}: an array of 1 to {_MAX_DIMENSIONS} dimensions was expected, the header says {rank}")
    if dimensions is not None and rank != dimensions:
        raise DataError(f"{name}: an array of {dimensions} dimensions was expected, the header says {rank}")
    return DTYPES[code], rank
