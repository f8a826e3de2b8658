"""Find the call in the source of a method that a recording saw."""

import ast
import bisect
import functools
import itertools
import linecache
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType
from typing import Any

from torch import nn

from agileact.transforms.trace.recording import Place


@dataclass(frozen=True)
class Edit:
    """One call in a method that becomes a call of a child; places are lines and columns in bytes."""

    method: str
    start: tuple[int, int]
    stop: tuple[int, int]
    first: tuple[int, int]  # of what is activated
    last: tuple[int, int]
    text: str  # the call as it stands in the source: a file that has changed is noticed
    child: str
    slot: str = ""  # the child that is called in the source
    turns: bool = False  # the child is a list, of which each call in a run of the method takes the next
    name: str = ""  # what is activated, if it is a variable that does not stand there
    unused: tuple[tuple[tuple[int, int], tuple[int, int], str], ...] = ()  # expressions that nothing needs any more


class CannotRewriteError(Exception):
    """A call cannot be exchanged; the message is the reason for a report."""


@dataclass(frozen=True)
class Method:
    """A method of a module's class whose text can be changed."""

    name: str
    function: FunctionType
    definition: ast.FunctionDef
    lines: tuple[str, ...]
    own: str  # its first argument


@dataclass(frozen=True)
class SourceCall:
    """A call, or another expression, in a method of a module's class."""

    method: Method
    node: ast.expr
    argument: ast.expr  # what is activated: the first argument, or what a method is called on
    attribute: str = ""  # of the module, if one is called
    steps: tuple[ast.expr, ...] = ()  # of earlier statements, that only the expression needs

    def edit(self, child: str, slot: str = "", turns: bool = False) -> Edit:
        """Return the edit that calls ``child``, or the next of it, instead of ``slot`` or of a function."""
        start, stop = span_of(self.node)
        text = cut(self.method.lines, start, stop)
        first, last = span_of(self.argument)
        outside = isinstance(self.argument, ast.Name) and not (start <= first and last <= stop)
        name = self.argument.id if isinstance(self.argument, ast.Name) and outside else ""
        unused = tuple((*span_of(step), cut(self.method.lines, *span_of(step))) for step in self.steps)
        return Edit(self.method.name, start, stop, first, last, text, child, slot, turns, name, unused)

    @property
    def countable(self) -> bool:
        """Whether the runs of the call in one run of its method can be counted."""
        inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
        nested = (
            one
            for one in ast.walk(self.method.definition)
            if isinstance(one, inner) and one is not self.method.definition
        )
        within = any(part is self.node for one in nested for part in ast.walk(one))
        return not within and entry_of(self.method.definition) is not None

    @property
    def alone(self) -> bool:
        """Whether the call has one argument and nothing else."""
        return isinstance(self.node, ast.Call) and len(self.node.args) == 1 and not self.node.keywords


def source_call(module: nn.Module, place: Place, names: frozenset[str], made: bool = False) -> SourceCall:
    """Return the call expression at a place in a method of a module, where one of these names is called.

    What is called may also be ``made``: a module that is made there, or taken from a list or a dict.
    """
    method = method_at(module, place)
    node = _call_at(method.definition, before_edits(place), module, names)
    function = method.function
    argument, attribute = (node.args[0], "") if made and node.args else _argument(node, function, method.own, names)
    return SourceCall(method, node, argument, attribute)


def method_at(module: nn.Module, place: Place) -> Method:
    """Return the method of a module in which a place is, if it can be given another text."""
    method, function = _method(type(module), place.code)
    if method in module.__dict__:
        raise CannotRewriteError(f"{method} was replaced on the module itself, by {module.__dict__[method]!r}")
    if hasattr(type(module), "__deepcopy__"):
        raise CannotRewriteError(
            f"{type(module).__name__} has its own way of being copied, which would lose the change"
        )
    lines, tree = source_of(original_file(place.code))
    definition = definition_of(tree, place.code)
    own = place.code.co_varnames[0]
    meanings = [one.arg for one in ast.walk(definition) if isinstance(one, ast.arg)]
    meanings += [one.id for one in ast.walk(definition) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]
    if meanings.count(own) > 1:
        raise CannotRewriteError(f"{method} gives {own!r} another meaning")
    chain = wrapping(member_of(type(module), method))
    for wrapper, wrapped in itertools.pairwise(chain):
        if not any(content(cell) is wrapped for cell in wrapper.__closure__ or ()):
            raise CannotRewriteError(f"{method} is decorated in a way that hides it ({wrapper.__code__.co_filename})")
    return Method(method, function, definition, lines, own)


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


def entry_of(definition: ast.FunctionDef) -> tuple[int, int] | ast.expr | None:
    """Return where a statement can be put that runs once at the start of a method, or what is evaluated first there.

    None if there is no such place, as in a method that begins with ``while`` or ``try``.
    """
    first = definition.body[0]
    doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    if doc and len(definition.body) > 1:
        return first.end_lineno or first.lineno, first.end_col_offset or 0
    if isinstance(first, ast.For):
        return first.iter
    if isinstance(first, ast.If):
        return first.test
    if isinstance(first, ast.With):
        return first.items[0].context_expr
    compound = (ast.While, ast.Try, ast.FunctionDef, ast.ClassDef, ast.AsyncFor, ast.AsyncWith)
    if isinstance(first, compound) or getattr(first, "cases", None) is not None:
        return None
    return first.lineno, first.col_offset


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
        return content(cell)
    if name in function.__code__.co_varnames or name in function.__code__.co_cellvars:
        return None
    return function.__globals__.get(name)


# --- Source ---


def _method(cls: type[nn.Module], code: CodeType) -> tuple[str, FunctionType]:
    """Return the method of a class that has this code, by name, and the innermost function."""
    for ancestor in cls.__mro__:
        for name, member in vars(ancestor).items():
            inner = wrapping(member)[-1]
            if isinstance(inner, FunctionType) and inner.__code__ is code:
                if any(name in vars(nearer) for nearer in cls.__mro__[: cls.__mro__.index(ancestor)]):
                    raise CannotRewriteError(
                        f"it is in {ancestor.__name__}.{name}, which {cls.__name__} overrides and calls by super()"
                    )
                return name, inner
    raise CannotRewriteError(
        f"it is in {qualified(code)}, which is no method of {cls.__name__} that can be found; "
        "call it in a method, or make it a module"
    )


def member_of(cls: type[nn.Module], method: str) -> Any:
    """Return what a class holds under a method's name, as it is written there: also a descriptor."""
    return next(vars(ancestor)[method] for ancestor in cls.__mro__ if method in vars(ancestor))


def qualified(code: CodeType) -> str:
    """Return the qualified name of a function's code, as far as this Python keeps it."""
    return str(getattr(code, "co_qualname", code.co_name))


def wrapping(member: Any) -> list[Any]:
    """Return a function and what it wraps, from the outside to the inside."""
    chain = [member]
    while isinstance(chain[-1], FunctionType) and hasattr(chain[-1], "__wrapped__"):
        chain.append(chain[-1].__wrapped__)
    return chain


@functools.lru_cache(maxsize=64)
def _parsed(lines: tuple[str, ...]) -> ast.Module:
    return ast.parse("".join(lines))


def source_of(filename: str) -> tuple[tuple[str, ...], ast.Module]:
    """Return a file's lines and their syntax tree."""
    lines = tuple(linecache.getlines(filename))
    if not lines:
        raise CannotRewriteError(f"its source is not available ({filename})")
    try:
        return lines, _parsed(lines)
    except SyntaxError:
        raise CannotRewriteError(f"its source is not Python ({filename})") from None


def definition_of(tree: ast.Module, code: CodeType) -> ast.FunctionDef:
    """Return the definition of a method in the syntax tree of its file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first == code.co_firstlineno:
                return node
    raise CannotRewriteError(f"{qualified(code)} is not where it should be in its file; was the file changed?")


def _call_at(definition: ast.FunctionDef, place: Place, module: nn.Module, names: frozenset[str]) -> ast.Call:
    calls = [node for node in ast.walk(definition) if isinstance(node, ast.Call)]
    if place.column is not None and place.end_column is not None and place.end_line is not None:
        span = (place.line, place.column), (place.end_line, place.end_column)
        found = [node for node in calls if span in (span_of(node), _span_of_attribute(node))]
    else:  # Where the line alone is known, the name must tell which call it is.
        found = [node for node in calls if node.lineno == place.line and _may_be(node.func, module, names)]
    if len(found) != 1:
        reason = "several calls stand in its line, and this Python cannot tell which" if found else "it is no call"
        raise CannotRewriteError(f"in line {place.line} of {definition.name}, {reason}")
    return found[0]


def _may_be(called: ast.expr, module: nn.Module, names: frozenset[str]) -> bool:
    """Return whether a function or module of one of these names, or one in an attribute, may be called by this."""
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    kept = module.__dict__.get(name)
    return name in names or getattr(getattr(kept, "func", kept), "__name__", "") in names


def span_of(node: ast.expr) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return where an expression begins and ends: lines, and columns in bytes."""
    return (node.lineno, node.col_offset), (node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)


def _span_of_attribute(node: ast.Call) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the span that Python gives to a call of a method whose name is not in the line where the call begins."""
    called = node.func
    if not isinstance(called, ast.Attribute) or called.end_lineno == node.lineno:
        return None
    start, stop = span_of(called)[1], span_of(node)[1]
    return (start[0], start[1] - len(called.attr)), stop


def cut(lines: tuple[str, ...], start: tuple[int, int], stop: tuple[int, int]) -> str:
    """Return the text between two places."""
    chosen = [line.encode() for line in lines[start[0] - 1 : stop[0]]]
    if not chosen:
        return ""
    chosen[-1] = chosen[-1][: stop[1]]
    chosen[0] = chosen[0][start[1] :]
    return b"".join(chosen).decode(errors="replace")


def content(cell: CellType) -> Any:
    """Return what a closure's cell holds; None for an empty one."""
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


# --- Methods that were rewritten before ---

# For the name of a rewritten text: the file, offsets of the lines before and after, and where pieces were replaced.
REWRITTEN: dict[str, tuple[str, list[int], list[int], list[tuple[int, int]]]] = {}


def original_file(code: CodeType) -> str:
    """Return the file that a method is from, also if it was rewritten."""
    entry = REWRITTEN.get(code.co_filename)
    return code.co_filename if entry is None else entry[0]


def before_edits(place: Place) -> Place:
    """Return where in its file a call stands that was seen in a rewritten method."""
    entry = REWRITTEN.get(place.code.co_filename)
    if entry is None or place.column is None or place.end_column is None or place.end_line is None:
        return place
    _, before, after, joints = entry

    def moved(line: int, column: int) -> tuple[int, int]:
        offset = after[line - 1] + column
        new, old = max(joint for joint in joints if joint[0] <= offset)
        offset += old - new
        row = bisect.bisect_right(before, offset) - 1
        return row + 1, offset - before[row]

    start, stop = moved(place.line, place.column), moved(place.end_line, place.end_column)
    return Place(place.code, start[0], stop[0], start[1], stop[1])


def offsets_of(lines: tuple[str, ...]) -> list[int]:
    """Return the offset in bytes at which each line begins."""
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line.encode()))
    return offsets
