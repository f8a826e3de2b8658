"""Where finished trials are kept: one SQLite file, one writer, a trial a row.

A row is committed, and on disk, before the runner goes on; a process that is killed loses only the
trials that were still running.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO

from agileact._errors import StoreError
from agileact.study.result import TrialResult
from agileact.study.spec import TrialSpec

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    status TEXT NOT NULL,
    result TEXT NOT NULL,
    stored_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
)
"""


class Store:
    """Finished trials in one SQLite file, opened by one process at a time.

    Use it as a context manager. Trials are found by the identity of their spec, so that one store may hold
    the trials of many studies without mixing them.

    Args:
        path: The file; it and its folder are made if missing.
        read_only: Only look, also while another process writes; the file must exist.

    Raises:
        StoreError: If the file is not a store, is damaged, was written by a newer version, or is
            open in another process.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.sqlite") as store:
        ...     len(store)
        0
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._lock: IO[str] | None = None
        if read_only:
            self._connection = self._open_to_read()
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.path.with_name(self.path.name + ".lock"))
        except OSError as error:
            raise StoreError(f"cannot write in {self.path.parent}: {error.strerror or error}") from None
        try:
            self._connection = self._open()
        except BaseException:
            self._lock.close()
            raise

    def _open_to_read(self) -> sqlite3.Connection:
        if not self.path.is_file():
            raise StoreError(f"there is no store of trials at {self.path}; was the study run with another --out?")
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found != _SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"schema {found}, this version reads {_SCHEMA_VERSION}")
            return connection
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise StoreError(f"{self.path} cannot be read as a store of trials ({error})") from None

    def _open(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(self.path, isolation_level=None)
            # A committed trial must survive a crash of the machine, not only of the process.
            connection.execute("PRAGMA synchronous = FULL")
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found not in (0, _SCHEMA_VERSION):
                raise StoreError(
                    f"{self.path} was written by another version of agileact (schema {found}, this one reads "
                    f"{_SCHEMA_VERSION}); use another --out or the version that wrote it"
                )
            if found == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise StoreError(f"{self.path} is an SQLite file but not a store of trials; use another --out")
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            return connection
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                raise StoreError(
                    f"{self.path} cannot be read as a store of trials ({error}); move it away to start anew"
                ) from None
            raise

    def put(self, result: TrialResult) -> None:
        """Store ``result``; a second result for the same spec is an error.

        Raises:
            StoreError: If the trial is stored already, or the disk refuses the write.
        """
        row = (result.spec.key, result.spec.to_json(), result.status, result.to_json())
        try:
            self._connection.execute("INSERT INTO trials (key, spec, status, result) VALUES (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise StoreError(f"trial {result.spec.key} is in {self.path} already") from None
        except sqlite3.Error as error:
            raise StoreError(f"cannot write to {self.path}: {error}; what was stored before is kept") from None

    def get(self, spec: TrialSpec) -> TrialResult | None:
        """Return the result stored for ``spec``, or None."""
        try:
            row = self._connection.execute("SELECT result FROM trials WHERE key = ?", (spec.key,)).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.path}: {error}") from None
        return None if row is None else TrialResult.from_json(row[0])

    def collect(self, specs: Iterable[TrialSpec]) -> list[TrialResult]:
        """Return the stored results of ``specs``, in their order; those not stored are left out."""
        found = (self.get(spec) for spec in specs)
        return [result for result in found if result is not None]

    def specs(self) -> list[TrialSpec]:
        """Return the specs of all trials that are stored, in the order in which they were.

        Raises:
            StoreError: If the file cannot be read, or a row is damaged.
        """
        try:
            rows = self._connection.execute("SELECT spec FROM trials ORDER BY rowid").fetchall()
            return [TrialSpec.from_json(text) for (text,) in rows]
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"cannot read {self.path}: {error}") from None

    def __contains__(self, spec: TrialSpec) -> bool:
        query = "SELECT 1 FROM trials WHERE key = ?"
        return self._connection.execute(query, (spec.key,)).fetchone() is not None

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM trials").fetchone()[0])

    def close(self) -> None:
        """Close the file and let other processes open it."""
        self._connection.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lock(path: Path) -> IO[str]:
    """Take the lock file of a store; the system lets go of it when the process ends, however it ends."""
    handle = path.open("a+")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        owner = handle.read().strip()
        handle.close()
        who = f"process {owner}" if owner else "another process"
        raise StoreError(f"{path.parent} is in use by {who}; wait until it ends, or give another --out") from None
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle
