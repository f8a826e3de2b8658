"""Make the agile module of a base function: the class that stands for it, where there is one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from agileact import bases
from agileact import nn as agile_nn
from agileact._common.errors import ArgumentError
from agileact.bases import Value
from agileact.nn import Agile, AgileModule, CombinedAgile

BaseArgument = str | Mapping[str, Any] | None
"""A base function that is asked for: its name, or a mapping of "name" and its options."""


def new_base(base: BaseArgument) -> tuple[str, dict[str, Value]] | None:
    """Return name and options of a base function that is asked for, None if none is.

    Raises:
        ArgumentError: If there is no such function, or an option does not fit.
        ArgumentTypeError: If something has a wrong type.

    Example:
        >>> new_base({"name": "leaky_relu", "negative_slope": 0.2})
        ('leaky_relu', {'negative_slope': 0.2})
    """
    if base is None:
        return None
    if isinstance(base, Mapping):
        options = dict(base)
        name = options.pop("name", None)
        if name is None:
            raise ArgumentError(
                f"base must have a 'name' beside its options, as {{'name': 'relu'}} has; it is {base!r}"
            )
    else:
        name, options = base, {}
    return name, bases.get(name).resolve(options)


def agile_module(base: str, size: int | None, terms: int, keywords: Mapping[str, Any]) -> AgileModule:
    """Return an agile module.

    Args:
        base: The name of the base function.
        size: The number of parameters in each term; None leaves it open, or stands for granularity "layer".
        terms: The number of terms.
        keywords: All else, options of the base function among it.

    Example:
        >>> agile_module("relu", 4, 1, {}), agile_module("relu", 4, 3, {"dim": -1})
        (AgileReLU(4), CombinedAgile('relu', 4, terms=3, dim=-1))
    """
    if terms > 1:
        return CombinedAgile(base, size, terms, **keywords)
    named = _named_classes().get(base)
    return Agile(base, size, **keywords) if named is None else named(size, **keywords)


@functools.cache
def _named_classes() -> dict[str, Callable[..., Agile]]:
    """Return the classes that stand for one base function, by its name."""
    classes = [kind for kind in vars(agile_nn).values() if isinstance(kind, type) and issubclass(kind, Agile)]
    return {kind(1).base: kind for kind in classes if kind.fixed_base}  # type: ignore[arg-type]
