"""Where expressions stand, for Python 3.10, whose code knows the lines of its instructions alone.

The file is compiled once more with a line of its own for each expression. The instructions are the same, and their
lines tell the expressions that they belong to.
"""

import ast
import functools
import linecache
from collections.abc import Iterator
from opcode import opmap
from types import CodeType

Span = tuple[int | None, int | None, int | None, int | None]
"""Line and last line, first and last column."""
_PADDING = {opmap["NOP"], opmap["EXTENDED_ARG"]}  # which depend on lines, and on what else is in the code


@functools.lru_cache(maxsize=1024)
def positions(code: CodeType) -> list[Span]:
    """Return the span of the expression that each instruction of a code object belongs to; an empty list if unknown."""
    lines = tuple(linecache.getlines(code.co_filename))
    try:
        twins, spans = _numbered(lines)
    except (SyntaxError, ValueError):
        return []
    kept = _instructions(code)
    found: list[list[Span]] = []
    for twin in twins:
        first = spans.get(twin.co_firstlineno, (twin.co_firstlineno,))[0]
        others = _instructions(twin)
        if (twin.co_name, first) != (code.co_name, code.co_firstlineno) or kept.keys() != others.keys():
            continue
        if all(kept[key][1] == others[key][1] for key in kept):
            numbers = {
                start // 2 + step: line for start, stop, line in twin.co_lines() for step in range((stop - start) // 2)
            }
            made: list[Span] = [(None, None, None, None)] * (len(code.co_code) // 2)
            for key, (place, _) in kept.items():
                made[place] = spans.get(numbers.get(others[key][0]) or 0, (None, None, None, None))
            found.append(made)
    return found[0] if len(found) == 1 else []


def _instructions(code: CodeType) -> dict[int, tuple[int, int]]:
    """Return place and operation of each instruction that does something, by its number among these."""
    operations = code.co_code[::2]
    return dict(enumerate((place, one) for place, one in enumerate(operations) if one not in _PADDING))


@functools.lru_cache(maxsize=64)
def _numbered(lines: tuple[str, ...]) -> tuple[list[CodeType], dict[int, Span]]:
    """Return the code of a text in which each expression has a line of its own, and the spans by that line."""
    tree = ast.parse("".join(lines))
    apart = {id(one) for node in ast.walk(tree) for one in getattr(node, "decorator_list", ())}  # they begin a function
    spans: dict[int, Span] = {}
    # What is inside has the smaller number: the end of a method's name is the line of its call.
    for node in reversed(list(ast.walk(tree))):
        # Names stay in their lines: the compiler exchanges assignments to names that are in one line.
        if isinstance(node, ast.expr) and id(node) not in apart and not isinstance(node, (ast.Name, ast.Tuple)):
            number = len(lines) + 2 + len(spans)
            spans[number] = node.lineno, node.end_lineno, node.col_offset, node.end_col_offset
            node.lineno = node.end_lineno = number
            node.col_offset = node.end_col_offset = 0
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                node.func.end_lineno = number
    return list(_codes(compile(tree, "<numbered>", "exec", dont_inherit=True))), spans


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
