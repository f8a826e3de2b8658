"""Only this machine's own browser, on our own page, is answered; and the page may load nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from flask import Flask, Response, abort, make_response, request

HOSTS = ("127.0.0.1", "localhost")
"""The names under which the page may be asked for; another one is a foreign name that was bent to this machine."""


def local_host(host: str) -> bool:
    """Return whether a Host header names this machine."""
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname in HOSTS and parts.username is None and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def own_origin(origin: str | None, host: str) -> bool:
    """Return whether a request's Origin is the page itself; a request without one comes from no other page."""
    return origin is None or origin == f"http://{host}"


def guard(server: Flask, script_hashes: Sequence[str]) -> None:
    """Refuse what another site could send, and forbid the page to load anything from elsewhere."""
    policy = "; ".join(
        (
            "default-src 'self'",
            "script-src 'self' " + " ".join(f"'{one.strip(chr(39))}'" for one in script_hashes),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "frame-ancestors 'none'",
            "form-action 'self'",
            "base-uri 'none'",
        )
    )

    @server.before_request
    def refuse() -> None:
        host = request.headers.get("Host", "")
        if not local_host(host):
            abort(_refused(f"this page is for 127.0.0.1 and localhost alone, not for {host[:80]!r}"))
        if not own_origin(request.headers.get("Origin"), host):
            abort(_refused("another page may not use the lab"))

    @server.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response


def _refused(why: str) -> Response:
    response: Response = make_response(f"Refused: {why}.\n", 403)
    response.mimetype = "text/plain"
    return response
