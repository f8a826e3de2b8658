"""Named options in a form that is hashable and has one order."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from agileact._common.errors import ArgumentError

Options = tuple[tuple[str, Any], ...]
"""Pairs sorted by name."""


def freeze(options: Mapping[str, Any]) -> Options:
    """Return ``options`` as sorted pairs, with lists turned into tuples."""
    return tuple(sorted((name, as_options(value)) for name, value in options.items()))


def scalar(text: str, words: Mapping[str, Any] = MappingProxyType({"none": None, "true": True, "false": False})) -> Any:
    """Return what a word says: a number, one of ``words``, or the word itself."""
    for convert in (int, float):
        with contextlib.suppress(ValueError):
            return convert(text)
    return words.get(text.lower(), text)


def as_options(value: Any) -> Any:
    """Return a value in the form that options have: mappings as sorted pairs, lists as tuples, all the way down."""
    if isinstance(value, Mapping):
        return freeze(value)
    if isinstance(value, (list, tuple)):
        return tuple(as_options(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ArgumentError(f"an option must be a number, a string, None or a list of these, not {value!r}")
