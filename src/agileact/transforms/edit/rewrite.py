"""Replace calls in the source of a method by calls of a child module, for one module and not for its class.

The method is compiled again from its own file with the calls exchanged. It is put on a subclass of the module's class
that replaces it under the same name. Nothing is patched, and nothing is left to do when the model runs.
"""

import ast
import functools
import hashlib
import linecache
import types
from collections.abc import Callable, Iterator
from types import CellType, CodeType, FunctionType
from typing import Any

from torch import nn

from agileact._common.errors import ArgumentError
from agileact.transforms.edit.source import (
    REWRITTEN,
    Edit,
    content,
    cut,
    definition_of,
    entry_of,
    member_of,
    offsets_of,
    qualified,
    source_of,
    span_of,
    wrapping,
)

_Cut = tuple[tuple[int, int], tuple[int, int], tuple[int, int], str]


def edited_class(cls: type[nn.Module], edits: frozenset[Edit]) -> type[nn.Module]:
    """Return the class that replaces ``cls`` with some calls exchanged; ``cls`` itself without edits."""
    cls = plain_class(cls)
    key: Any = cls
    result: type[nn.Module] = _edited(key, edits) if edits else cls
    return result


def plain_class(cls: type[nn.Module]) -> type[nn.Module]:
    """Return the class that an edited class replaces; any other class as it is."""
    return cls.__mro__[1] if "_agileact_edits" in cls.__dict__ else cls


def edits_of(cls: type[nn.Module]) -> frozenset[Edit]:
    """Return the edits of a class, none if it replaces no other."""
    edits: frozenset[Edit] = cls.__dict__.get("_agileact_edits", frozenset())
    return edits


@functools.cache
def _edited(cls: type[nn.Module], edits: frozenset[Edit]) -> type[nn.Module]:
    members: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__reduce_ex__": _reduce_ex,
        "_agileact_edits": edits,
    }
    for method in sorted({edit.method for edit in edits}):
        chosen = frozenset(edit for edit in edits if edit.method == method)
        members[method] = _rebuilt(cls, method, chosen)
    metaclass: Any = type(cls)
    result: type[nn.Module] = metaclass(cls.__name__, (cls,), members)
    return result


def _reduce_ex(self: nn.Module, protocol: Any) -> Any:
    # A class that exists in no file cannot be found by its name: what is stored is how to make it again.
    cls = next(one for one in type(self).__mro__ if "_agileact_edits" in one.__dict__)
    reduced: Any = super(cls, self).__reduce_ex__(protocol)  # type: ignore[arg-type]
    function, args, *rest = reduced
    plain = tuple(plain_class(cls) if one is cls else one for one in args)
    return (_remade, (function, plain, edits_of(cls)), *rest)


def _remade(function: Callable[..., nn.Module], args: tuple[Any, ...], edits: frozenset[Edit]) -> nn.Module:
    module = function(*args)
    module.__class__ = edited_class(type(module), edits)
    return module


def _rebuilt(cls: type[nn.Module], method: str, edits: frozenset[Edit]) -> Any:
    chain = wrapping(member_of(cls, method))
    function = chain[-1]
    assert isinstance(function, FunctionType)
    new: Any = _compiled(function, edits)
    for wrapper, wrapped in zip(chain[-2::-1], chain[:0:-1], strict=True):
        new = _with_other(wrapper, wrapped, new)
    return new


def _with_other(wrapper: FunctionType, old: Any, new: Any) -> FunctionType:
    """Return a decorator's function with another one inside."""
    closure = tuple(CellType(new) if content(cell) is old else cell for cell in wrapper.__closure__ or ())
    result = FunctionType(wrapper.__code__, wrapper.__globals__, wrapper.__name__, wrapper.__defaults__, closure)
    _copy_about(wrapper, result)
    result.__dict__["__wrapped__"] = new
    return result


def _compiled(function: FunctionType, edits: frozenset[Edit]) -> FunctionType:
    code = function.__code__
    lines, tree = source_of(code.co_filename)
    own = code.co_varnames[0]
    cuts: list[_Cut] = []
    for edit in edits:
        pieces = ((edit.start, edit.stop, edit.text), *edit.unused)
        if any(cut(lines, start, stop) != text for start, stop, text in pieces):
            raise ArgumentError(
                f"{function.__qualname__} in {code.co_filename} has changed since its model was converted: "
                f"{edit.text!r} is no longer in line {edit.start[0]}; convert the model again"
            )
        # Of calls that begin together, the one that ends last is the outer one.
        rank = (-edit.stop[0], -edit.stop[1])
        count = f"agile_turn_{edit.child}"
        called = f"{edit.child}[({count} := {count} + 1)]" if edit.turns else edit.child
        if edit.name:
            cuts += [(edit.start, edit.stop, rank, f"{own}.{called}("), (edit.stop, edit.stop, rank, f"{edit.name})")]
        else:
            cuts += [(edit.start, edit.first, rank, f"{own}.{called}("), (edit.last, edit.stop, rank, ")")]
        for start, stop, _ in edit.unused:
            cuts += [(start, stop, rank, "(None"), (stop, stop, rank, ")")]
    counts = sorted(f"agile_turn_{edit.child}" for edit in edits if edit.turns)
    if counts:
        cuts += _counting(definition_of(tree, code), counts)
    new, joints = _replaced(lines, cuts)
    filename = f"<agileact {code.co_filename} {function.__qualname__} {_digest(edits)}>"
    REWRITTEN[filename] = code.co_filename, offsets_of(lines), offsets_of(tuple(new.splitlines(keepends=True))), joints
    linecache.cache[filename] = (len(new), None, new.splitlines(keepends=True), filename)
    compiled = compile(new, filename, "exec", dont_inherit=True)
    found = next(one for one in _codes(compiled) if _same_place(one, code))
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in found.co_freevars)
    result = FunctionType(found, function.__globals__, function.__name__, function.__defaults__, closure)
    _copy_about(function, result)
    return result


def _counting(definition: ast.FunctionDef, counts: list[str]) -> list[_Cut]:
    """Return what sets counters to -1 once at the start of a method."""
    entry = entry_of(definition)
    first = (-(definition.end_lineno or 0) - 1, 0)  # before all that begins in the same place
    if isinstance(entry, ast.expr):
        start, stop = span_of(entry)
        begin = "".join(f"[{count} := -1] and " for count in counts)
        return [(start, start, first, f"({begin}("), (stop, stop, (1, 0), "))")]
    assert entry is not None
    text = "; ".join(f"{count} = -1" for count in counts)
    docstring = entry != (definition.body[0].lineno, definition.body[0].col_offset)
    return [(entry, entry, first, f"; {text}" if docstring else f"{text}; ")]


def _digest(edits: frozenset[Edit]) -> str:
    return hashlib.sha256(repr(sorted(map(repr, edits))).encode()).hexdigest()[:12]


def _same_place(one: CodeType, other: CodeType) -> bool:
    return (one.co_name, one.co_firstlineno, qualified(one)) == (other.co_name, other.co_firstlineno, qualified(other))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _copy_about(old: FunctionType, new: FunctionType) -> None:
    new.__kwdefaults__ = old.__kwdefaults__
    new.__annotations__ = dict(old.__annotations__)
    new.__dict__.update(old.__dict__)
    new.__doc__ = old.__doc__
    new.__module__ = old.__module__
    new.__qualname__ = old.__qualname__


def _replaced(lines: tuple[str, ...], cuts: list[_Cut]) -> tuple[str, list[tuple[int, int]]]:
    r"""Return the text with pieces replaced; the line ends of a piece stay, so that all lines keep their numbers.

    With it come the offsets where pieces begin and end, in the new text and in the old one.

    Example:
        >>> _replaced(("y = f(\n", "  x)\n"), [((1, 4), (2, 2), (0, 0), "g("), ((2, 3), (2, 4), (0, 0), ")")])
        ('y = g(\nx)\n', [(0, 0), (4, 4), (7, 9), (8, 10), (9, 11)])
    """
    offsets = offsets_of(lines)
    whole = "".join(lines).encode()
    result, position, length = [], 0, 0
    joints = [(0, 0)]
    for start, stop, _, replacement in sorted(cuts):
        first, last = offsets[start[0] - 1] + start[1], offsets[stop[0] - 1] + stop[1]
        ends = "\n" * whole[first:last].count(b"\n")
        # Behind the opening bracket, or before the closing one, a line may end anywhere.
        piece = ends + replacement if replacement == ")" else replacement + ends
        result += [whole[position:first], piece.encode()]
        length += first - position
        joints.append((length, first))
        length += len(piece.encode())
        joints.append((length, last))
        position = last
    return b"".join([*result, whole[position:]]).decode(), joints
