"""Tables of four columns and more say in each cell what its column is, so that style.css can stack them on a phone.

MkDocs calls the function named ``on_...``.
"""

from __future__ import annotations

import html
import re
from typing import Any

LEAST = 4
"""Columns; fewer fit a phone by wrapping."""

_TABLE = re.compile(r"<table>(.*?)</table>", re.DOTALL)
_ROW = re.compile(r"<tr[^>]*>.*?</tr>", re.DOTALL)
_HEAD = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
_CELL = re.compile(r"<td\b([^>]*>(.*?)</td>)", re.DOTALL)
_LONG = 40
"""Characters; a longer text is set under its column's title instead of beside it."""


def on_page_content(content: str, **_: Any) -> str:
    """Label the cells of a page."""
    return labelled(content)


def labelled(content: str) -> str:
    """Return HTML with the columns' titles in the cells of wide tables, and the roles that stacking would hide."""
    return _TABLE.sub(_one, content)


def _one(table: re.Match[str]) -> str:
    titles = [_text(title) for title in _HEAD.findall(table[1])]
    if len(titles) < LEAST:
        return table[0]

    def row(found: re.Match[str]) -> str:
        left = iter(titles)

        def cell(one: re.Match[str]) -> str:
            long = " data-long" * (len(_text(one[2])) > _LONG)
            return f'<td role="cell" data-label="{html.escape(next(left, ""))}"{long}{one[1]}'

        cells = _CELL.sub(cell, found[0])
        return cells.replace("<tr", '<tr role="row"', 1)

    return f'<table data-stacks role="table">{_ROW.sub(row, table[1])}</table>'


def _text(content: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", content)).split())
