"""Deferred imports: of extras (the core needs torch and numpy alone), and of a package's own names."""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agileact._common.errors import MissingExtraError


def require(module: str, extra: str) -> Any:
    """Import ``module``, or raise an error that names the extra which brings it.

    Example:
        >>> require("no_such_package", "study")
        Traceback (most recent call last):
        ...
        agileact.MissingExtraError: this needs the package 'no_such_package', which is not installed; \
install it with: pip install "agileact[study]"
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        # A missing module *inside* an installed package is a broken installation, not a missing extra.
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise _missing(package, extra) from None


def expect(extra: str, *packages: str) -> None:
    """Raise now, rather than after a long run, if a package is missing that its end will need; import none."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise _missing(package, extra)


def _missing(package: str, extra: str) -> MissingExtraError:
    return MissingExtraError(
        f'this needs the package {package!r}, which is not installed; install it with: pip install "agileact[{extra}]"'
    )


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package that imports its names when they are first used.

    The stub beside its ``__init__`` is their one list. As lazy_loader does it, which would be a third package for the
    core to depend on.
    """
    homes = {
        alias.name: str(node.module)
        for node in ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def resolve(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if homes[name] == package:
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return resolve, listed, sorted(homes)
