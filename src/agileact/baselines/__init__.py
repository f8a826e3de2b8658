"""The activations that one would use instead of an agile one: learned shapes, each with its source and its formula.

They have the interface of agile modules as far as it makes sense: ``num_parameters``, ``granularity``, ``dim``, and
parameters with one axis. ``build`` makes one by its short name, as studies refer to it.
"""

import inspect
from typing import Any

from agileact._common.errors import ArgumentError
from agileact._common.names import hint
from agileact.baselines.activations import ACONC as ACONC
from agileact.baselines.activations import AGLU as AGLU
from agileact.baselines.activations import APL as APL
from agileact.baselines.activations import ParametricActivation as ParametricActivation
from agileact.baselines.activations import PReLU as PReLU
from agileact.baselines.activations import Rational as Rational
from agileact.baselines.activations import Snake as Snake
from agileact.baselines.activations import Swish as Swish

__all__ = ["ACONC", "AGLU", "APL", "PReLU", "ParametricActivation", "Rational", "Snake", "Swish", "build", "names"]

_CLASSES: dict[str, Any] = {
    "aconc": ACONC,
    "aglu": AGLU,
    "apl": APL,
    "pau": Rational,
    "prelu": PReLU,
    "snake": Snake,
    "swish": Swish,
}
_LAYOUT = ("self", "num_parameters", "granularity", "dim", "device", "dtype")


def names() -> tuple[str, ...]:
    """Return the short names of all activations here, sorted.

    Example:
        >>> names()
        ('aconc', 'aglu', 'apl', 'pau', 'prelu', 'snake', 'swish')
    """
    return tuple(sorted(_CLASSES))


def options(name: str) -> tuple[str, ...]:
    """Return the names of an activation's own options: its start values and sizes.

    Raises:
        ArgumentError: If there is no such activation.

    Example:
        >>> options("aconc")
        ('p1', 'p2', 'beta')
    """
    return tuple(one for one in inspect.signature(_class(name).__init__).parameters if one not in _LAYOUT)


def build(name: str, num_parameters: int | tuple[int, ...] | None = None, **arguments: Any) -> ParametricActivation:
    """Build an activation by its short name.

    Args:
        name: One of :func:`names`.
        num_parameters: As for the class.
        **arguments: The class's other arguments.

    Raises:
        ArgumentError: If there is no such activation, or it has no such argument.

    Example:
        >>> build("prelu", 16, weight=0.1)
        PReLU(16)
        >>> build("preluu", 16)
        Traceback (most recent call last):
        ...
        agileact.ArgumentError: there is no baseline 'preluu'; did you mean 'prelu'? \
known: aconc, aglu, apl, pau, prelu, snake, swish
    """
    known = (*options(name), *_LAYOUT[2:])
    for argument in arguments:
        if argument not in known:
            raise ArgumentError(f"baseline {name!r} has no option {argument!r}{hint(argument, known)}")
    activation: ParametricActivation = _class(name)(num_parameters, **arguments)
    return activation


def _class(name: str) -> Any:
    if name not in _CLASSES:
        raise ArgumentError(f"there is no baseline {name!r}{hint(name, names())}")
    return _CLASSES[name]
