"""Packages that are slow to import: imported when a test first uses one, so that no other test waits for it."""

from __future__ import annotations

from typing import Any

import pytest


class Package:
    """A package by its name; its attributes are those of the package. A test that uses a missing one is skipped."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # pytest asks what it finds in a module whether it wraps something: that is no use of the package.
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return getattr(pytest.importorskip(self._name, reason=f"the package {self._name} is missing"), attribute)


lightning: Any = Package("lightning.pytorch")
matplotlib: Any = Package("matplotlib")
transformers: Any = Package("transformers")
