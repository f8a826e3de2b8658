"""Rows out of the bytes of an SQLite file, page by page, whatever has happened to the rest of the file.

SQLite itself reads a table from its root page downwards, so that one bad page hides all behind it. Here every page
that looks like a leaf of a table is read by itself, with the chains of overflow pages that its rows go on in
(https://www.sqlite.org/fileformat2.html, sections 1.5, 1.6 and 2). What comes out may be anything: the caller checks
it.
"""

from __future__ import annotations

from collections.abc import Iterator

_USUAL_SIZE = 4096
_LEAF = 0x0D
_HEADER = 100
"""Bytes at the beginning of the first page that are no part of its tree."""


def rows(data: bytes, columns: int) -> Iterator[tuple[str | None, ...]]:
    """Yield what can be read as rows of text and NULL.

    Args:
        data: The file.
        columns: How many columns a row has at least.

    Example:
        >>> list(rows(b"no database", 2))
        []
    """
    for size, reserved in _page_sizes(data):
        for start in range(0, len(data), size):
            yield from _leaf_rows(data, start, size, size - reserved, columns)


def _page_sizes(data: bytes) -> set[tuple[int, int]]:
    """Return the sizes that a page may have and how much of its end is not used: the header's, and the usual ones."""
    sizes = {(_USUAL_SIZE, 0)}
    size = int.from_bytes(data[16:18], "big")
    size = 65536 if size == 1 else size
    if len(data) > _HEADER and size >= 512 and size & (size - 1) == 0 and data[20] < size // 2:
        sizes.add((size, data[20]))
    return sizes


def _leaf_rows(data: bytes, start: int, size: int, usable: int, columns: int) -> Iterator[tuple[str | None, ...]]:
    page = data[start : start + size]
    offset = 0 if start else _HEADER
    if len(page) < offset + 8 or page[offset] != _LEAF:
        return
    cells = int.from_bytes(page[offset + 3 : offset + 5], "big")
    for index in range(min(cells, size // 2)):
        place = offset + 8 + 2 * index
        cell = int.from_bytes(page[place : place + 2], "big")
        try:
            row = _record(_payload(data, page, cell, size, usable))
        except (ValueError, IndexError):
            continue
        if len(row) >= columns:
            yield row


def _payload(data: bytes, page: bytes, cell: int, size: int, usable: int) -> bytes:
    """Return the bytes of a row, put together from its page and its overflow pages."""
    length, place = _number(page, cell)
    _, place = _number(page, place)
    most, least = usable - 35, (usable - 12) * 32 // 255 - 23
    if length > len(data):
        raise ValueError("longer than the file")
    if length <= most:
        return _exactly(page[place : place + length], length)
    local = least + (length - least) % (usable - 4)
    local = local if local <= most else least
    parts, have = [_exactly(page[place : place + local], local)], local
    following = int.from_bytes(_exactly(page[place + local : place + local + 4], 4), "big")
    # No chain is longer than what it carries: a circle of pages ends too.
    while have < length:
        start = (following - 1) * size
        if following < 1 or start >= len(data):
            raise ValueError("a chain that leads nowhere")
        part = data[start + 4 : start + 4 + min(usable - 4, length - have)]
        parts.append(_exactly(part, min(usable - 4, length - have)))
        have += len(part)
        following = int.from_bytes(data[start : start + 4], "big")
    return b"".join(parts)


def _record(payload: bytes) -> tuple[str | None, ...]:
    end, place = _number(payload, 0)
    kinds = []
    while place < end:
        kind, place = _number(payload, place)
        kinds.append(kind)
    values: list[str | None] = []
    for kind in kinds:
        if kind == 0:
            values.append(None)
        elif kind >= 13 and kind % 2:
            length = (kind - 13) // 2
            values.append(_exactly(payload[place : place + length], length).decode())
            place += length
        else:
            raise ValueError("neither text nor NULL")
    return tuple(values)


def _number(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and the place behind it."""
    value = 0
    for index in range(8):
        byte = data[place + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + index + 1
    return value << 8 | data[place + 8], place + 9


def _exactly(part: bytes, length: int) -> bytes:
    if len(part) != length:
        raise ValueError("cut short")
    return part
