from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agileact._common.errors import DataError
from agileact.study.data.idx import DTYPES, content_sha256, read_idx


def encode(array: npt.NDArray[Any], code: int) -> bytes:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(DTYPES[code]).tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
GOOD = encode(IMAGES, 0x08)
PACKED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
@pytest.mark.parametrize("code", DTYPES, ids=hex)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 2, 3, 4), (0,), (0, 28, 28)], ids=str)
def test_every_dtype(tmp_path: Path, code: int, shape: tuple[int, ...], pack: Callable[[bytes], bytes]) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=shape) if DTYPES[code].kind == "f" else rng.integers(0, 100, size=shape)
    array = values.astype(DTYPES[code])
    path = tmp_path / "array"
    path.write_bytes(pack(encode(array, code)))
    read = read_idx(path)
    np.testing.assert_array_equal(read, array)
    assert read.dtype.isnative
    assert read.dtype == DTYPES[code].newbyteorder("=")
    assert read.flags.writeable
    assert read.flags.c_contiguous


def test_negative_and_wide_values() -> None:
    array = np.array([-(2**31), -1, 2**31 - 1], dtype=np.int32)
    np.testing.assert_array_equal(read_idx(encode(array, 0x0C)), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (GOOD[:3], "truncated: 3 bytes"),
        (GOOD[:9], "truncated: the header has 9 bytes of 16"),
        (GOOD[:-1], "cannot hold"),
        (GOOD + b"\0", "more bytes follow"),
        (b"\x00\x01" + GOOD[2:], "not an IDX file: it starts with the bytes 00 01 08 03"),
        (b"\x00\x00\x0a" + GOOD[3:], "not an IDX file"),
        (b"\x89PNG\r\n\x1a\n", "not an IDX file: it starts with the bytes 89 50 4e 47"),
        (b"\x00\x00\x08\x00", "1 to 32 dimensions was expected, the header says 0"),
        (b"\x00\x00\x08\xff" + bytes(1020), "the header says 255"),
        (PACKED[:-1], "gzip stream ends early"),
        (PACKED[:20], "gzip stream ends early"),
        (PACKED[:2], "ends early"),
        (PACKED[:15] + bytes([PACKED[15] ^ 255]) + PACKED[16:], "corrupt gzip|ends early|not an IDX"),
        (PACKED[:-8] + bytes([PACKED[-8] ^ 1]) + PACKED[-7:], "corrupt gzip file: CRC check failed"),
        (PACKED + b"rubbish", "corrupt gzip"),
        (gzip.compress(GOOD[:-1]), "truncated: 23 bytes of items, 24 were expected"),
        (gzip.compress(GOOD + b"\0"), "more bytes follow"),
        (gzip.compress(b""), "truncated: 0 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "bytes",
)
def test_broken_content(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "digits-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    with pytest.raises(DataError, match=message):
        read_idx(content)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
@pytest.mark.parametrize(
    "shape",
    [(10**6, 10**6), (2**32 - 1,) * 32, (0, 2**32 - 1, 2**32 - 1, 2**32 - 1), (10**9,), (4 * 10**9,)],
    ids=["10^12", "2^1024", "zero", "10^9", "4*10^9"],
)
def test_absurd_sizes_take_no_memory(shape: tuple[int, ...], pack: Callable[[bytes], bytes]) -> None:
    content = pack(bytes([0, 0, 0x08, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(100))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="the header claims"):
            read_idx(content)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_max_bytes(tmp_path: Path) -> None:
    path = tmp_path / "digits"
    path.write_bytes(GOOD)
    assert read_idx(path, max_bytes=24).shape == (2, 3, 4)
    with pytest.raises(DataError, match="read at most"):
        read_idx(path, max_bytes=23)


def test_dimensions(tmp_path: Path) -> None:
    path = tmp_path / "digits"
    path.write_bytes(GOOD)
    assert read_idx(path, dimensions=3).shape == (2, 3, 4)
    with pytest.raises(DataError, match="an array of 1 dimensions was expected, the header says 3"):
        read_idx(path, dimensions=1)


def test_checksum_is_of_the_content(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(GOOD).hexdigest()
    for number, content in enumerate([GOOD, PACKED, gzip.compress(GOOD, compresslevel=0)]):
        path = tmp_path / str(number)
        path.write_bytes(content)
        np.testing.assert_array_equal(read_idx(path, sha256=sha256), IMAGES)
        assert content_sha256(path) == sha256
    other = encode(IMAGES + 1, 0x08)
    path.write_bytes(other)
    with pytest.raises(DataError, match=f"{hashlib.sha256(other).hexdigest()}, not {sha256}"):
        read_idx(path, sha256=sha256)


def test_things_that_are_not_readable_files(tmp_path: Path) -> None:
    loop, pipe = tmp_path / "loop", tmp_path / "pipe"
    cases = {tmp_path: "directory", tmp_path / "missing": "No such file"}
    if hasattr(os, "mkfifo"):
        loop.symlink_to(loop)
        os.mkfifo(pipe)
        cases |= {loop: "cannot be read", pipe: "not a regular file"}
    for path, message in cases.items():
        for read in (read_idx, content_sha256):
            with pytest.raises(DataError, match=message):
                read(path)


def test_content_sha256_stops_at_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(bytes(2**22)))
    with pytest.raises(DataError, match="larger than 1,000"):
        content_sha256(path, max_bytes=1000)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_an_array_or_a_data_error(content: bytes) -> None:
    for start in (b"", b"\0\0", b"\x1f\x8b\x08", GOOD[:4]):
        for packed in (start + content, gzip.compress(start + content, compresslevel=1)):
            with contextlib.suppress(DataError):
                read_idx(packed)


@given(
    st.sampled_from([GOOD, PACKED, encode(np.ones((3, 2)), 0x0E), gzip.compress(PACKED)]),
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=4),
    st.integers(0, 80),
)
@settings(max_examples=300, deadline=None)
def test_damaged_files_give_an_array_or_a_data_error(
    content: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    damaged = bytearray(content)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    with contextlib.suppress(DataError):
        read_idx(bytes(damaged[:length]))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_round_trip(data: st.DataObject) -> None:
    code = data.draw(st.sampled_from(sorted(DTYPES)))
    shape = tuple(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5)))
    dtype = DTYPES[code]
    size = int(np.prod(shape)) * dtype.itemsize
    array = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), dtype=dtype).reshape(shape)
    read = read_idx(encode(array, code))
    assert read.shape == shape
    assert read.astype(dtype).tobytes() == array.tobytes()
