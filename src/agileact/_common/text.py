"""Text for a terminal: how wide it is there, and what is left of it where a character does not exist."""

from __future__ import annotations

import argparse
import codecs
import unicodedata
from typing import IO

_SIMPLER = {"±": "+-", "–": "-", "—": "-", "−": "-", "·": "*", "×": "x", "…": "...", "→": "->", "≥": ">=", "≤": "<="}
_ERRORS = "agileact.simpler"
"""The name under which Python's codecs know :func:`_simpler`, for ``errors=``."""


def _simpler(error: UnicodeError) -> tuple[str, int]:
    """Say what to write in place of characters that an encoding lacks; a wide one is two columns wide."""
    assert isinstance(error, UnicodeEncodeError)
    lost = error.object[error.start : error.end]
    return "".join(_SIMPLER.get(one) or "?" * cell_width(one) for one in lost), error.end


codecs.register_error(_ERRORS, _simpler)


class HelpFormatter(argparse.HelpFormatter):
    """Help whose paragraphs fit the terminal; a text that has lines of its own keeps them."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "".join(indent + line for line in text.splitlines(keepends=True))
        return super()._fill_text(text, width, indent)


def cell_width(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for each wide character, none for a combining one.

    Example:
        >>> cell_width("agile"), cell_width("연구"), cell_width("e\u0301")
        (5, 4, 1)
    """
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    # The vowels and final consonants of Hangul that is written letter by letter join the consonant before them.
    if "\u1160" <= character <= "\u11ff" or unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def printable(text: str, stream: IO[str] | None = None) -> str:
    r"""Return a text of a user's as it can be shown: composed, without control characters, in the stream's encoding.

    A name that holds an escape sequence would otherwise move the cursor or colour the rest of the screen.

    Example:
        >>> printable("a\x1b[31mb")
        'a�[31mb'
    """
    composed = unicodedata.normalize("NFC", text)
    # Also what reverses the direction of writing: U+202A to U+202E and U+2066 to U+2069.
    clean = "".join(
        "\ufffd"
        if unicodedata.category(c) in ("Cc", "Cs") or "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"
        else c
        for c in composed
    )
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return clean.encode(encoding, _ERRORS).decode(encoding)


def replace_unprintable(*streams: IO[str] | None) -> None:
    """Have streams write something simpler where their encoding lacks a character, instead of failing."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_ERRORS)
