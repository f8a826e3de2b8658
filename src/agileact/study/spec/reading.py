"""One reader of the study's dataclasses, by cattrs: for YAML files, records, trials and results."""

import contextlib
import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from agileact._common.checks import is_integer, is_number
from agileact._common.errors import AgileactError, ArgumentError
from agileact._common.names import hint
from agileact._common.optional import require

_LARGEST = 2**63 - 1

T = TypeVar("T")


class PlacedError(ArgumentError):
    """An error with the keys and indices that lead to its place in what is read."""

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


@contextlib.contextmanager
def placed(*path: str | int) -> Iterator[None]:
    """Put keys and indices in front of the place of every error in the block."""
    try:
        yield
    except Exception as error:
        inner, message = _located(error)
        raise PlacedError(message, (*path, *inner)) from None


def read(kind: type[T], raw: Any, source: str = "", converter: Any = None) -> T:
    """Return the dataclass that mappings and lists describe; an ArgumentError in one line says what does not fit.

    ``source`` is what errors call it, such as a file's name; without a converter it is JSON that this package wrote.
    """
    converter = converter or json_converter()
    try:
        return converter.structure(raw, kind)  # type: ignore[no-any-return]
    except Exception as error:
        path, message = _located(error)
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
        raise ArgumentError(": ".join(part for part in (source, place, message) if part)) from None


def make_converter(real: Callable[[Any], float], word: Callable[[Any], str]) -> Any:
    """Return a converter for dataclasses; how it reads numbers and text differs between sources."""
    cattrs, gen = require("cattrs", "study"), require("cattrs.gen", "study")
    columns = require("cattrs.cols", "study")
    made = cattrs.Converter()

    def of_dataclass(kind: Any, converter: Any) -> Any:
        structure = gen.make_dict_structure_fn(kind, converter)
        known = tuple(field.name for field in dataclasses.fields(kind))
        return lambda raw, _: structure(mapping(raw, known), kind)

    def of_tuple(kind: Any, converter: Any) -> Any:
        structure = columns.homogenous_tuple_structure_factory(kind, converter)
        return lambda raw, _: structure(sequence(raw), kind)

    def of_dict(kind: Any, converter: Any) -> Any:
        value = typing.get_args(kind)[1]
        # A result keeps the order of its layers as a list of pairs.
        return lambda raw, _: {name: converter.structure(one, value) for name, one in dict(raw).items()}

    made.register_structure_hook_factory(dataclasses.is_dataclass, of_dataclass)
    made.register_structure_hook_factory(_is_some(tuple), of_tuple)
    made.register_structure_hook_factory(_is_some(dict), of_dict)
    # Measured numbers, thousands of them, which only this package writes: they are not looked at one by one.
    made.register_structure_hook_func(_is_some(list), lambda raw, _: sequence(raw))
    for kind, check in ((bool, _truth), (int, whole), (float, real), (str, word)):
        made.register_structure_hook(kind, lambda raw, _, check=check: check(raw))
    return made


def _is_some(origin: Any) -> Callable[[Any], bool]:
    return lambda kind: typing.get_origin(kind) is origin


@functools.cache
def json_converter(*more: tuple[Any, Callable[[Any, Any], Any]]) -> Any:
    """Return the converter of JSON that this package wrote, with hooks for ``more`` types that need what is above."""
    made = make_converter(number, text)
    for wanted, hook in ((Options, lambda raw, _: as_options(raw)), *more):
        made.register_structure_hook_func(lambda kind, wanted=wanted: kind == wanted, hook)
    return made


def _located(error: BaseException) -> tuple[tuple[str | int, ...], str]:
    """Return the place of the first error that is in this one, and what is wrong there."""
    if isinstance(error, PlacedError):
        return error.path, str(error)
    if isinstance(error, AgileactError):
        return (), str(error)
    inner = getattr(error, "exceptions", None)
    if not inner:
        return (), str(error)
    first = inner[0]
    note = next(iter(getattr(first, "__notes__", ())), None)
    step = getattr(note, "name", getattr(note, "index", None))
    if isinstance(first, KeyError):
        return (), f"lacks {first.args[0]!r}"
    path, message = _located(first)
    return (path if step is None else (step, *path)), message


def mapping(value: Any, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return ``value`` if it is a mapping whose keys are known; None accepts every key."""
    if not isinstance(value, Mapping):
        raise ArgumentError(f"a mapping was expected, not {shown(value)}")
    for key in value:
        if not isinstance(key, str):
            raise ArgumentError(f"keys must be text, not {shown(key)}")
        if known is not None and key not in known:
            raise PlacedError(f"unknown key{hint(key, known)}", (key,))
    return dict(value)


def sequence(value: Any) -> Any:
    """Return ``value`` if it is a list."""
    if not isinstance(value, (list, tuple)):
        raise ArgumentError(f"a list was expected, not {shown(value)}")
    return value


def whole(value: Any) -> int:
    """Return ``value`` if it is a whole number."""
    if not is_integer(value):
        raise ArgumentError(f"a whole number was expected, not {shown(value)}")
    if abs(value) > _LARGEST:
        raise ArgumentError("the number is too large")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ArgumentError(f"true or false was expected, not {shown(value)}")
    return value


def number(value: Any) -> float:
    """Return a number as it is: 1 and 1.0 are written differently, and what is written is a trial's identity."""
    if not is_number(value):
        raise ArgumentError(f"a number was expected, not {shown(value)}")
    return value if isinstance(value, float) else whole(value)


def text(value: Any) -> str:
    """Return ``value`` if it is text."""
    if not isinstance(value, str):
        raise ArgumentError(f"text was expected, not {shown(value)}")
    return value


def shown(value: Any) -> str:
    """Return a value as an error shows it."""
    if isinstance(value, Mapping):
        return "a mapping"
    found = "nothing" if value is None else f"{value!r}"
    return found if len(found) <= 100 else f"{found[:97]}..."  # another file than a study's may be one long text


Options = tuple[tuple[str, Any], ...]
"""Pairs sorted by name."""


def freeze(options: Mapping[str, Any]) -> Options:
    """Return ``options`` as sorted pairs, with lists turned into tuples."""
    return tuple(sorted((name, as_options(value)) for name, value in options.items()))


def scalar(text: str, words: Mapping[str, Any] = MappingProxyType({"none": None, "true": True, "false": False})) -> Any:
    """Return what a word says: a number, one of ``words``, or the word itself."""
    for convert in (int, float):
        with contextlib.suppress(ValueError):
            return convert(text)
    return words.get(text.lower(), text)


def as_options(value: Any) -> Any:
    """Return a value in the form that options have: mappings as sorted pairs, lists as tuples, all the way down."""
    if isinstance(value, Mapping):
        return freeze(value)
    if isinstance(value, (list, tuple)):
        return tuple(as_options(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ArgumentError(f"an option must be a number, a string, None or a list of these, not {value!r}")
