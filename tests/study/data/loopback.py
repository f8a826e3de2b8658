"""A web server on this machine that fails as it is told to, and counts what it sent."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath


class Server(ThreadingHTTPServer):
    """Serves ``files`` by name. Each request takes the next word of ``script``; then all goes well.

    Words: a number N (drop the connection after N bytes of the body), "500" and other statuses, "no-length" (announce
    none), "cut" (the same, and only half of it), "stall" (send half, then nothing), "endless" (never stop).
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.script: list[int | str] = []
        self.requests: list[str] = []  # paths
        self.sent = 0
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is nothing to report."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(self.path)
        word = server.script.pop(0) if server.script else ""
        body = server.files.get(PurePosixPath(self.path).name)
        if body is None or (isinstance(word, str) and word.isdigit()):
            return self.send_error(404 if body is None else int(word))
        self.send_response(200)
        if word == "endless":
            self.end_headers()
            while not server.over.is_set():
                self.send(bytes(4096))
            return None
        if word not in ("no-length", "cut"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if word == "stall":
            self.send(body[: len(body) // 2])
            server.over.wait(20)
        elif isinstance(word, int):
            self.send(body[:word])
        elif word == "cut":
            self.send(body[: len(body) // 2])
        else:
            self.send(body)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        return None

    def send(self, body: bytes) -> None:
        self.server.sent += len(body)
        self.wfile.write(body)
        self.wfile.flush()


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    with Server(files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
