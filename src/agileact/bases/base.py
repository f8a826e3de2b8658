"""What a base function is: f with its derivatives, its options, and what is true of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from agileact._common import checks
from agileact._common.errors import ArgumentError
from agileact._common.names import hint

Value = float | str
"""What an option can be: a number, or one of a few names."""

Monotone = Literal["increasing", "decreasing"] | None
T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """One option of a base function: its default, and which values it takes.

    Attributes:
        default: The value when the option is not given; a string if the option is a choice.
        least: The smallest number allowed.
        above: Whether the number must be greater than ``least``, rather than at least that.
        nonzero: Whether zero is refused.
        choices: The names allowed, for an option that is a choice.
    """

    default: Value
    least: float = -math.inf
    above: bool = False
    nonzero: bool = False
    choices: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> Value:
        """Return ``value`` in its plain form, a float or one of the choices; raise if it does not fit."""
        if self.choices:
            if value not in self.choices:
                allowed = " or ".join(repr(choice) for choice in self.choices)
                raise ArgumentError(f"{name} must be {allowed}, not {value!r}")
            return str(value)
        number = float(checks.number(name, value))
        if math.isnan(number):
            raise ArgumentError(f"{name} must be a number, not NaN")
        if number < self.least or (self.above and number == self.least):
            relation = "greater than" if self.above else "at least"
            raise ArgumentError(f"{name} must be {relation} {self.least:g}, not {value!r}")
        if self.nonzero and number == 0.0:
            raise ArgumentError(f"{name} must not be zero")
        return number


@dataclass(frozen=True)
class Facts:
    """What is true of a base function for given values of its options.

    Attributes:
        monotone: ``"increasing"`` or ``"decreasing"`` (not necessarily strictly); None if it is neither,
            or if nothing is known.
        positively_homogeneous: Whether f(c x) = c f(x) for every c > 0.
        odd: Whether f(-x) = -f(x).
        bounds: A lower and an upper bound of f, infinite where there is none; tight for the functions
            that come with Agileact.
        kinks: Where f, f' or f'' jumps.
        value_at_zero: f(0).
    """

    monotone: Monotone
    positively_homogeneous: bool
    odd: bool
    bounds: tuple[float, float]
    kinks: tuple[float, ...]
    value_at_zero: float


def _resolve(fact: T | Callable[..., T], options: Mapping[str, Value]) -> T:
    return fact(**options) if callable(fact) else fact


@dataclass(frozen=True)
class Base:
    """A base function f, to be made agile as a f(x - b).

    The three functions take a tensor and the options by name, and work element by element. A fact is a value, or a
    function of the options where it depends on them; :meth:`facts` gives the values.

    Attributes:
        name: The name under which it is registered.
        function: f: the very function that a user of PyTorch would call.
        derivative: f', written by hand; at a kink it has the value that PyTorch's autograd gives.
        second_derivative: f'', in the same form.
        formula: f in one line, for documentation.
        options: The options, by name.
        check_together: Raises if options that fit one by one do not fit each other.
        rounds_inside: Whether PyTorch's kernel for half precision is more than "compute in float32, round once".
            Such a function is evaluated in the input's own dtype, so that scale 1 and location 0
            reproduce it bit for bit; the others are evaluated in float32.
        monotone: See :class:`Facts`, as for those that follow.
        positively_homogeneous: See :class:`Facts`.
        odd: See :class:`Facts`.
        bounds: See :class:`Facts`.
        kinks: See :class:`Facts`.
    """

    name: str
    function: Callable[..., Tensor]
    derivative: Callable[..., Tensor]
    second_derivative: Callable[..., Tensor]
    formula: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    check_together: Callable[..., None] | None = None
    rounds_inside: bool = True
    monotone: Monotone | Callable[..., Monotone] = None
    positively_homogeneous: bool | Callable[..., bool] = False
    odd: bool | Callable[..., bool] = False
    bounds: tuple[float, float] | Callable[..., tuple[float, float]] = (-math.inf, math.inf)
    kinks: tuple[float, ...] | Callable[..., tuple[float, ...]] = ()

    def resolve(self, options: Mapping[str, Any]) -> dict[str, Value]:
        """Return every option with its value, the given one or the default.

        Args:
            options: The options that were given.

        Raises:
            ArgumentError: If an option is unknown, or a value is out of range.
            ArgumentTypeError: If a value is not a number.
        """
        for name in options:
            if name not in self.options:
                near = hint(name, self.options) if self.options else "; it has no options"
                raise ArgumentError(f"base {self.name!r} has no option {name!r}{near}")
        resolved = {
            name: option.check(name, options[name]) if name in options else option.default
            for name, option in self.options.items()
        }
        if self.check_together is not None:
            self.check_together(**resolved)
        return resolved

    def facts(self, **options: Any) -> Facts:
        """Return what is true of f for these options.

        Example:
            >>> import agileact as ag
            >>> ag.bases.get("leaky_relu").facts(negative_slope=0.1).monotone
            'increasing'
            >>> ag.bases.get("leaky_relu").facts(negative_slope=-0.1).monotone is None
            True
        """
        resolved = self.resolve(options)
        zero = torch.zeros((), dtype=torch.float64, device="cpu")
        return Facts(
            monotone=_resolve(self.monotone, resolved),
            positively_homogeneous=_resolve(self.positively_homogeneous, resolved),
            odd=_resolve(self.odd, resolved),
            bounds=_resolve(self.bounds, resolved),
            kinks=_resolve(self.kinks, resolved),
            value_at_zero=float(self.function(zero, **resolved)),
        )
