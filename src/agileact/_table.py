"""A table for people, in a terminal of any width."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

from agileact._optional import require

_PIPED_WIDTH = 160
_FRAME = 3  # two blanks and a line for each column


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, keys: int, stream: IO[str] | None = None
) -> None:
    """Print a table; one that is too wide becomes several, each of which begins with the first ``keys`` columns.

    No cell is ever cut. In a file or a pipe, where there is no terminal to fit, lines have up to 160 characters.

    Args:
        title: Stands above.
        header: A name for each column.
        rows: Cells as text.
        keys: How many leading columns say what a row is.
        stream: Where to print; standard output unless given.

    Raises:
        MissingExtraError: If rich is not installed.

    Example:
        >>> print_table("Losses", ("n", "loss"), [("1", "0.25")], keys=1)  # doctest: +NORMALIZE_WHITESPACE
          Losses
        ┏━━━┳━━━━━━┓
        ┃ n ┃ loss ┃
        ┡━━━╇━━━━━━┩
        │ 1 │ 0.25 │
        └───┴──────┘
    """
    stream = sys.stdout if stream is None else stream
    console = require("rich.console", "study").Console(file=stream, width=None if stream.isatty() else _PIPED_WIDTH)
    widths = [
        max([len(word) for word in name.split()] + [len(row[index]) for row in rows])
        for index, name in enumerate(header)
    ]
    for part, columns in enumerate(_fit(widths, keys, console.width)):
        table = require("rich.table", "study").Table(title=title if part == 0 else None, show_edge=True)
        for index in columns:
            numeric = all(not row[index][:1].isalpha() for row in rows)
            table.add_column(header[index], justify="right" if numeric else "left", min_width=widths[index])
        for row in rows:
            table.add_row(*(row[index] for index in columns))
        console.print(table)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as plain text, a line for each row; no cell is cut, and no package is needed.

    Args:
        header: A name for each column.
        rows: Cells as text.

    Example:
        >>> print(format_table(("name", "base"), [("act", "relu"), ("encoder.act", "gelu")]))
        name         base
        -----------  ----
        act          relu
        encoder.act  gelu
    """
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _fit(widths: Sequence[int], keys: int, room: int) -> list[list[int]]:
    """Return groups of columns, each with the keys in front, that fit into ``room``; at least one column a group.

    Example:
        >>> _fit([2, 5, 5, 5], 1, 20)
        [[0, 1], [0, 2], [0, 3]]
        >>> _fit([2, 5, 5, 5], 1, 25)
        [[0, 1, 2], [0, 3]]
    """
    front = list(range(keys))
    groups: list[list[int]] = []
    for column in range(keys, len(widths)):
        wide = sum(widths[i] + _FRAME for i in [*(groups[-1] if groups else front), column]) + 1
        if groups and wide <= room:
            groups[-1].append(column)
        else:
            groups.append([*front, column])
    return groups or [front]
