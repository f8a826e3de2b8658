"""Replace calls in the source of a method by calls of a child module, for one module and not for its class.

The method is compiled again from its own file with the calls exchanged, and put on a subclass of the module's class
that stands in for it under the same name. Nothing is patched, and nothing is left to do when the model runs.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import itertools
import linecache
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType
from typing import Any

from torch import nn

from agileact._errors import ArgumentError
from agileact.transforms._recording import Place


@dataclass(frozen=True)
class Edit:
    """One call in a method that becomes a call of a child.

    Attributes:
        method: The name of the method in the class.
        start: Line and column (in bytes) of the call's first character.
        stop: Those behind its last one.
        first: Those of the first character of what is activated.
        last: Those behind its last one.
        text: The call as it stands in the source: a file that has changed is noticed.
        child: The name of the child that is called instead, on the call's first argument alone.
        slot: The name of the child that is called in the source; "" for a function.
    """

    method: str
    start: tuple[int, int]
    stop: tuple[int, int]
    first: tuple[int, int]
    last: tuple[int, int]
    text: str
    child: str
    slot: str = ""


_Cut = tuple[tuple[int, int], tuple[int, int], tuple[int, int], str]


class CannotRewriteError(Exception):
    """A call cannot be exchanged; the message is the reason for a report."""


@dataclass(frozen=True)
class SourceCall:
    """A call expression in a method of a module's class.

    Attributes:
        method: The name of the method.
        node: The expression.
        argument: The expression that is activated: the first argument, or what a method is called on.
        attribute: The name of the attribute of the module that is called, or "".
        lines: The lines of the file.
    """

    method: str
    node: ast.Call
    argument: ast.expr
    attribute: str
    lines: tuple[str, ...]

    def edit(self, child: str, slot: str = "") -> Edit:
        """Return the edit that calls ``child`` instead of ``slot`` or of a function."""
        start, stop = _span(self.node)
        return Edit(self.method, start, stop, *_span(self.argument), _cut(self.lines, start, stop), child, slot)

    @property
    def alone(self) -> bool:
        """Whether the call has one argument and nothing else."""
        return len(self.node.args) == 1 and not self.node.keywords


def source_call(module: nn.Module, place: Place, names: frozenset[str]) -> SourceCall:
    """Return the call expression at a place in a method of a module.

    Args:
        module: The module whose method it is.
        place: Where the call was seen.
        names: The names a method of a tensor may have that is called there.

    Raises:
        CannotRewriteError: If the source is not there, or the call is of a kind that cannot be exchanged.
    """
    method, function = _method(type(module), place.code)
    if method in module.__dict__:
        raise CannotRewriteError(f"{method} was replaced on the module itself, by {module.__dict__[method]!r}")
    lines, tree = _source(place.code.co_filename)
    definition = _definition(tree, place.code)
    node = _call_at(definition, place)
    own = place.code.co_varnames[0]
    for one in ast.walk(definition):
        if isinstance(one, ast.Name) and one.id == own and not isinstance(one.ctx, ast.Load):
            raise CannotRewriteError(f"{method} gives {own!r} another meaning")
    argument, attribute = _argument(node, function, own, names)
    chain = _chain(_member(type(module), method))
    for wrapper, wrapped in itertools.pairwise(chain):
        if not any(_content(cell) is wrapped for cell in wrapper.__closure__ or ()):
            raise CannotRewriteError(f"{method} is decorated in a way that hides it ({wrapper.__code__.co_filename})")
    return SourceCall(method, node, argument, attribute, lines)


def _argument(node: ast.Call, function: FunctionType, own: str, names: frozenset[str]) -> tuple[ast.expr, str]:
    """Return the expression that is activated, and the attribute of the module that is called."""
    called = node.func
    attribute = ""
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == own:
        attribute = called.attr
    elif _global(called, function) is None:
        if isinstance(called, ast.Attribute) and called.attr in names and _global(called.value, function) is None:
            return called.value, ""
        raise CannotRewriteError(
            f"it is called as {ast.unparse(called)}, and what that is can change; call it by its own name"
        )
    given = [keyword.value for keyword in node.keywords if keyword.arg in ("input", "x", "tensor", "self")]
    if node.args and not isinstance(node.args[0], ast.Starred):
        return node.args[0], attribute
    if given:
        return given[0], attribute
    raise CannotRewriteError(f"the source does not say what is activated in {ast.unparse(node)}")


def _global(expression: ast.expr, function: FunctionType) -> Any:
    """Return what a dotted name of the module's file or of an enclosing function means; None if it is neither."""
    if isinstance(expression, ast.Attribute):
        value = _global(expression.value, function)
        return None if value is None or isinstance(value, nn.Module) else getattr(value, expression.attr, None)
    if not isinstance(expression, ast.Name):
        return None
    name = expression.id
    if name in function.__code__.co_freevars:
        cell = (function.__closure__ or ())[function.__code__.co_freevars.index(name)]
        return _content(cell)
    if name in function.__code__.co_varnames or name in function.__code__.co_cellvars:
        return None
    return function.__globals__.get(name)


def edited_class(cls: type[nn.Module], edits: frozenset[Edit]) -> type[nn.Module]:
    """Return the class that stands in for ``cls`` with some calls exchanged; ``cls`` itself without edits.

    Raises:
        ArgumentError: If the source has changed since the edits were made.
    """
    cls = plain_class(cls)
    key: Any = cls
    result: type[nn.Module] = _edited(key, edits) if edits else cls
    return result


def plain_class(cls: type[nn.Module]) -> type[nn.Module]:
    """Return the class that an edited class stands in for; any other class as it is."""
    return cls.__mro__[1] if "_agileact_edits" in cls.__dict__ else cls


def edits_of(cls: type[nn.Module]) -> frozenset[Edit]:
    """Return the edits of a class, none if it stands in for no other."""
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


# --- From a function to its source and back -------------------------------------------------------------------------


def _method(cls: type[nn.Module], code: CodeType) -> tuple[str, FunctionType]:
    """Return the method of a class that has this code, by name, and the innermost function."""
    for ancestor in cls.__mro__:
        for name, member in vars(ancestor).items():
            inner = _chain(member)[-1]
            if isinstance(inner, FunctionType) and inner.__code__ is code:
                if any(name in vars(nearer) for nearer in cls.__mro__[: cls.__mro__.index(ancestor)]):
                    raise CannotRewriteError(
                        f"it is in {ancestor.__name__}.{name}, which {cls.__name__} overrides and calls by super()"
                    )
                return name, inner
    raise CannotRewriteError(
        f"it is in {_qualified(code)}, which is no method of {cls.__name__} that can be found; "
        "call it in a method, or make it a module"
    )


def _member(cls: type[nn.Module], method: str) -> Any:
    return next(vars(ancestor)[method] for ancestor in cls.__mro__ if method in vars(ancestor))


def _qualified(code: CodeType) -> str:
    return str(getattr(code, "co_qualname", code.co_name))


def _chain(member: Any) -> list[Any]:
    """Return a function and what it wraps, from the outside to the inside."""
    chain = [member]
    while isinstance(chain[-1], FunctionType) and hasattr(chain[-1], "__wrapped__"):
        chain.append(chain[-1].__wrapped__)
    return chain


@functools.lru_cache(maxsize=64)
def _parsed(lines: tuple[str, ...]) -> ast.Module:
    return ast.parse("".join(lines))


def _source(filename: str) -> tuple[tuple[str, ...], ast.Module]:
    lines = tuple(linecache.getlines(filename))
    if not lines:
        raise CannotRewriteError(f"its source is not there ({filename})")
    try:
        return lines, _parsed(lines)
    except SyntaxError:
        raise CannotRewriteError(f"its source is no Python ({filename})") from None


def _definition(tree: ast.Module, code: CodeType) -> ast.FunctionDef:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first == code.co_firstlineno:
                return node
    raise CannotRewriteError(f"{_qualified(code)} is not where it should be in its file; was the file changed?")


def _call_at(definition: ast.FunctionDef, place: Place) -> ast.Call:
    calls = [node for node in ast.walk(definition) if isinstance(node, ast.Call)]
    if place.column is not None and place.end_column is not None and place.end_line is not None:
        span = (place.line, place.column), (place.end_line, place.end_column)
        found = [node for node in calls if _span(node) == span]
    else:  # Python 3.10 knows the line alone.
        found = [node for node in calls if node.lineno == place.line]
    if len(found) != 1:
        reason = "several calls stand in its line, and this Python cannot tell which" if found else "it is no call"
        raise CannotRewriteError(f"in line {place.line} of {definition.name}, {reason}")
    return found[0]


def _span(node: ast.expr) -> tuple[tuple[int, int], tuple[int, int]]:
    return (node.lineno, node.col_offset), (node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)


def _cut(lines: tuple[str, ...], start: tuple[int, int], stop: tuple[int, int]) -> str:
    r"""Return the text between two places.

    Example:
        >>> _cut(("y = f(x)\n", "z = y\n"), (1, 4), (1, 8))
        'f(x)'
    """
    chosen = [line.encode() for line in lines[start[0] - 1 : stop[0]]]
    if not chosen:
        return ""
    chosen[-1] = chosen[-1][: stop[1]]
    chosen[0] = chosen[0][start[1] :]
    return b"".join(chosen).decode(errors="replace")


def _rebuilt(cls: type[nn.Module], method: str, edits: frozenset[Edit]) -> Any:
    chain = _chain(_member(cls, method))
    function = chain[-1]
    new: Any = _compiled(function, edits)
    for wrapper, wrapped in zip(chain[-2::-1], chain[:0:-1], strict=True):
        new = _with_other(wrapper, wrapped, new)
    return new


def _with_other(wrapper: FunctionType, old: Any, new: Any) -> FunctionType:
    """Return a decorator's function with another one inside."""
    closure = tuple(CellType(new) if _content(cell) is old else cell for cell in wrapper.__closure__ or ())
    result = FunctionType(wrapper.__code__, wrapper.__globals__, wrapper.__name__, wrapper.__defaults__, closure)
    _copy_about(wrapper, result)
    result.__dict__["__wrapped__"] = new
    return result


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _compiled(function: FunctionType, edits: frozenset[Edit]) -> FunctionType:
    code = function.__code__
    lines, _ = _source(code.co_filename)
    own = code.co_varnames[0]
    cuts: list[_Cut] = []
    for edit in edits:
        if _cut(lines, edit.start, edit.stop) != edit.text:
            raise ArgumentError(
                f"{function.__qualname__} in {code.co_filename} has changed since its model was converted: "
                f"{edit.text!r} is no longer in line {edit.start[0]}; convert the model again"
            )
        # Of calls that begin together, the one that ends last is the outer one.
        rank = (-edit.stop[0], -edit.stop[1])
        cuts.append((edit.start, edit.first, rank, f"{own}.{edit.child}("))
        cuts.append((edit.last, edit.stop, rank, ")"))
    new = _replaced(lines, cuts)
    filename = f"<agileact {code.co_filename} {function.__qualname__} {_digest(edits)}>"
    linecache.cache[filename] = (len(new), None, new.splitlines(keepends=True), filename)
    compiled = compile(new, filename, "exec", dont_inherit=True)
    found = next(one for one in _codes(compiled) if _same_place(one, code))
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in found.co_freevars)
    result = FunctionType(found, function.__globals__, function.__name__, function.__defaults__, closure)
    _copy_about(function, result)
    return result


def _digest(edits: frozenset[Edit]) -> str:
    return hashlib.sha256(repr(sorted(map(repr, edits))).encode()).hexdigest()[:12]


def _same_place(one: CodeType, other: CodeType) -> bool:
    return (one.co_name, one.co_firstlineno, _qualified(one)) == (
        other.co_name,
        other.co_firstlineno,
        _qualified(other),
    )


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


def _replaced(lines: tuple[str, ...], cuts: list[_Cut]) -> str:
    r"""Return the text with pieces replaced; the line ends of a piece stay, so that all lines keep their numbers.

    Example:
        >>> _replaced(("y = f(\n", "  x)\n"), [((1, 4), (2, 2), (0, 0), "g("), ((2, 3), (2, 4), (0, 0), ")")])
        'y = g(\nx)\n'
    """
    text = [line.encode() for line in lines]
    offsets = [0]
    for line in text:
        offsets.append(offsets[-1] + len(line))
    whole = b"".join(text)
    result, position = [], 0
    for start, stop, _, replacement in sorted(cuts):
        first, last = offsets[start[0] - 1] + start[1], offsets[stop[0] - 1] + stop[1]
        result += [whole[position:first], replacement.encode()]
        # Behind the opening bracket, or before the closing one, a line may end anywhere.
        ends = b"\n" * whole[first:last].count(b"\n")
        result.insert(len(result) - (replacement == ")"), ends)
        position = last
    return b"".join([*result, whole[position:]]).decode()
