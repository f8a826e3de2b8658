"""What comes from the page is checked here before anything is computed from it."""

from collections.abc import Iterable, Mapping
from typing import Any

from agileact import bases
from agileact._common import checks
from agileact._common.errors import ArgumentError

MOST_TERMS = 3
"""How many terms a combined activation has at most on the page."""

MOST_OPTION = 100
"""The largest magnitude of an option of f on the page."""


def number(name: str, value: Any, least: float, most: float) -> float:
    """Return ``value`` as a float if it is a number from ``least`` to ``most``."""
    if not checks.is_number(value) or not least <= value <= most:  # NaN is neither
        raise ArgumentError(f"{name} must be a number from {least:g} to {most:g}")
    return float(value)


def whole(name: str, value: Any, least: int, most: int) -> int:
    """Return ``value`` as an int if it is a whole number from ``least`` to ``most``."""
    if not checks.is_number(value) or not least <= value <= most or value != int(value):
        raise ArgumentError(f"{name} must be a whole number from {least} to {most}")
    return int(value)


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is one of the names that are allowed."""
    names = tuple(allowed)
    if not isinstance(value, str) or value not in names:
        raise ArgumentError(f"{name} must be one of {', '.join(names)}")
    return value


def base_options(base: Any, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of a base function and its options, the given ones and else the defaults.

    Options that the base does not have are left out: the page may still show those of the base chosen before.
    """
    name = choice("f", base, bases.names())
    known = bases.get(name)
    options = {
        key: given[key] if option.choices else number(key, given[key], -MOST_OPTION, MOST_OPTION)
        for key, option in known.options.items()
        if key in given
    }
    return name, known.resolve(options)


def training(
    base: Any, optimizer: Any, lr: Any, activation_lr: Any, seed: Any, *, optimizers: Iterable[str]
) -> dict[str, Any]:
    """Return what every training on the page has, by name."""
    return {
        "base": choice("f", base, bases.names()),
        "optimizer": choice("the optimizer", optimizer, optimizers),
        "lr": number("the learning rate of the weights", lr, 1e-6, 10),
        "activation_lr": number("the learning rate of a and b", activation_lr, 0, 10),
        "seed": whole("the seed", seed, 0, 99_999),
    }
