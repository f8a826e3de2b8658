"""The registry of base functions: one name each, and one call for a function of the user's own."""

import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from agileact._common.errors import ArgumentError, ArgumentTypeError
from agileact.bases.base import Base, Monotone, Option

_REGISTRY: dict[str, Base] = {}
_BUILT_IN: set[str] = set()


def add(*bases: Base) -> None:
    """Add the functions that come with Agileact."""
    for base in bases:
        _REGISTRY[base.name] = base
        _BUILT_IN.add(base.name)


def get(name: str) -> Base:
    """Return the base function that is registered as ``name``.

    Raises:
        ArgumentTypeError: If ``name`` is not a string.
        ArgumentError: If there is no such function; the message suggests names that are near.

    Example:
        >>> import agileact as ag
        >>> ag.bases.get("relu").formula
        'max(0, x)'
        >>> ag.bases.get("rellu")
        Traceback (most recent call last):
        ...
        agileact.ArgumentError: there is no base function 'rellu'; did you mean 'relu', 'relu6' or 'elu'?
    """
    base = _REGISTRY.get(name) if isinstance(name, str) else None
    if base is None:
        raise _unknown(name)
    return base


def _unknown(name: Any) -> Exception:
    if not isinstance(name, str):
        return ArgumentTypeError(
            f"base must be the name of a base function, not {name!r} of type {type(name).__name__}; "
            "a function of your own gets a name by agileact.register_base(name, function)"
        )
    near = [repr(found) for found in get_close_matches(name.lower(), _REGISTRY, n=3, cutoff=0.6)]
    if near:
        hint = f"did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}?"
    else:
        hint = f"known: {', '.join(_REGISTRY)}; your own is added by agileact.register_base(name, function)"
    return ArgumentError(f"there is no base function {name!r}; {hint}")


def names() -> tuple[str, ...]:
    """Return the names of all registered base functions, in the order of their registration.

    Example:
        >>> import agileact as ag
        >>> {"relu", "gelu", "sigmoid"} <= set(ag.bases.names())
        True
    """
    return tuple(_REGISTRY)


def register_base(
    name: str,
    function: Callable[..., Tensor],
    *,
    derivative: Callable[..., Tensor] | None = None,
    second_derivative: Callable[..., Tensor] | None = None,
    options: Mapping[str, float | str | Option] | None = None,
    formula: str = "",
    monotone: Monotone | Callable[..., Monotone] = None,
    positively_homogeneous: bool | Callable[..., bool] = False,
    odd: bool | Callable[..., bool] = False,
    bounds: tuple[float, float] | Callable[..., tuple[float, float]] = (-math.inf, math.inf),
    kinks: tuple[float, ...] | Callable[..., tuple[float, ...]] = (),
    rounds_inside: bool = True,
    replace: bool = False,
) -> Base:
    """Register a function of your own, so that it can be made agile like any other.

    Args:
        name: The name to register it under, such as ``"swish2"``.
        function: f. It takes a floating-point tensor, and the options by name, and returns a tensor of
            the same shape and dtype, computed element by element from operations of PyTorch.
        derivative: f', called as ``function`` is; by default from autograd.
        second_derivative: f'', in the same form.
        options: The options of f by name, each with its default or a full :class:`Option`.
        formula: f in one line, for documentation.
        monotone: ``"increasing"`` or ``"decreasing"`` if f is (not necessarily strictly). This and the next
            four are statements that other tools rely on, such as folding: leave out what you do not know. Each
            may also be a function that takes the options by name and returns the value.
        positively_homogeneous: Whether f(c x) = c f(x) for every c > 0.
        odd: Whether f(-x) = -f(x).
        bounds: A lower and an upper bound of f.
        kinks: Where f, f' or f'' jumps.
        rounds_inside: Whether f in half precision is more than "compute in float32, round once". If True, as is
            safe, f is evaluated in the input's own dtype.
        replace: Replace a function that was registered under this name before. Those that come with
            Agileact cannot be replaced.

    Returns:
        The registered function.

    Raises:
        ArgumentError: If the name is taken or no identifier, or if the function does not keep shape and dtype.
        ArgumentTypeError: If an argument has the wrong type.

    Example:
        >>> import torch, agileact as ag
        >>> base = ag.register_base(
        ...     "snake", lambda x, frequency: x + torch.sin(frequency * x) ** 2 / frequency,
        ...     options={"frequency": 1.0}, replace=True)
        >>> ag.Agile("snake", 3, frequency=2.0)
        Agile('snake', 3, frequency=2.0)
        >>> ag.functional.agile(torch.zeros(2, 3), torch.ones(3), torch.zeros(3), "snake").tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"name must be a string, not {name!r}")
    if not name.isidentifier():
        raise ArgumentError(f"name must be an identifier such as 'swish2', not {name!r}")
    if name in _BUILT_IN:
        raise ArgumentError(f"name {name!r} is taken by a function that comes with Agileact; choose another")
    if name in _REGISTRY and not replace:
        raise ArgumentError(f"name {name!r} is registered already; choose another, or pass replace=True")
    if not callable(function):
        raise ArgumentTypeError(f"function must be callable, not {function!r}")
    for argument, given in (("derivative", derivative), ("second_derivative", second_derivative)):
        if given is not None and not callable(given):
            raise ArgumentTypeError(f"{argument} must be callable, not {given!r}")
    first = derivative or _differentiate(function)
    base = Base(
        name=name,
        function=function,
        derivative=first,
        second_derivative=second_derivative or _differentiate(first),
        formula=formula,
        options={
            key: value if isinstance(value, Option) else _option(key, value) for key, value in (options or {}).items()
        },
        rounds_inside=rounds_inside,
        monotone=monotone,
        positively_homogeneous=positively_homogeneous,
        odd=odd,
        bounds=bounds,
        kinks=kinks,
    )
    _try(base)
    _REGISTRY[name] = base
    return base


def _option(name: str, default: float | str) -> Option:
    if isinstance(default, str):
        raise ArgumentTypeError(
            f"option {name!r} is a choice: pass Option({default!r}, choices=(...)) to say among which names"
        )
    return Option(Option(0.0).check(name, default))


def _differentiate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the derivative of an elementwise function, by autograd; composes with itself and torch.func."""

    def derivative(x: Tensor, **options: Any) -> Tensor:
        def evaluate(z: Tensor) -> Tensor:
            return function(z, **options)

        value, pullback, *_ = torch.func.vjp(evaluate, x)
        gradient: Tensor = pullback(torch.ones_like(value))[0]
        return gradient

    return derivative


def _try(base: Base) -> None:
    """Refuse a function that cannot work, at registration rather than in the middle of a training run."""
    x = torch.linspace(-1.5, 1.5, 6, dtype=torch.float32, device="cpu").view(2, 3)
    options = base.resolve({})
    try:
        y = base.function(x, **options)
    except TypeError as error:
        given = ", ".join(["x", *(f"{name}={value!r}" for name, value in options.items())])
        raise ArgumentTypeError(f"function cannot be called as function({given}): {error}") from error
    if not isinstance(y, Tensor):
        raise ArgumentTypeError(f"function must return a tensor, not {type(y).__name__}")
    if y.shape != x.shape or y.dtype != x.dtype:
        raise ArgumentError(
            f"function must keep shape and dtype: from {tuple(x.shape)}, {x.dtype} it made {tuple(y.shape)}, {y.dtype}"
        )
    facts = base.facts()
    if facts.monotone not in ("increasing", "decreasing", None):
        raise ArgumentError(f"monotone must be 'increasing', 'decreasing' or None, not {facts.monotone!r}")
    lower, upper = facts.bounds
    if not lower <= upper:
        raise ArgumentError(f"bounds must be a lower and an upper bound, not {facts.bounds!r}")
