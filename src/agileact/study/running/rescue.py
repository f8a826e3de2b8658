"""agileact study rescue: what is whole in a damaged store, in a new one; nothing of the old one is thrown away."""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agileact._common.errors import StoreError
from agileact._common.json_text import print_json
from agileact.study.running import pages as _pages
from agileact.study.running.store import DamagedRowError, Store, lock, whole

_COLUMNS = ("key", "spec", "status", "result", "stored_at", "digest")
_Row = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Rescued:
    """What came out of a rescue.

    Attributes:
        trials: How many trials were saved.
        damaged: How many rows were found that are not whole.
        store: Where the saved trials are.
        kept: Where the damaged file is now; None if it stayed where it was.
    """

    trials: int
    damaged: int
    store: Path
    kept: Path | None


def rescue(path: Path, out: Path | None = None) -> Rescued:
    """Save every trial of a store that is whole: its key fits its spec, its text its digest, its result can be read.

    Rows are looked for by SQLite as far as it gets, and on every page of the file by itself, so that a lost header, a
    missing end or a bad page in between costs only the rows that lie there.

    Args:
        path: The damaged store.
        out: Where the new store is written, which must not exist yet. None puts it in the place of the damaged one,
            which is kept under another name beside it.

    Raises:
        StoreError: If there is no such file, it is in use, nothing in it is whole, or ``out`` exists.
    """
    if not path.is_file():
        raise StoreError(f"there is no store of trials at {path}")
    if out is not None and out.exists():
        raise StoreError(f"{out} exists already; name a file that does not")
    target = out or path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock(path), tempfile.TemporaryDirectory(dir=target.parent, prefix=".rescue.") as folder:
            found, damaged = _whole_rows(path, Path(folder))
            if not found:
                raise StoreError(f"no trial in {path} is whole; the file was left as it is")
            fresh = Path(folder) / "store"
            _write(fresh, found)
            kept = None if out is not None else _set_aside(path)
            os.replace(fresh, target)
    except OSError as error:
        raise StoreError(f"cannot write beside {target}: {error.strerror or error}") from None
    return Rescued(len(found), damaged, target, kept)


def _whole_rows(path: Path, folder: Path) -> tuple[list[_Row], int]:
    """Return the rows that are whole, in the order in which they were stored, and how many others there are."""
    copy = folder / "copy"
    shutil.copyfile(path, copy)
    journal = path.with_name(path.name + "-journal")
    if journal.exists():
        shutil.copyfile(journal, folder / "copy-journal")
    # SQLite first: opening the copy takes back what a killed process had half written.
    candidates: list[tuple[Any, ...]] = _read(copy)
    for data in (copy.read_bytes(), path.read_bytes()):
        candidates += [(row + (None,) * 6)[:6] for row in _pages.rows(data, len(_COLUMNS) - 1)]
    found: dict[str, _Row] = {}
    damaged = set()
    for row in candidates:
        key, spec, status, result, stored_at, digest = row
        try:
            whole(key, spec, status, result, digest)
        except DamagedRowError:
            damaged.add(row)
            continue
        # When it was stored is said by nothing else, and no number depends on it.
        found.setdefault(key, (key, spec, status, result, stored_at if isinstance(stored_at, str) else "unknown"))
    # A row is read in several ways; it counts as damaged only if none of them gives it whole.
    lost = {row[0] for row in damaged} - found.keys()
    return sorted(found.values(), key=lambda row: row[4]), len(lost)


def _read(path: Path) -> list[tuple[Any, ...]]:
    """Read rows through SQLite from both ends of the table, each until it fails."""
    found: list[tuple[Any, ...]] = []
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.text_factory = lambda raw: raw.decode(errors="replace")
            columns = {column[1] for column in connection.execute("PRAGMA table_info(trials)")}
            names = ", ".join(name if name in columns else "NULL" for name in _COLUMNS)
            for order in ("ASC", "DESC"):
                try:
                    found.extend(connection.execute(f"SELECT {names} FROM trials NOT INDEXED ORDER BY rowid {order}"))
                except sqlite3.Error:
                    continue
    except sqlite3.Error:
        pass  # not even its header: its pages are read without SQLite
    return found


def _write(path: Path, found: list[_Row]) -> None:
    with Store(path):
        pass  # made as every store is made
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN")
            insert = "INSERT INTO trials (key, spec, status, result, stored_at) VALUES (?, ?, ?, ?, ?)"
            connection.executemany(insert, found)
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(f"the whole trials cannot be written ({error}); the damaged file was left as it is") from None
    with Store(path):
        pass  # checks all rows, and gives them digests


def _set_aside(path: Path) -> Path:
    """Give the damaged file another name beside the first, so that at every moment one of them is there."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        os.link(path, kept)
    except OSError:  # a file system without links
        shutil.copyfile(path, kept)
    journal = path.with_name(path.name + "-journal")
    if journal.exists():
        # Left in place, it would be played back into the new store.
        os.replace(journal, kept.with_name(kept.name + "-journal"))
    return kept


def add_action(actions: Any) -> None:
    """Add ``agileact study rescue``.

    Args:
        actions: The subparsers of ``agileact study``.
    """
    text = "save the trials of a damaged store that are whole"
    action = actions.add_parser("rescue", help=text, description=text[0].upper() + text[1:] + ".")
    action.add_argument("store", type=Path, metavar="STORE", help="the damaged file, such as OUT/store.sqlite")
    action.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="NEW",
        help="write them to this file (default: in place of the damaged one, which is kept beside it)",
    )
    action.add_argument("--json", action="store_true", help="print what was saved as JSON to standard output")
    action.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    path = options.store / "store.sqlite" if options.store.is_dir() else options.store
    done = rescue(path, options.out)
    if options.json:
        print_json(asdict(done))
        return
    lost = f"; {done.damaged} damaged one(s) left out, to be run again" if done.damaged else ""
    kept = f" The damaged file is kept as {done.kept}." if done.kept else ""
    print(f"{done.trials} trial(s) saved in {done.store}{lost}.{kept}")
