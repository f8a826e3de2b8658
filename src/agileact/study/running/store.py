"""Where finished trials are kept: one SQLite file, one writer, a trial a row.

A row is committed, and on disk, before the runner goes on; a process that is killed loses only the trials that were
still running. :mod:`agileact.study.running.rescue` saves what can be read of a damaged file.
"""

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

SECONDS_TO_WAIT = 30.0
"""How long another program, such as a viewer of databases, may keep the file locked."""

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    status TEXT NOT NULL,
    result TEXT NOT NULL,
    stored_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    checksum TEXT
)
"""
_NO_ROOM = ("is full", "disk I/O error", "readonly", "unable to open")
"""Parts of what SQLite says when the disk or a permission, not the file, is at fault."""


class DamagedRowError(ValueError):
    """A row is not what was written; the message says how that shows."""


def columns(connection: sqlite3.Connection) -> str:
    """Return what to select of a trial, as :func:`whole` takes it; stores older than 0.2 have no checksum."""
    named = {name for _, name, *_ in connection.execute("PRAGMA table_info(trials)")}
    return "key, spec, status, result, " + ("checksum" if "checksum" in named else "NULL")


def checksum(text: str) -> str:
    """Return what tells a stored text from a changed one, by a digit for instance."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def whole(key: Any, spec: Any, status: Any, result: Any, stored: Any) -> TrialResult:
    """Return the result of a row, or raise a :class:`DamagedRowError` if it is not what was stored of its trial.

    Args:
        key: The identity of the trial.
        spec: Its spec, as JSON.
        status: How it ended.
        result: Its result, as JSON.
        stored: The checksum of ``result`` when it was stored; None if there was none.
    """
    if not all(isinstance(text, str) for text in (key, spec, status, result)):
        raise DamagedRowError("it is not text")
    if hashlib.sha256(spec.encode()).hexdigest()[:16] != key:
        raise DamagedRowError("its key is not that of its spec")
    try:
        parsed = TrialResult.from_json(result)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedRowError(f"its result cannot be read ({type(error).__name__}: {error})") from None
    if parsed.spec.key != key or parsed.status != status:
        raise DamagedRowError("its result is that of another trial")
    if stored is not None and checksum(result) != stored:
        raise DamagedRowError("its result was changed after it was stored, as the checksum shows")
    return parsed


def is_locked(error: sqlite3.Error) -> bool:
    """Return whether SQLite says that another program has the file, rather than that the file is bad."""
    return "locked" in str(error)


def in_use(path: Path) -> StoreError:
    """Return what to tell of a store that another program keeps locked."""
    return StoreError(
        f"{path} is in use by another program, which still had it locked after {SECONDS_TO_WAIT:.0f} s; nothing in it "
        "is lost: close that program and repeat the command"
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
        if read_only:
            if not self.path.is_file():
                raise StoreError(f"there is no store of trials at {self.path}; was the study run with another --out?")
        else:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock = lock(self.path)
            except OSError as error:
                raise StoreError(f"cannot write in {self.path.parent}: {error.strerror or error}") from None
        try:
            # A runner that was killed as it wrote leaves a journal, which the next to look must roll back: SQLite lets
            # nobody do so who opened the file to read alone. Nothing else is written, by query_only.
            uri = f"{self.path.resolve().as_uri()}?mode={'rw' if read_only else 'rwc'}"
            self._connection = sqlite3.connect(uri, SECONDS_TO_WAIT, uri=True, isolation_level=None)
        except sqlite3.Error as error:
            self._unlock()
            raise self._failed(error) from None
        try:
            self._check(read_only)
            self._columns = columns(self._connection)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise self._failed(error) from None
            raise

    def _check(self, read_only: bool) -> None:
        """Raise unless the file is a store that this version reads; make it one if it is new."""
        one = self._connection.execute
        if read_only:
            one("PRAGMA query_only = ON")
        else:
            # A committed trial must survive a crash of the machine, not only of the process.
            one("PRAGMA synchronous = FULL")
        (found,) = one("PRAGMA user_version").fetchone()
        if found not in (0, _SCHEMA_VERSION):
            raise StoreError(
                f"{self.path} was written by another version of agileact (schema {found}, this one reads "
                f"{_SCHEMA_VERSION}); use another --out or the version that wrote it"
            )
        if found == 0 and (read_only or one("SELECT count(*) FROM sqlite_master").fetchone()[0]):
            raise StoreError(f"{self.path} is an SQLite file but not a store of trials; use another --out")
        if read_only:
            return
        (verdict,) = one("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict.replace("\n", " "))
        # All of it or nothing: a process that is killed in between must not leave what is taken for foreign.
        one("BEGIN IMMEDIATE")
        one(_SCHEMA)
        if "NULL" in columns(self._connection):
            one("ALTER TABLE trials ADD COLUMN checksum TEXT")
        one(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        one("COMMIT")

    def _failed(self, error: sqlite3.Error | DamagedRowError, trial: str = "") -> StoreError:
        """Return what to tell of a failure, with what to do about it."""
        if not self.path.exists():
            return StoreError(
                f"{self.path} was deleted or moved away while it was in use; its trials must be run again"
            )
        if isinstance(error, sqlite3.Error) and is_locked(error):
            return in_use(self.path)
        if any(part in str(error) for part in _NO_ROOM):
            return StoreError(
                f"cannot write to {self.path}: {error}; what was stored before is kept, and the same command goes on "
                "from there when that is put right"
            )
        what = f"cannot be read as a store of trials ({error}); if it was one,"
        if trial:
            what = f"is damaged: of trial {trial!r}, {error};"
        return StoreError(
            f"{self.path} {what} 'agileact study rescue {shlex.quote(str(self.path))}' saves the trials that can be "
            "read and keeps the damaged file beside them; the study then runs only the others again"
        )

    def put(self, *results: TrialResult) -> None:
        """Store results, all or none; a StoreError if one is stored already, or the disk refuses the write."""
        texts = [(result.spec.key, result.spec.to_json(), result.status, result.to_json()) for result in results]
        rows = [(*row, checksum(row[-1])) for row in texts]
        try:
            self._connection.execute("BEGIN")
            try:
                insert = "INSERT INTO trials (key, spec, status, result, checksum) VALUES (?, ?, ?, ?, ?)"
                self._connection.executemany(insert, rows)
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
            raise self._failed(error) from None

    def get(self, spec: TrialSpec) -> TrialResult | None:
        """Return the result stored for ``spec``, or None; a StoreError if it cannot be read, or is damaged."""
        key = spec.key
        row = self._one(f"SELECT {self._columns} FROM trials WHERE key = ?", key)
        try:
            return None if row is None else whole(*row)
        except DamagedRowError as damage:
            raise self._failed(damage, key) from None

    def collect(self, specs: Iterable[TrialSpec]) -> list[TrialResult]:
        """Return the stored results of ``specs``, in their order; those not stored are left out."""
        found = (self.get(spec) for spec in specs)
        return [result for result in found if result is not None]

    def specs(self) -> list[TrialSpec]:
        """Return the specs of all trials that are stored, in the order in which they were."""
        try:
            rows = self._connection.execute("SELECT spec FROM trials ORDER BY rowid").fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from None
        try:
            return [TrialSpec.from_json(text) for (text,) in rows]
        except (ValueError, TypeError) as error:
            raise StoreError(f"cannot read {self.path}: {error}") from None

    def __contains__(self, spec: TrialSpec) -> bool:
        return self._one("SELECT 1 FROM trials WHERE key = ?", spec.key) is not None

    def __len__(self) -> int:
        return int(self._one("SELECT count(*) FROM trials")[0])

    def _one(self, query: str, *values: str) -> Any:
        try:
            return self._connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Close the file and let other processes open it."""
        self._connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock(store: Path) -> IO[str]:
    """Take the lock file of a store; the system lets go of it when the process ends, however it ends."""
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
