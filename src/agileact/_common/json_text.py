"""JSON for other programs: strict, one document, whatever the encoding of the stream."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import IO, Any


def format_json(document: Any, *, ascii_only: bool = False) -> str:
    """Return a document as strict JSON (RFC 8259): characters as they are, and null for NaN and infinity.

    Args:
        document: Mappings, sequences, text, numbers, paths, None.
        ascii_only: Write every other character as an escape.

    Example:
        >>> print(format_json({"연구": [1.5, float("inf")]}))
        {
         "연구": [
          1.5,
          null
         ]
        }
    """
    return json.dumps(_strict(document), indent=1, ensure_ascii=ascii_only, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _strict(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_strict(one) for one in value]
    return value


def print_json(document: Any, stream: IO[str] | None = None) -> None:
    """Print a document; where the stream's encoding lacks a character, as escapes, which say the same."""
    stream = sys.stdout if stream is None else stream
    text = format_json(document)
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = format_json(document, ascii_only=True)
    print(text, file=stream)
