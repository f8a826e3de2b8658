"""A headless Chromium for the session, and pages that write down what a user would never see."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
PATIENCE = 240_000
"""Milliseconds until a test gives up: no measure of speed, for a machine that does much else."""
_LOCAL_SCHEMES = ("file", "data", "blob", "about")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass
class Visit:
    """A page with everything that it said, asked for and popped up.

    Attributes:
        page: Playwright's page.
        errors: Console errors and uncaught exceptions.
        requests: Every address that was asked for.
        dialogs: What alert, confirm or prompt said.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    @property
    def strangers(self) -> list[str]:
        """Requests that would leave the machine."""
        parts = [(url, urlsplit(url)) for url in self.requests]
        return [url for url, at in parts if at.scheme not in _LOCAL_SCHEMES and at.hostname not in _LOOPBACK]

    def check(self) -> None:
        """Fail if the page reported an error, asked for something off the machine, or opened a dialog."""
        assert not self.errors, self.errors
        assert not self.strangers, self.strangers
        assert not self.dialogs, self.dialogs


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The system's Chromium, headless, one for all tests of the session."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    executable = next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if executable is None:
        pytest.skip(f"no browser is installed: none of {', '.join(EXECUTABLES)} is on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Visit]]:
    """Return a function that opens an address in a fresh context and returns the :class:`Visit`.

    Keyword arguments go to ``Browser.new_context``: ``viewport``, ``color_scheme``, ``offline``, ...
    """
    contexts = []

    def open_page(url: str, **options: Any) -> Visit:
        context = chromium.new_context(**{"viewport": DESKTOP, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        found = Visit(page)
        page.on("console", lambda message: found.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on("request", lambda request: found.requests.append(request.url))

        def dismiss(dialog: Any) -> None:
            found.dialogs.append(dialog.message)
            dialog.dismiss()

        page.on("dialog", dismiss)
        page.goto(url)
        return found

    yield open_page
    for context in contexts:
        context.close()
