"""Deferred imports: the core needs torch and numpy alone, everything else is an extra."""

from __future__ import annotations

import importlib
from typing import Any

from agileact._errors import MissingExtraError


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
        agileact._errors.MissingExtraError: this needs the package 'no_such_package', which is not installed; \
install it with: pip install "agileact[study]"
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        # A missing module *inside* an installed package is a broken installation, not a missing extra.
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f"this needs the package {package!r}, which is not installed; "
            f'install it with: pip install "agileact[{extra}]"'
        ) from None
