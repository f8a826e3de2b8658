"""Checks of arguments that many functions share; each error says what came and what would fit."""

from typing import Any, TypeGuard

from agileact._common.errors import ArgumentError, ArgumentTypeError


def is_integer(value: Any) -> TypeGuard[int]:
    """Return whether this is an int; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Return whether this is an int or a float, and no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def integer(name: str, value: Any, least: int | None = None) -> int:
    """Return ``value`` if it is an integer, and at least ``least``.

    Example:
        >>> integer("terms", 2.0)
        Traceback (most recent call last):
        ...
        agileact.ArgumentTypeError: terms must be an integer, not 2.0 of type float
    """
    if not is_integer(value):
        raise ArgumentTypeError(f"{name} must be an integer, not {_shown(value)}")
    if least is not None and value < least:
        raise ArgumentError(f"{name} must be at least {least}, not {value}")
    return value


def number(name: str, value: Any) -> float:
    """Return ``value`` if it is a number; NaN and infinity are left to the caller."""
    if not is_number(value):
        raise ArgumentTypeError(f"{name} must be a number, not {_shown(value)}")
    return value


def model(value: Any) -> None:
    """Raise unless this is a module of PyTorch."""
    from torch import nn

    if not isinstance(value, nn.Module):
        raise ArgumentTypeError(f"model must be a torch.nn.Module, not {type(value).__name__}")


def optimizer(value: Any) -> None:
    """Raise unless this is an optimizer of PyTorch."""
    from torch.optim import Optimizer

    if not isinstance(value, Optimizer):
        raise ArgumentTypeError(f"optimizer must be a torch.optim.Optimizer, not {type(value).__name__}")


def _shown(value: Any) -> str:
    return f"{value!r} of type {type(value).__name__}"
