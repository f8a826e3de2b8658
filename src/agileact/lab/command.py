"""``agileact lab``: parse, serve until Ctrl-C."""

import argparse
import logging
import os
import socket
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agileact._common.arguments import port
from agileact._common.errors import ArgumentError
from agileact._common.optional import require

_HOST = "127.0.0.1"
_PORT = 8060


def add_lab(commands: Any) -> None:
    """Add ``agileact lab``."""
    parser = commands.add_parser(
        "lab",
        help="a local page to play with activations, XOR, single training steps and learned shapes",
        description="Serve a page on this machine alone: drag a and b of any activation and fold them into weights; "
        "watch networks learn XOR and digits; take single training steps; see the learned activations of a checkpoint "
        "or a study. Ctrl-C ends it.",
    )
    parser.add_argument(
        "--port",
        type=port,
        default=_PORT,
        metavar="N",
        help="port on 127.0.0.1, 0 for any free one (default: %(default)s)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", type=Path, metavar="PATH", help="show a checkpoint: a file or its folder")
    source.add_argument("--store", type=Path, metavar="PATH", help="show the trials of a study's store.sqlite")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.set_defaults(run=_lab)


def _lab(options: argparse.Namespace) -> None:
    require("dash", "lab")
    require("sklearn", "lab")
    opened: Path | None = options.checkpoint or options.store
    serve(options.port, opened, browser=not options.no_browser, notify=lambda line: print(line, flush=True))


def serve(port: int, opened: Path | None = None, *, browser: bool, notify: Callable[[str], None]) -> None:
    """Serve the lab on 127.0.0.1 until Ctrl-C."""
    import torch

    from agileact.lab.app import build_app
    from agileact.lab.content.source import open_source

    if opened is not None:
        open_source(opened)
    make_server = require("werkzeug.serving", "lab").make_server
    # Requests are small and come one after another; several threads a computation would only slow them.
    torch.set_num_threads(1)
    app = build_app(opened)
    with _listening(port) as listener:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = make_server(_HOST, port, app.server, threaded=True, fd=listener.fileno())
        url = f"http://{_HOST}:{listener.getsockname()[1]}/"
        notify(f"The lab is at {url} (this machine only); Ctrl-C ends it.")
        screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
        if browser and screen:
            webbrowser.open(url)
        # It returns on Ctrl-C, having closed what it holds.
        server.serve_forever()
    notify("The lab has ended.")


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((_HOST, port), backlog=128)
    except OSError as error:
        raise ArgumentError(
            f"port {port} of {_HOST} is not available ({os.strerror(error.errno or 0)}); end the program that uses it, "
            "or give another one, such as --port 0 for any that is free"
        ) from None
