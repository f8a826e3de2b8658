"""Fetch one file: resumed after a break, checked before it appears, by one process at a time."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from agileact._common.errors import ArgumentError, DataError, MissingExtraError
from agileact._common.optional import require
from agileact.study.data.idx import content_sha256

Progress = Callable[[str, int, "int | None"], None]
"""Called with the file's name, the bytes that are there and, where known, the bytes in all."""

_CHUNK = 2**16
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


def download(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str,
    progress: Progress | None = None,
    attempts: int = 4,
    timeout: float = 30.0,
    backoff: float = 0.5,
    max_bytes: int = 2**30,
    lock_timeout: float = 600.0,
) -> Path:
    """Download a file from the first of ``urls`` that gives the right content; return ``target``.

    The bytes go to ``<target>.part`` and take the target's name only after the checksum is right. A download
    that was cut off goes on from its ``.part`` file, in this call and in the next. Two processes that want
    the same target take turns, and the second finds the first one's file.

    Args:
        urls: Where the same content is offered, http or https, best first.
        target: The file to make; its directory is created.
        sha256: SHA-256 of the content, after decompression if the file is gzip-compressed.
        progress: Called as bytes arrive; None draws a bar on a terminal and prints plain lines elsewhere.
        attempts: How often each URL is tried while the failure is one that may pass.
        timeout: Seconds without a byte, or without a connection, after which an attempt has failed.
        backoff: Seconds before the second attempt at a URL, doubled before each further one.
        max_bytes: A longer file is refused.
        lock_timeout: Seconds to wait for another process that downloads the same target.

    Raises:
        DataError: If no URL gave the right content; the message says what each of them gave.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     download(["ftp://127.0.0.1/a"], pathlib.Path(folder, "a"), sha256="0" * 64)
        Traceback (most recent call last):
        ...
        agileact.ArgumentError: a URL must start with https:// or http://, not 'ftp://127.0.0.1/a'
    """
    for url in urls:
        if not url.lower().startswith(("https://", "http://")):
            raise ArgumentError(f"a URL must start with https:// or http://, not {url!r}")
    with contextlib.ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            locked = stack.enter_context(_locked(target.with_name(f".{target.name}.lock"), lock_timeout))
        except OSError as error:
            raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error
        if target.exists():  # another process was faster
            return target
        # Where the file system knows no locks, processes share no .part file, at the price of no resuming.
        part = target.with_name(f"{target.name}.part" if locked else f"{target.name}.{os.getpid()}.part")
        report = stack.enter_context(console_progress()) if progress is None else progress
        failures: list[str] = []
        for url in urls:
            fetch = _Fetch(url, part, target.name, report, timeout, max_bytes)
            failure = _try_url(fetch, sha256, attempts, backoff)
            if failure is None:
                try:
                    os.replace(part, target)
                except OSError as error:
                    raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error
                return target
            failures.append(f"{url}: {failure}")
    tried = "; ".join(failures) or "no URL was given"
    raise DataError(
        f"{target.name} could not be downloaded ({tried}). Run the same command again to go on where this "
        f"one stopped, or put the file at {target} yourself"
    )


def _try_url(fetch: _Fetch, sha256: str, attempts: int, backoff: float) -> str | None:
    """Try one URL; return None if the ``.part`` file has the right content, else the reason why not."""
    failure = "not tried"
    for attempt in range(attempts):
        if attempt:
            time.sleep(backoff * 2 ** (attempt - 1))
        try:
            certain = fetch.run()
        except _HopelessError as error:
            fetch.discard()
            return str(error)
        except urllib.error.HTTPError as error:
            error.close()
            failure = f"HTTP status {error.code} {error.reason}"
            if error.code not in _TRY_AGAIN:
                return failure
            continue
        except urllib.error.URLError as error:
            failure = str(error.reason)
            if isinstance(error.reason, (socket.gaierror, TimeoutError)):
                return failure  # no such host, or no answer from it: the next mirror is the better try
            continue
        except (OSError, http.client.HTTPException) as error:
            failure = str(error) or type(error).__name__
            continue
        wrong = _wrong_content(fetch.part, sha256, fetch.max_bytes)
        if wrong is None:
            return None
        fetch.discard()
        failure = wrong
        if certain:  # the server's own content is wrong: asking again would give the same
            return failure
    return failure


def _wrong_content(part: Path, sha256: str, max_bytes: int) -> str | None:
    try:
        # Text in place of data, such as a page that asks for a login, simply has another checksum.
        found = content_sha256(part, max_bytes=16 * max_bytes)
    except DataError as error:
        return f"wrong content: {error}"
    return None if found == sha256 else f"wrong content: SHA-256 {found}, expected {sha256}"


class _HopelessError(Exception):
    """A failure that trying the same URL again would not mend."""


class _Fetch:
    """One URL and the ``.part`` file that its bytes go to."""

    def __init__(self, url: str, part: Path, name: str, progress: Progress, timeout: float, max_bytes: int) -> None:
        self.url, self.part, self.name = url, part, name
        self.progress, self.timeout, self.max_bytes = progress, timeout, max_bytes

    def run(self) -> bool:
        """Bring the ``.part`` file to its full length.

        Returns:
            Whether it certainly is what the server has. A resumed file may be sewn together from two
            versions, and where no length was announced a broken connection looks like the end.

        Raises:
            OSError: If the connection failed or broke; trying again may help.
            _HopelessError: If the content is too long.
            DataError: If the ``.part`` file cannot be written.
        """
        offset = self._size()
        try:
            response = self._open(offset)
        except urllib.error.HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not offset:
                raise
            error.close()
            if _total(error.headers.get("Content-Range")) == offset:
                return False  # all bytes were there: the last run ended before it could check them
            self.discard()
            offset = 0
            response = self._open(0)
        with response:
            resumed = offset > 0 and response.status == http.client.PARTIAL_CONTENT
            content_range = response.headers.get("Content-Range")
            if resumed and _start(content_range) != offset:
                self.discard()
                raise ConnectionError(f"the server sent {content_range!r}, byte {offset} and on was asked for")
            if not resumed:
                offset = 0  # a server that knows no ranges sends everything
            length = response.headers.get("Content-Length")
            total = offset + int(length) if length is not None and length.isdigit() else None
            if total is not None and total > self.max_bytes:
                raise _HopelessError(f"{total:,} bytes are offered, more than the {self.max_bytes:,} that are taken")
            self._save(response, offset, total)
        return total is not None and not resumed

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)

    def _size(self) -> int:
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise DataError(f"{self.part}: cannot be read: {error.strerror or error}") from error

    def _open(self, offset: int) -> http.client.HTTPResponse:
        # "identity": a server that compresses on the fly would make offsets mean something else.
        headers = {"Accept-Encoding": "identity", "User-Agent": "agileact"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        request = urllib.request.Request(self.url, headers=headers)
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=self.timeout)
        return response

    def _save(self, response: http.client.HTTPResponse, done: int, total: int | None) -> None:
        with contextlib.ExitStack() as stack:
            with self._writing():
                file = stack.enter_context(self.part.open("r+b" if done else "wb"))
                file.seek(done)
            self.progress(self.name, done, total)
            # read1 gives what has come: read would wait for a whole chunk and lose its part at a time-out.
            while chunk := response.read1(_CHUNK):
                done += len(chunk)
                if done > self.max_bytes:
                    raise _HopelessError(f"more than the {self.max_bytes:,} bytes that are taken")
                with self._writing():
                    file.write(chunk)
                self.progress(self.name, done, total)
            with self._writing():
                file.flush()
                os.fsync(file.fileno())
        # http.client does not complain about a connection that ends too early when it is read in pieces.
        if total is not None and done < total:
            raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A full disk is no failure of the connection: do not try again."""
        try:
            yield
        except OSError as error:
            raise DataError(f"{self.part}: cannot be written: {error.strerror or error}") from error


def _start(content_range: str | None) -> int | None:
    match = re.match(r"bytes (\d+)-", content_range or "")
    return int(match.group(1)) if match else None


def _total(content_range: str | None) -> int | None:
    match = re.fullmatch(r"bytes \*/(\d+)", content_range or "")
    return int(match.group(1)) if match else None


@contextlib.contextmanager
def _locked(path: Path, timeout: float) -> Iterator[bool]:
    """Hold a lock that the system frees when the process dies; yield False where there are no locks.

    The empty lock file stays: removing it would let two processes hold locks on two files of one name.
    """
    with path.open("ab") as file:
        give_up = time.monotonic() + timeout
        while not (locked := _try_lock(file)) and locked is not None:
            if time.monotonic() > give_up:
                raise DataError(f"{path}: another process has held this lock for {timeout:g} s; end it, or try later")
            time.sleep(0.05)
        yield locked is True


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool | None:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool | None:
        """Lock ``file``: True if that worked, False if another process has it, None if there are no locks."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True


@contextlib.contextmanager
def console_progress() -> Iterator[Progress]:
    """Show downloads on stderr: bars on a terminal (if rich is installed), else a line at each quarter.

    Example:
        >>> with console_progress() as progress:
        ...     progress("digits.gz", 0, 1000)
    """
    rich = None
    if sys.stderr.isatty():
        with contextlib.suppress(MissingExtraError):
            rich = require("rich.progress", "study")
    if rich is None:
        yield _Lines()
        return
    columns = (*rich.Progress.get_default_columns(), rich.DownloadColumn())
    with rich.Progress(*columns, console=require("rich.console", "study").Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield show


class _Lines:
    """Prints a line when a download starts and at each quarter of it."""

    def __init__(self) -> None:
        self._quarters: dict[str, int] = {}

    def __call__(self, name: str, done: int, total: int | None) -> None:
        quarter = 4 * done // total if total else 0
        if self._quarters.get(name, -1) < quarter:
            self._quarters[name] = quarter
            of = "" if total is None else f" of {total:,}"
            print(f"downloading {name}: {done:,}{of} bytes", file=sys.stderr, flush=True)


def cache_dir() -> Path:
    """Return the folder for downloads: $AGILEACT_CACHE, else the platform's folder for caches.

    That is $XDG_CACHE_HOME/agileact where the variable is set, else ~/.cache/agileact, on Windows
    %LOCALAPPDATA%/agileact/Cache and on macOS ~/Library/Caches/agileact.

    Example:
        >>> cache_dir().is_absolute()
        True
    """
    if chosen := os.environ.get("AGILEACT_CACHE"):
        return Path(chosen).expanduser().absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base).expanduser().absolute() / "agileact"
    try:
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return (Path(local) if local else Path.home() / "AppData" / "Local") / "agileact" / "Cache"
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "agileact"
    except RuntimeError as error:  # no home folder
        raise DataError(f"no folder for downloads ({error}); set AGILEACT_CACHE to one") from error
