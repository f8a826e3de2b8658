"""The page: its frame, its five tabs, and who may ask for it."""

import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from flask import Flask, Response, abort, make_response, request

from agileact._common.version import __version__
from agileact.lab.sessions import Sessions
from agileact.lab.tabs import activation, live, network, step, xor
from agileact.lab.widgets import aria

_ASSETS = Path(__file__).parent / "assets"
_MOST_BYTES = 96 * 2**20
"""The largest request: an upload of 64 MiB, which base64 makes a third longer."""

_TABS = {
    "activation": ("Activation", activation.layout),
    "xor": ("XOR", xor.layout),
    "step": ("One step", step.layout),
    "live": ("Depth", live.layout),
    "network": ("Network", network.layout),
}
_SUBTITLE = "Activation functions with a size a and a position b: a·f(x − b)"
HOSTS = ("127.0.0.1", "localhost")
"""The names under which the page may be asked for; another one is a foreign name that was bent to this machine."""
_PARTS = "Parts of the lab"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>{%metas%}<title>{%title%}</title>{%favicon%}{%css%}</head>
<body>{%app_entry%}<div hidden>{%config%}{%scripts%}{%renderer%}</div></body>
</html>
"""
"""What Dash writes around the page, with a language and without a second footer, for screen readers."""


def build_app(opened: Path | None = None) -> Dash:
    """Return the lab as a Dash application, not yet served."""
    app = Dash(
        __name__,
        title="Agileact lab",
        update_title="",
        assets_folder=str(_ASSETS),
        serve_locally=True,
        # The page is for a person; there is nothing for a program to call.
        enable_mcp=False,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
        on_error=_told,
        index_string=_PAGE,
    )
    app.layout = lambda: _page(opened)
    app.clientside_callback(
        ClientsideFunction("lab", "tabs"),
        [Output(f"panel-{name}", "hidden") for name in _TABS],
        [Output(f"tab-{name}", part) for part in ("className", "aria-selected") for name in _TABS],
        [Input(f"tab-{name}", "n_clicks") for name in _TABS],
        State("first-tab", "data"),
    )
    table: Sessions[Any] = Sessions()
    activation.register(app, table.alone)
    for tab in (xor, step, live):
        tab.register(app)
    network.register(app, opened)
    server = app.server
    server.config["MAX_CONTENT_LENGTH"] = _MOST_BYTES
    guard(server, app.csp_hashes())
    return app


def _page(opened: Path | None) -> html.Div:
    """Return the page for one more visitor: with a key of its own, so that two tabs do not disturb each other."""
    # Buttons of our own, because those of dcc.Tabs are out of the keyboard's and a screen reader's reach.
    buttons = [
        html.Button(
            label, id=f"tab-{name}", n_clicks=0, type="button", role="tab", className="tab",
            **aria(aria_controls=f"panel-{name}", aria_selected="false"),
        )
        for name, (label, _) in _TABS.items()
    ]  # fmt: skip
    panels = [
        html.Div(content(), id=f"panel-{name}", role="tabpanel", hidden=True, **aria(aria_labelledby=f"tab-{name}"))
        for name, (_, content) in _TABS.items()
    ]
    return html.Div(
        [
            html.Header([html.H1("Agileact lab"), html.P(_SUBTITLE)]),
            html.Main([html.Div(buttons, className="tabs", role="tablist", **aria(aria_label=_PARTS)), *panels]),
            html.Footer(f"agileact {__version__}. This page runs on your machine alone; nothing leaves it."),
            dcc.Store(id="session", data=uuid.uuid4().hex),
            dcc.Store(id="first-tab", data="network" if opened else "activation"),
        ],
        className="page",
    )


def _told(error: Exception) -> None:
    """Say in one line what a callback could not do; the page stays as it is."""
    print(f"agileact: internal error in the lab: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def local_host(host: str) -> bool:
    """Return whether a Host header names this machine."""
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname in HOSTS and parts.username is None and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def guard(server: Flask, script_hashes: Sequence[str]) -> None:
    """Refuse what another site could send, and forbid the page to load anything from elsewhere."""
    scripts = " ".join(f"'{one.strip(chr(39))}'" for one in script_hashes)
    policy = (
        f"default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; frame-ancestors 'none'; form-action 'self'; base-uri 'none'"
    )

    @server.before_request
    def refuse() -> None:
        host = request.headers.get("Host", "")
        if not local_host(host):
            abort(_refused(f"this page is for 127.0.0.1 and localhost alone, not for {host[:80]!r}"))
        # A request without an Origin comes from no other page.
        if request.headers.get("Origin", f"http://{host}") != f"http://{host}":
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
