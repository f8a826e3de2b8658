"""Where finished trials are kept: one SQLite file, one writer, a trial a row.

A row is committed, and on disk, before the runner goes on; a process that is killed loses only the
trials that were still running. Each row carries a digest of its text, so that damage is found and never read as
numbers; :mod:`agileact.study.running.rescue` saves the rows that are whole.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from agileact._common.errors import StoreError
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import TrialSpec

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    status TEXT NOT NULL,
    result TEXT NOT NULL,
    stored_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    digest TEXT
)
"""
# Stores of before have no digests: the column is added when such a store is opened to be written.
_LATER_COLUMN = "ALTER TABLE trials ADD COLUMN digest TEXT"


_NO_ROOM = ("is full", "disk I/O error", "readonly", "unable to open")
"""Parts of what SQLite says when the disk or a permission, not the file, is at fault."""


class DamagedRowError(ValueError):
    """A row is not what was written; the message says how that shows."""


def digest(key: str, spec: str, status: str, result: str) -> str:
    """Return what a row's texts are checked by: 32 hex digits of their SHA-256."""
    return hashlib.sha256("\0".join((key, spec, status, result)).encode()).hexdigest()[:32]


def whole(key: Any, spec: Any, status: Any, result: Any, found: Any) -> TrialResult:
    """Return the result of a row that is whole in every respect.

    Args:
        key: The row's key.
        spec: Its spec as JSON.
        status: Its status.
        result: Its result as JSON.
        found: Its digest; None in a row that an older version wrote.

    Raises:
        DamagedRowError: If it is not.
    """
    _check_texts(key, spec, status, result, found)
    try:
        parsed = TrialResult.from_json(result)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedRowError(f"its result cannot be read ({type(error).__name__}: {error})") from None
    if parsed.spec.key != key or parsed.status != status:
        raise DamagedRowError("its result is that of another trial")
    return parsed


def _check_texts(key: Any, spec: Any, status: Any, result: Any, found: Any) -> None:
    if not all(isinstance(text, str) for text in (key, spec, status, result)):
        raise DamagedRowError("it holds something else than text")
    if hashlib.sha256(spec.encode()).hexdigest()[:16] != key:
        raise DamagedRowError("its key is not that of its spec")
    if found is not None and found != digest(key, spec, status, result):
        raise DamagedRowError("its text is not what was written")


def advice(path: Path) -> str:
    """Return what to do about a damaged store, for the end of an error."""
    return (
        f"'agileact study rescue {shlex.quote(str(path))}' saves the trials that are whole and keeps the damaged file "
        "beside them; the study then runs only the others again"
    )


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
        self._digest = "digest"
        if read_only:
            self._connection = self._open_to_read()
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.path)
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
            # A runner that was killed as it wrote leaves a journal, which the next to look must roll back: SQLite lets
            # nobody do so who opened the file to read alone. Nothing else is written, by query_only.
            connection = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)
            connection.execute("PRAGMA query_only = ON")
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found != _SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"schema {found}, this version reads {_SCHEMA_VERSION}")
            self._digest = "digest" if _has_digests(connection) else "NULL"
            return connection
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise StoreError(
                f"{self.path} cannot be read as a store of trials ({error}); if it was one, {advice(self.path)}"
            ) from None

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
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict.replace("\n", " "))
            # All of it or nothing: a process that is killed in between must not leave what is taken for foreign.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SCHEMA)
            if not _has_digests(connection):
                connection.execute(_LATER_COLUMN)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            self._check_rows(connection)
            connection.execute("COMMIT")
            return connection
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                full = any(part in str(error) for part in _NO_ROOM)
                raise StoreError(
                    f"cannot write to {self.path}: {error}; what is stored is kept"
                    if full
                    else f"{self.path} cannot be read as a store of trials ({error}); if it was one, "
                    f"{advice(self.path)}"
                ) from None
            raise

    def _check_rows(self, connection: sqlite3.Connection) -> None:
        """Check every row against its digest, and give one to those that have none."""
        fresh = []
        for number, *row in connection.execute("SELECT rowid, key, spec, status, result, digest FROM trials"):
            try:
                if row[-1] is None:
                    whole(*row)
                    fresh.append((digest(*row[:-1]), number))
                else:
                    _check_texts(*row)
            except DamagedRowError as damage:
                raise StoreError(
                    f"{self.path} is damaged: of trial {row[0]!r}, {damage}; {advice(self.path)}"
                ) from None
        connection.executemany("UPDATE trials SET digest = ? WHERE rowid = ?", fresh)

    def put(self, *results: TrialResult) -> None:
        """Store results, all of them or none; a second result for the same spec is an error.

        Raises:
            StoreError: If a trial is stored already, or the disk refuses the write.
        """
        rows = [(result.spec.key, result.spec.to_json(), result.status, result.to_json()) for result in results]
        insert = "INSERT INTO trials (key, spec, status, result, digest) VALUES (?, ?, ?, ?, ?)"
        try:
            self._connection.execute("BEGIN")
            try:
                self._connection.executemany(insert, [(*row, digest(*row)) for row in rows])
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.IntegrityError:
            taken = next((result.spec.key for result in results if result.spec in self), rows[0][0])
            raise StoreError(f"trial {taken} is in {self.path} already") from None
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot write to {self.path}: {error}; what was stored before is kept, and the same command goes on "
                "from there when there is room"
            ) from None

    def get(self, spec: TrialSpec) -> TrialResult | None:
        """Return the result stored for ``spec``, or None.

        Raises:
            StoreError: If the file cannot be read, or the trial's row is damaged.
        """
        key = spec.key
        row = self._one(f"SELECT key, spec, status, result, {self._digest} FROM trials WHERE key = ?", key)
        if row is None:
            return None
        try:
            return whole(*row)
        except DamagedRowError as damage:
            raise StoreError(f"{self.path} is damaged: of trial {key!r}, {damage}; {advice(self.path)}") from None

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
        return self._one("SELECT 1 FROM trials WHERE key = ?", spec.key) is not None

    def __len__(self) -> int:
        return int(self._one("SELECT count(*) FROM trials")[0])

    def _one(self, query: str, *values: str) -> Any:
        try:
            return self._connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.path} ({error}); {advice(self.path)}") from None

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


def _has_digests(connection: sqlite3.Connection) -> bool:
    return any(column[1] == "digest" for column in connection.execute("PRAGMA table_info(trials)"))


def lock(store: Path) -> IO[str]:
    """Take the lock file of a store; the system lets go of it when the process ends, however it ends.

    Raises:
        StoreError: If another process has it.
    """
    path = store.with_name(store.name + ".lock")
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
