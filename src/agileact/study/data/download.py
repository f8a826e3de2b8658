"""Fetch one file by pooch: from the first mirror whose content has the right checksum, whole or not at all."""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from agileact._common.errors import ArgumentError, DataError
from agileact._common.optional import require
from agileact.study.data.idx import content_sha256

Progress = Callable[[str, int, "int | None"], None]
"""Called with the file's name, the bytes that are there and, where known, the bytes in all."""

BACKOFF = 0.5
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
    backoff: float | None = None,
    max_bytes: int = 2**30,
) -> Path:
    """Download a file from the first of ``urls`` (http or https) that gives the right content; return ``target``.

    pooch writes to a temporary file, which takes the target's name only after the checksum is right: no reader sees a
    part of it, and two processes that want the same target do not disturb each other. The SHA-256 is of the content,
    decompressed: the same content can be compressed in many ways, so pooch's own check, of the file, does not do.
    Each URL has ``attempts``, with ``backoff`` seconds before the second, doubled before each further one. A DataError
    says what each URL gave.
    """
    for url in urls:
        if not url.lower().startswith(("https://", "http://")):
            raise ArgumentError(f"a URL must start with https:// or http://, not {url!r}")
    if target.exists():
        return target
    pooch, requests = require("pooch", "study"), require("requests", "study")
    pooch.get_logger().setLevel("WARNING")  # its notes would stand between our progress
    failures = []
    certain = False  # that what came is the server's own content, which stays as it is

    def fetch(url: str, path: str, _: Any) -> None:
        nonlocal certain
        with requests.get(url, stream=True, timeout=timeout) as answer, Path(path).open("wb") as file:
            answer.raise_for_status()
            total, done = int(answer.headers.get("content-length", 0)), 0
            certain = total > 0
            report(target.name, 0, total or None)
            for chunk in answer.iter_content(_CHUNK):
                done += len(chunk)
                if (most := max(done, total)) > max_bytes:
                    certain = True
                    raise DataError(f"{most:,} bytes are offered, more than the limit of {max_bytes:,}")
                file.write(chunk)
                report(target.name, min(done, total) if total else done, total or None)
        try:
            # Text in place of data, such as a page that asks for a login, simply has another checksum.
            found = content_sha256(path, max_bytes=16 * max_bytes)
        except DataError as error:
            raise DataError(f"wrong content: {str(error).removeprefix(f'{path}: ')}") from None
        if found != sha256:
            raise DataError(f"wrong content: SHA-256 {found}, expected {sha256}")
        Path(path).chmod(0o644)  # temporary files are for the owner alone; a cache can be shared

    with console_progress() if progress is None else contextlib.nullcontext(progress) as report:
        for url in urls:
            failure = "not tried"
            for attempt in range(attempts):
                time.sleep((BACKOFF if backoff is None else backoff) * 2 ** (attempt - 1) if attempt else 0)
                certain = False
                try:
                    pooch.retrieve(url, None, target.name, target.parent, downloader=fetch)
                    return target
                except requests.HTTPError as error:
                    failure = f"HTTP status {error.response.status_code} {error.response.reason}"
                    again = error.response.status_code in _TRY_AGAIN
                except requests.RequestException as error:
                    root: BaseException = error  # what the library's errors were made from says it in few words
                    while root.__context__ is not None:
                        root = root.__context__
                    failure = str(root) or type(root).__name__
                    # No such host, or no answer from it: the next mirror is the better try.
                    again = not isinstance(root, socket.gaierror) and not isinstance(error, requests.ConnectTimeout)
                except DataError as error:
                    # The server's own content is wrong, and stays so; without a length, a broken connection looks like
                    # the end.
                    failure, again = str(error), not certain
                except OSError as error:
                    # A full disk is no failure of the connection.
                    raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error
                if not again:
                    break
            failures.append(f"{url}: {failure}")
    tried = "; ".join(failures) or "no URL was given"
    raise DataError(
        f"{target.name} could not be downloaded ({tried}). Run the same command again, or put the file at {target} "
        "yourself"
    )


@contextlib.contextmanager
def console_progress() -> Iterator[Progress]:
    """Show downloads on stderr: a bar for each on a terminal, else a line at each quarter."""
    quarters: dict[str, int] = {}

    def lines(name: str, done: int, total: int | None) -> None:
        quarter = 4 * done // total if total else 0
        if quarters.get(name, -1) < quarter:
            quarters[name] = quarter
            of = "" if total is None else f" of {total:,}"
            print(f"downloading {name}: {done:,}{of} bytes", file=sys.stderr, flush=True)

    if not sys.stderr.isatty():
        yield lines
        return
    rich = require("rich.progress", "study")
    columns = (*rich.Progress.get_default_columns(), rich.DownloadColumn())
    tasks: dict[str, Any] = {}
    with rich.Progress(*columns, console=require("rich.console", "study").Console(stderr=True)) as bars:

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield show


def cache_dir() -> Path:
    """Return the folder for downloads: $AGILEACT_CACHE, else the platform's folder for caches."""
    if chosen := os.environ.get("AGILEACT_CACHE"):
        return Path(chosen).expanduser().absolute()
    found: Path = require("platformdirs", "study").user_cache_path("agileact", appauthor=False)
    return found
