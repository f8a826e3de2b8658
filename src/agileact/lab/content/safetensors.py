"""Sizes and positions out of a safetensors file, as the transformers Trainer writes it: the header, and those alone."""

from __future__ import annotations

import json
import math
from typing import Any, BinaryIO

import torch
from torch import Tensor

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_WANTED = ("scale", "location")
_MOST_HEADER = 64 * 2**20
_LENGTH = 8
"""The file starts with the length of its header in so many bytes; the header is JSON."""


def is_safetensors(start: bytes) -> bool:
    r"""Return whether a file that starts so can be one: torch.save and SQLite begin otherwise.

    Example:
        >>> is_safetensors(b"\x10" + bytes(7) + b"{"), is_safetensors(b"SQLite format 3")
        (True, False)
    """
    return start[_LENGTH : _LENGTH + 1] == b"{" and int.from_bytes(start[:_LENGTH], "little") <= _MOST_HEADER


def read_safetensors(stream: BinaryIO, size: int) -> dict[str, Tensor]:
    """Return the tensors by name: those called NAME.scale and NAME.location with their values, the rest without.

    Args:
        stream: The file, opened at its start.
        size: Its bytes.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        length = int.from_bytes(stream.read(_LENGTH), "little")
        header = json.loads(stream.read(min(length, _MOST_HEADER)))
        header.pop("__metadata__", None)
        return {name: _tensor(stream, name, told, _LENGTH + length, size) for name, told in header.items()}
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
        # The header may hold anything.
        raise ValueError(str(error)) from None


def _tensor(stream: BinaryIO, name: str, told: Any, origin: int, size: int) -> Tensor:
    shape = [int(length) for length in told["shape"]]
    first, behind = (int(offset) for offset in told["data_offsets"])
    dtype = _DTYPES.get(told["dtype"])
    if min(shape, default=0) < 0 or not 0 <= first <= behind <= size - origin:
        raise ValueError(f"{name} lies outside of the file")
    if dtype is None or len(shape) != 1 or name.rpartition(".")[2] not in _WANTED:
        return torch.empty(shape, device="meta")
    if math.prod(shape) * dtype.itemsize != behind - first:
        raise ValueError(f"{name} has another size than its shape says")
    stream.seek(origin + first)
    values = bytearray(stream.read(behind - first))
    return torch.frombuffer(values, dtype=dtype) if values else torch.empty(0, dtype=dtype)
