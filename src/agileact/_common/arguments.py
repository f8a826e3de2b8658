"""Values of the command line: each function parses one kind, and an error says what would be right."""

import argparse
import contextlib
import functools
from collections.abc import Callable
from typing import TypeVar

_Value = TypeVar("_Value")


def parser_of(what: str) -> Callable[[Callable[[str], _Value]], Callable[[str], _Value]]:
    """Turn a parsing function's ValueError into argparse's error that says what would be right."""

    def decorate(parse: Callable[[str], _Value]) -> Callable[[str], _Value]:
        def parsed(text: str) -> _Value:
            with contextlib.suppress(ValueError):
                return parse(text)
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")

        return parsed

    return decorate


def _at_least(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise ValueError
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


count = parser_of("a whole number greater than 0")(functools.partial(_at_least, 1))
seed = parser_of("a whole number, 0 or greater")(functools.partial(_at_least, 0))
rate = parser_of("a learning rate greater than 0")(_positive)
difference = parser_of("a difference greater than 0, such as 0.01")(_positive)


@parser_of("a list of whole numbers greater than 0, such as 16,8,4, or none")
def sizes(text: str) -> tuple[int, ...]:
    """Parse sizes of layers; "none" is no layer."""
    found = () if text == "none" else tuple(int(part) for part in text.split(","))
    if any(size < 1 for size in found):
        raise ValueError
    return found


@parser_of("a list of names, such as relu,agile-relu")
def names(text: str) -> tuple[str, ...]:
    """Parse names behind commas; one that occurs twice is there once."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise ValueError
    return tuple(dict.fromkeys(found))


@parser_of("a port: a whole number from 0 to 65535")
def port(text: str) -> int:
    """Parse the number of a port."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


_MOST_SEEDS = 10_000
_LARGEST_SEED = 2**63 - 1
"""What a store can hold, and PyTorch take."""


@parser_of(f"a number of seeds (5), a list (0,3,7) or a range (0-4), at most {_MOST_SEEDS:,} seeds below 2^63")
def seeds(text: str) -> tuple[int, ...]:
    """Parse how many seeds, or which."""
    first, dash, last = text.partition("-")
    if not dash and "," in text:
        found = tuple(dict.fromkeys(int(part) for part in text.split(",") if part))
    else:
        low, high = (int(first), int(last)) if dash else (0, int(text) - 1)
        # Before a range is made: one of a mistyped number would not fit into memory.
        found = tuple(range(low, high + 1)) if high - low < _MOST_SEEDS else ()
    if not found or min(found) < 0 or max(found) > _LARGEST_SEED or len(found) > _MOST_SEEDS:
        raise ValueError
    return found
