"""Deferred imports: the core needs torch and numpy alone, everything else is an extra."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from agileact._common.errors import MissingExtraError


def require(module: str, extra: str) -> Any:
    """Import ``module``, or raise an error that names the extra which brings it.

    Args:
        module: Dotted name of the module.
        extra: The extra of ``agileact`` that installs it.

    Raises:
        MissingExtraError: If the module's package is not installed.

    Example:
        >>> require("math", "study").sqrt(4.0)
        2.0
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
    """Raise now, rather than after a long run, if a package is missing that its end will need; import none.

    Args:
        extra: The extra of ``agileact`` that installs them.
        *packages: Names of packages.

    Raises:
        MissingExtraError: If one of them is not installed.

    Example:
        >>> expect("study", "math", "no_such_package")
        Traceback (most recent call last):
        ...
        agileact.MissingExtraError: this needs the package 'no_such_package', which is not installed; \
install it with: pip install "agileact[study]"
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise _missing(package, extra)


def _missing(package: str, extra: str) -> MissingExtraError:
    return MissingExtraError(
        f'this needs the package {package!r}, which is not installed; install it with: pip install "agileact[{extra}]"'
    )
