"""Where tuning looks: a range or choices for fields of an arm, as people write them."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agileact._common.checks import is_number
from agileact._common.errors import ArgumentError
from agileact._common.names import hint, suggestion
from agileact.study.spec.reading import PlacedError, as_options, freeze, mapping, placed, scalar
from agileact.study.spec.trial import ArmSpec

OPTION = "optimizer_options."
"""What stands in front of the name of an optimizer's option."""
FACTORS = ("activation_lr", "scale_lr", "location_lr")
"""Rates that a space names as factors of the learning rate."""
OF_AGILE = ("scale_lr", "location_lr", "activation_decay")
"""What means nothing to an arm without scales and locations that learn."""
_OF_ACTIVATIONS = ("activation_lr", *OF_AGILE)
_LOG = ("lr", *_OF_ACTIVATIONS, "weight_decay", "clip_norm", "bias_lr_multiplier")
_NUMBERS = (*_LOG, "warmup", "label_smoothing")
NAMES = (*_NUMBERS, "schedule", "optimizer")
"""The fields that can be tuned; any option of the optimizer can be, too."""
SCALES = ("log", "linear")
_ZEROS = 0.25
"""The share of points at 0, of a range that has 0 beside it: a quarter of each four of Sobol's sequence."""


@dataclass(frozen=True)
class Dimension:
    """One field of an arm, and the values that tuning may give it; activation learning rates are factors of ``lr``.

    ``log``: evenly spread by the logarithm. ``zero``: a quarter of the points have 0 instead. ``choices``: no range.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    zero: bool = False
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in NAMES and not (self.name.startswith(OPTION) and self.name != OPTION):
            raise ArgumentError(f"{self.name!r} cannot be tuned{hint(self.name, (*NAMES, OPTION + 'NAME'))}")
        if not self.choices:
            if self.name in ("schedule", "optimizer"):
                raise ArgumentError(f"{self.name} has choices, not a range")
            if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
                raise ArgumentError(f"a range goes from a number up to a larger one, not {self.low:g} to {self.high:g}")
            if self.log and self.low <= 0:
                add = " and add 0 beside it" if self.name in ("weight_decay", "activation_decay") else ""
                raise ArgumentError(f"a logarithmic range begins above 0, not at {self.low:g}; begin higher{add}")
        elif len(set(self.choices)) < len(self.choices):
            raise ArgumentError(f"{self.name} names a choice twice: {', '.join(map(str, self.choices))}")
        for value in self.choices or (self.low, self.high, *[0.0] * self.zero):
            if self.name in _NUMBERS and not (is_number(value) or (self.name == "clip_norm" and value is None)):
                raise ArgumentError(f"a number was expected, not {value!r}")
            if self.name in FACTORS and not 0 < value < math.inf:
                raise ArgumentError(f"{self.name} is a factor of the learning rate, greater than 0, not {value:g}")
            if self.name in NAMES:
                ArmSpec((), **{self.name: value})

    @property
    def free(self) -> bool:
        """Whether there is more than one value."""
        return len(self.choices) != 1

    @property
    def field(self) -> str:
        """The field of :class:`~agileact.study.spec.trial.ArmSpec` that it sets."""
        return self.name.partition(".")[0]

    def at(self, place: float) -> Any:
        """Return the value at a place from 0 to 1."""
        if self.choices:
            return self.choices[min(int(place * len(self.choices)), len(self.choices) - 1)]
        if self.zero:
            if place < _ZEROS:
                return 0.0
            place = (place - _ZEROS) / (1 - _ZEROS)
        value = self.low * (self.high / self.low) ** place if self.log else self.low + (self.high - self.low) * place
        return rounded(value)

    def edge(self, value: Any) -> str:
        """Return "lower" or "upper" for a value in the outermost twentieth of a logarithmic range, else ""."""
        if not self.log or self.choices or not value:
            return ""
        place = math.log(value / self.low) / math.log(self.high / self.low)
        return "lower" if place < 0.05 else "upper" if place > 0.95 else ""

    @property
    def text(self) -> str:
        """The values as :func:`search_space` reads them."""
        if self.choices:
            return ", ".join(
                "none" if one is None else f"{one:g}" if is_number(one) else str(one) for one in self.choices
            )
        return "0, " * self.zero + f"{self.low:g}..{self.high:g} {SCALES[not self.log]}"

    def plain(self) -> Any:
        """Return it as plain JSON types, which :func:`search_space` reads."""
        if self.choices:
            return list(self.choices)
        return {"from": self.low, "to": self.high, "scale": SCALES[not self.log], "zero": self.zero}


Space = tuple[Dimension, ...]
"""What is tuned together; what concerns activations alone comes last."""


def search_space(raw: Mapping[str, Any] | Iterable[str]) -> Space:
    """Return a search space.

    Args:
        raw: By field: a range as text (``"1e-4..0.1"``, with ``linear`` or ``log`` behind it), as text with 0
            beside it (``"0, 1e-6..1e-2"``), or as a mapping (``{"from": 1e-4, "to": 0.1, "scale": "log"}``, also with
            ``"zero": True``); choices as a list, or as text (``"constant, cosine"``); or a single value. Or texts such
            as ``"lr=1e-4..0.1"``. Ranges are logarithmic for rates, decays, multipliers and ``clip_norm``, else linear.

    Raises:
        ArgumentError: If a field cannot be tuned, or a value does not fit it.

    Example:
        >>> given = {"lr": "1e-4..0.1", "weight_decay": "0, 1e-6..1e-2", "schedule": ["constant", "cosine"]}
        >>> space = search_space(given)
        >>> described(space)
        'lr 0.0001..0.1 log; weight_decay 0, 1e-06..0.01 log; schedule constant, cosine'
        >>> space == search_space(["lr=1e-4..0.1", "weight_decay=0,1e-6..1e-2", "schedule=constant,cosine"])
        True
    """
    if not isinstance(raw, Mapping):
        pairs = [text.partition("=") for text in raw]
        for name, equals, value in pairs:
            if not (equals and value):
                raise ArgumentError(f"{name!r} is not of the form NAME=VALUES, such as lr=1e-4..0.1")
        raw = {name.strip(): value for name, _, value in pairs}
    found = []
    for name, value in mapping(raw).items():
        with placed(name):
            found.append(_dimension(name, value))
    return joined(found)


def joined(*spaces: Iterable[Dimension]) -> Space:
    """Return spaces as one; a later one goes before an earlier one of the same name."""
    found = {one.name: one for space in spaces for one in space}
    return tuple(sorted(found.values(), key=lambda one: one.name in _OF_ACTIVATIONS))


def described(space: Space) -> str:
    """Return a space in words."""
    return "; ".join(f"{one.name} {one.text}" for one in space)


def with_values(spec: ArmSpec, values: Mapping[str, Any]) -> ArmSpec:
    """Return an arm with the values of these dimensions, ``lr`` too."""
    options = dict(spec.optimizer_options)
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name.startswith(OPTION):
            options[name.removeprefix(OPTION)] = value
        elif name in FACTORS:
            # None is the learning rate itself, for one identity.
            changes[name] = None if value == 1.0 else rounded(values["lr"] * value)
        else:
            changes[name] = value
    return dataclasses.replace(spec, **changes, optimizer_options=freeze(options))


def rounded(value: float) -> float:
    """Return a number of six digits: what is printed is what is run."""
    return float(f"{value:.6g}")


def _dimension(name: str, raw: Any) -> Dimension:
    if isinstance(raw, Mapping):
        given = mapping(raw, ("from", "to", "scale", "zero"))
        for key in ("from", "to"):
            if key not in given:
                raise ArgumentError(f"lacks {key!r}")
        scale = given.get("scale", _usual_scale(name))
        if scale not in SCALES:
            raise PlacedError(f"must be 'log' or 'linear', not {scale!r}{suggestion(scale, SCALES)}", ("scale",))
        if not isinstance(given.get("zero", False), bool):
            raise PlacedError(f"true or false was expected, not {given['zero']!r}", ("zero",))
        low, high = (_number(given[key], key) for key in ("from", "to"))
        return Dimension(name, low, high, scale == "log", given.get("zero", False))
    if isinstance(raw, (list, tuple)) and any(isinstance(one, str) and ".." in one for one in raw):
        raw = ",".join(map(str, raw))
    if isinstance(raw, str) and ".." in raw:
        return _range(name, raw)
    values = raw.split(",") if isinstance(raw, str) else raw if isinstance(raw, (list, tuple)) else [raw]
    if not values:
        raise ArgumentError("names no value")
    choices = [scalar(one.strip()) if isinstance(one, str) else as_options(one) for one in values]
    if name in _NUMBERS:
        # One identity for one meaning: 0 and 0.0 are the same decay.
        choices = [float(one) if is_number(one) else one for one in choices]
    return Dimension(name, choices=tuple(choices))


def _range(name: str, text: str) -> Dimension:
    words, scale = text.strip(), _usual_scale(name)
    for ending in SCALES:
        if words.endswith(" " + ending):
            words, scale = words.removesuffix(ending), ending
    parts = [part.strip() for part in words.split(",")]
    beside = [part for part in parts if ".." not in part]
    if len(parts) - len(beside) != 1 or [scalar(part) for part in beside] not in ([], [0]):
        raise ArgumentError(f"{text!r} is neither a range, such as 1e-4..0.1, nor 0 and a range, such as 0, 1e-6..0.01")
    low, _, high = next(part for part in parts if ".." in part).partition("..")
    return Dimension(name, _number(low, text), _number(high, text), scale == "log", bool(beside))


def _usual_scale(name: str) -> str:
    return "log" if name in _LOG else "linear"


def _number(value: Any, where: str) -> float:
    with contextlib.suppress(ValueError, TypeError):
        if not isinstance(value, bool):
            return float(value)
    raise ArgumentError(f"{where}: a number was expected, not {value!r}")
