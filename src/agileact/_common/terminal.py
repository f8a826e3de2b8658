"""Text for a terminal: help, names in any script and encoding, tables, and JSON for other programs."""

import argparse
import codecs
import json
import math
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import IO, Any

from agileact._common.errors import MissingExtraError
from agileact._common.optional import require

_SIMPLER = {"±": "+-", "–": "-", "—": "-", "−": "-", "·": "*", "×": "x", "…": "...", "→": "->", "≥": ">=", "≤": "<="}
_ERRORS = "agileact.simpler"
"""The name under which Python's codecs know :func:`_simpler`, for ``errors=``."""
_PIPED_WIDTH = 160
_FRAME = 3  # two blanks and a line for each column
_LEAST = 24  # columns that what wraps gets at least


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

    Reports of the core are printed where rich, which can tell it too, is not installed.
    """
    return sum(
        # The vowels and final consonants of Hangul that is written letter by letter join the consonant before them.
        0
        if "\u1160" <= one <= "\u11ff" or unicodedata.category(one) in ("Mn", "Me", "Cf", "Cc")
        else 1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
    )


def printable(text: str, stream: IO[str] | None = None) -> str:
    r"""Return a text of a user's as it can be shown: composed, without control characters, in the stream's encoding.

    A name that holds an escape sequence would otherwise move the cursor or colour the rest of the screen.
    """
    # Also what reverses the direction of writing: U+202A to U+202E and U+2066 to U+2069.
    clean = "".join(
        "\ufffd"
        if unicodedata.category(c) in ("Cc", "Cs") or "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"
        else c
        for c in unicodedata.normalize("NFC", text)
    )
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return clean.encode(encoding, _ERRORS).decode(encoding)


def replace_unprintable(*streams: IO[str] | None) -> None:
    """Have streams write something simpler where their encoding lacks a character, instead of failing."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_ERRORS)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as plain text, a line for each row, no cell cut: for reports of the core, which has no rich.

    Example:
        >>> print(format_table(("name", "base"), [("act", "relu"), ("encoder.act", "gelu")]))
        name         base
        -----------  ----
        act          relu
        encoder.act  gelu
    """
    widths = [max(map(cell_width, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell + " " * (width - cell_width(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def print_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    keys: int,
    wrap: int = 0,
    stream: IO[str] | None = None,
) -> None:
    """Print a table; one that is too wide becomes several, each of which begins with the first ``keys`` columns.

    No cell is ever cut. In a file or a pipe, where there is no terminal to fit, lines have up to 160 characters.
    Without rich the table is plain text. The last ``wrap`` columns are prose, of several lines if need be.
    """
    stream = sys.stdout if stream is None else stream
    header = [printable(name, stream) for name in header]
    rows = [[printable(cell, stream) for cell in row] for row in rows]
    try:
        console, table, text = (require(f"rich.{name}", "study") for name in ("console", "table", "text"))
    except MissingExtraError:
        print(f"{printable(title, stream)}\n{format_table(header, rows)}", file=stream)
        return
    room = console.Console(file=stream, width=None if stream.isatty() else _PIPED_WIDTH).width
    cells = [max(map(cell_width, column)) for column in zip(*rows, strict=True)] or [0] * len(header)
    prose = range(len(header) - wrap, len(header))
    # What wraps may be narrow, a name of several words may take several lines, a number may not.
    least = [
        max(min(cells[index], _LEAST) if index in prose else cells[index], *map(cell_width, name.split() or [""]))
        for index, name in enumerate(header)
    ]
    groups: list[list[int]] = []
    for column in range(keys, len(header)):
        if groups and sum(least[index] + _FRAME for index in [*groups[-1], column]) < room:
            groups[-1].append(column)
        else:
            groups.append([*range(keys), column])
    groups = groups or [[*range(keys)]]
    for columns in groups:
        # What users call their arms and studies is text, and never rich's markup.
        name = text.Text(printable(title, stream), style="table.title") if title and columns is groups[0] else None
        drawn = table.Table(title=name, show_lines=wrap > 1)
        spare = room - 1 - sum(least[index] + _FRAME for index in columns)
        # Room that is left goes to the names first, then to what wraps.
        widths = dict.fromkeys(columns, 0)
        for wanted in (list(map(cell_width, header)), cells):
            for index in sorted(columns, key=lambda index: wanted[index]):
                more = max(0, min(spare, wanted[index] - least[index] - widths[index]))
                widths[index], spare = widths[index] + more, spare - more
        for index in columns:
            numeric = index not in prose and not any(row[index][:1].isalpha() for row in rows)
            drawn.add_column(
                text.Text(header[index]),
                justify="right" if numeric else "left",
                overflow="fold",
                width=least[index] + widths[index],
            )
        for row in rows:
            drawn.add_row(*(text.Text(row[index]) for index in columns))
        # Names that are wider than the terminal go on in its next line; rich would cut them.
        console.Console(file=stream, width=max(room, room - spare)).print(drawn)


def say(text: str) -> None:
    """Tell the user something beside the result."""
    print(text, file=sys.stderr, flush=True)


def format_json(document: Any, *, ascii_only: bool = False) -> str:
    """Return a document as strict JSON (RFC 8259): characters as they are, and null for NaN and infinity."""
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
