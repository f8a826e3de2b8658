"""A table for people, in a terminal of any width."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

from agileact._common.errors import MissingExtraError
from agileact._common.optional import require
from agileact._common.text import cell_width, printable

_PIPED_WIDTH = 160
_FRAME = 3  # two blanks and a line for each column
_LEAST = 24  # columns that what wraps gets at least


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
    Without the package rich the table is plain text.

    Args:
        title: Stands above.
        header: A name for each column.
        rows: Cells as text.
        keys: How many leading columns say what a row is.
        wrap: How many of the last columns are prose, of several lines if need be.
        stream: Where to print; standard output unless given.

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
    numeric = [all(not row[index][:1].isalpha() for row in rows) for index in range(len(header))]
    header = [printable(name, stream) for name in header]
    rows = [[printable(cell, stream) for cell in row] for row in rows]
    try:
        rich = {name: require(f"rich.{name}", "study") for name in ("console", "table", "text")}
    except MissingExtraError:
        print(f"{printable(title, stream)}\n{format_table(header, rows)}", file=stream)
        return
    # What users call their arms and studies is text, and never rich's markup.
    text = rich["text"].Text
    room = rich["console"].Console(file=stream, width=None if stream.isatty() else _PIPED_WIDTH).width
    cells = [max([0, *(cell_width(row[index]) for row in rows)]) for index in range(len(header))]
    widths = [
        max([cells[index], *map(cell_width, name.split())], default=cells[index]) for index, name in enumerate(header)
    ]
    prose = range(len(header) - wrap, len(header))
    left = room - 1 - _FRAME * len(widths) - sum(widths[: len(widths) - wrap])
    for rest, index in enumerate(sorted(prose, key=widths.__getitem__)):
        widths[index] = min(widths[index], max(_LEAST, left // (wrap - rest)))
        left -= widths[index]
    for part, columns in enumerate(_fit(widths, keys, room)):
        name = text(printable(title, stream), style="table.title") if part == 0 and title else None
        table = rich["table"].Table(title=name, show_lines=wrap > 1)
        spare = room - 1 - sum(widths[index] + _FRAME for index in columns)
        for index in columns:
            # A name of several words stands in one line where there is room for it.
            more = max(0, min(spare, cell_width(header[index]) - widths[index])) if index not in prose else 0
            spare -= more
            table.add_column(
                text(header[index]),
                justify="right" if numeric[index] and index not in prose else "left",
                overflow="fold",
                width=widths[index] + more,
            )
        for row in rows:
            table.add_row(*(text(row[index]) for index in columns))
        # Names that are wider than the terminal go on in its next line; rich would cut them.
        needed = sum(widths[index] + _FRAME for index in columns) + 1
        rich["console"].Console(file=stream, width=max(room, needed)).print(table)


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
    widths = [max(cell_width(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell + " " * (width - cell_width(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
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
