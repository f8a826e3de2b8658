"""agileact study rescue: what can be read of a damaged store, in a new one; nothing of the old one is thrown away."""

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
from agileact._common.terminal import print_json
from agileact.study.running import store
from agileact.study.running.store import DamagedRowError, Store, columns, lock, whole
from agileact.study.spec.result import TrialResult

_LEAST_BYTES = 200
"""A row is longer: its spec alone is."""


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
    """Save every trial of a store that SQLite can still read; the study runs the others again, to the same numbers.

    Rows are asked for one by one, so that a bad page or a missing end costs only the rows that lie there.

    Args:
        path: The damaged store.
        out: Where the new store is written, which must not exist yet. None puts it in the place of the damaged one,
            which is kept under another name beside it.

    Raises:
        StoreError: If there is no such file, it is in use, nothing in it can be read, or ``out`` exists.
    """
    if not path.is_file():
        raise StoreError(f"there is no store of trials at {path}")
    if out is not None and out.exists():
        raise StoreError(f"{out} exists already; name a file that does not")
    target = out or path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_free(path)
        with lock(path), tempfile.TemporaryDirectory(dir=target.parent, prefix=".rescue.") as folder:
            found, damaged = _whole_rows(path, Path(folder))
            if not found:
                raise StoreError(
                    f"no trial in {path} can be read; the file was left as it is. Move or delete it, and the study "
                    "runs all of its trials"
                )
            fresh = Path(folder) / "store"
            with Store(fresh) as whole_store:
                whole_store.put(*found)
            kept = None if out is not None else _set_aside(path)
            os.replace(fresh, target)
    except OSError as error:
        raise StoreError(f"cannot write beside {target}: {error.strerror or error}") from None
    return Rescued(len(found), damaged, target, kept)


def _check_free(path: Path) -> None:
    """Raise if another program has the file locked: it may be whole, and is not to be taken away under it."""
    if _journal(path).exists():
        return  # to ask would be to take back what was half written, and the file is kept as it is
    try:
        with closing(sqlite3.connect(path, store.SECONDS_TO_WAIT, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        if store.is_locked(error):
            raise store.in_use(path) from None


def _journal(path: Path) -> Path:
    return path.with_name(path.name + "-journal")


def _whole_rows(path: Path, folder: Path) -> tuple[list[TrialResult], int]:
    """Return the trials that can be read, in the order in which they were stored, and how many rows cannot be."""
    copy = folder / "copy"
    shutil.copyfile(path, copy)
    journal = _journal(path)
    if journal.exists():
        # Opening the copy takes back what a killed process had half written.
        shutil.copyfile(journal, folder / "copy-journal")
    found: dict[str, TrialResult] = {}
    damaged, unread, last = 0, [], 0
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        # With it SQLite reads what is there of a file that was cut short.
        connection.execute("PRAGMA writable_schema = ON")
        try:
            named = columns(connection)
        except sqlite3.Error:
            named = (
                "key, spec, status, result, NULL"  # not even what the file holds can be read: rows say so, one by one
            )
        query = f"SELECT {named} FROM trials NOT INDEXED WHERE rowid = ?"
        for number in range(1, copy.stat().st_size // _LEAST_BYTES + 2):
            try:
                row = connection.execute(query, (number,)).fetchone()
                if row is not None:
                    found.setdefault(row[0], whole(*row))
                    last = number
            except sqlite3.Error:
                unread.append(number)
            except DamagedRowError:
                damaged, last = damaged + 1, number
    # Behind the last row that is there a bad page answers for rows that never were.
    return list(found.values()), damaged + sum(number < last for number in unread)


def _set_aside(path: Path) -> Path:
    """Give the damaged file another name beside the first, so that at every moment one of them is there."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        os.link(path, kept)
    except OSError:  # a file system without links
        shutil.copyfile(path, kept)
    journal = _journal(path)
    if journal.exists():
        # Left in place, it would be played back into the new store.
        os.replace(journal, _journal(kept))
    return kept


def add_action(actions: Any) -> None:
    """Add ``agileact study rescue``."""
    text = "save the undamaged trials of a damaged store"
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
