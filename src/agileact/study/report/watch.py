"""The report as a page of this machine that updates itself while a study runs."""

import contextlib
import json
import secrets
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from agileact._common.errors import AgileactError, ArgumentError
from agileact.study.report.document import Document, report_document, waiting_document
from agileact.study.report.page import page
from agileact.study.results.source import Source
from agileact.study.spec.record import FILE
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import TrialSpec

HOST = "127.0.0.1"
_PATIENCE = 5.0
"""Between two readings so many times as long as a reading takes passes at least: the trials need the processor."""


_Mark = tuple[tuple[int, int, int] | None, ...]
"""Of the store and of the study's record: which file it is, when it was written and how long it is, if it is there."""


class News:
    """What a source says now, read anew only when its files have changed. Safe to ask from many threads.

    Neither the study nor its store need be there yet.
    """

    def __init__(self, source: Source, *, matters: float | None = None) -> None:
        self._source = source
        self._matters = matters
        self._lock = threading.Lock()
        self._found: dict[TrialSpec, TrialResult] = {}
        self._mark: _Mark | None = None
        self._node: int | None = None
        self._not_before = 0.0
        self._start = secrets.token_hex(4)
        self._count = 0
        self._trouble = ""
        self._document: Document = waiting_document(source.folder.name, "Waiting for the study to begin.")

    def state(self, version: str = "") -> dict[str, Any]:
        """Return the current version, the document unless ``version`` is that one, and what is wrong, if anything."""
        with self._lock:
            mark = self._files()
            if (mark != self._mark or self._trouble) and time.monotonic() >= self._not_before:
                self._read(mark)
            now = f"{self._start}-{self._count}"
            document = None if version == now else self._document
            return {"version": now, "document": document, "trouble": self._trouble}

    def _read(self, mark: _Mark) -> None:
        begin = time.monotonic()
        node = None if mark[0] is None else mark[0][0]
        if node != self._node:
            # Another file under the store's name: what was read of the one before is not its own.
            self._found.clear()
        self._node = node
        try:
            document = report_document(self._source.read(matters=self._matters, found=self._found))
        except AgileactError as error:
            # The study may not have begun, or the runner may be about to write: what was shown stays.
            trouble = f"Waiting: {error}"
            if trouble != self._trouble and not self._count:
                self._document = waiting_document(self._source.folder.name, f"Waiting for the study to begin: {error}.")
                self._start = secrets.token_hex(4)
            self._trouble = trouble
        else:
            self._trouble = ""
            self._document = document
            self._count += 1
        self._mark = mark
        self._not_before = begin + (1 + _PATIENCE) * (time.monotonic() - begin)

    def _files(self) -> _Mark:
        """Return what changes when the store or the study's record is written."""

        def mark(path: Path) -> tuple[int, int, int] | None:
            with contextlib.suppress(OSError):
                status = path.stat()
                return status.st_ino, status.st_mtime_ns, status.st_size
            return None

        return mark(self._source.store), mark(self._source.folder / FILE)


class Server(ThreadingHTTPServer):
    """Serves the page of one source to this machine alone. A context manager; close it to give the port back.

    An ArgumentError says that the port (0 for any free one) cannot be had.
    """

    daemon_threads = True
    # On Windows this option would let two servers share a port.
    allow_reuse_address = sys.platform != "win32"

    def __init__(self, source: Source, port: int, *, matters: float | None = None) -> None:
        self.news = News(source, matters=matters)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ArgumentError(
                f"port {port} of {HOST} is not available ({reason}); choose another with --port, or 0 for any free one"
            ) from None

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in a line what went wrong with a request; a browser that has gone away is no error."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            print(f"agileact: a request failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


_HEADERS = {
    **{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"},
    "Cross-Origin-Resource-Policy": "same-origin",
}


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        port = self.server.server_port
        # A page of another name that leads to this address (DNS rebinding) must not read the study, nor another page.
        host = self.headers.get("Host")
        origin = self.headers.get("Origin", f"http://{host}")
        if host not in (f"{HOST}:{port}", f"localhost:{port}") or origin != f"http://{host}":
            self._send(HTTPStatus.FORBIDDEN, "text/plain", "This page is for this machine alone.\n", body)
            return
        at = urlsplit(self.path)
        if at.path == "/":
            self._send(HTTPStatus.OK, "text/html", page(self.server.news.state()["document"], live=True), body)
        elif at.path == "/state":
            version = parse_qs(at.query).get("version", [""])[0]
            text = json.dumps(self.server.news.state(version), ensure_ascii=True, allow_nan=False)
            self._send(HTTPStatus.OK, "application/json", text, body)
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "There is nothing here; the page is at /.\n", body)

    def _send(self, status: HTTPStatus, kind: str, text: str, body: bool) -> None:
        data = text.encode()
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(data)), **_HEADERS}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def version_string(self) -> str:
        return "agileact"

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news: the terminal stays free."""
