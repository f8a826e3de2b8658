"""Docstrings are written for a terminal and for Sphinx's roles; on the site they are Markdown."""

from __future__ import annotations

import html
import re
import textwrap
from typing import Any

import griffe

_ROLE = re.compile(r":(?:py:)?(class|func|meth|mod|attr|exc|data|obj):`([^`]+)`")
_MATH = re.compile(r":math:`([^`]+)`")
_MATH_BLOCK = re.compile(r"^( *)\.\. math::(.*)\n((?:(?:\1 +\S.*)?\n)*)", re.MULTILINE)
_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


def to_markdown(text: str, resolve: Any = None) -> str:
    """Return a docstring with roles as links and formulas, and its example under the heading that Griffe knows.

    Args:
        text: The docstring.
        resolve: Makes a full name of a name as the docstring has it, or raises an exception.
    """

    def link(found: re.Match[str]) -> str:
        target = found[2]
        short = target.startswith("~")
        target = target.removeprefix("~")
        shown = target.rpartition(".")[2] if short else target
        if found[1] in ("func", "meth"):
            shown += "()"
        shown = f"<code>{html.escape(shown)}</code>"
        name = target
        if resolve is not None and not target.startswith("agileact"):
            try:
                name = resolve(target)
            except Exception:  # a name of another package: shown, and no link
                return shown
        # Optional: what has no entry in the reference is shown without a link.
        return f'<autoref identifier="{name}" optional>{shown}</autoref>' if name.startswith("agileact") else shown

    def block(found: re.Match[str]) -> str:
        indent, first, rest = found.groups()
        formula = " ".join([first.strip(), *textwrap.dedent(rest).split("\n")]).strip()
        return f"\n{indent}$${formula}$$\n\n"

    text = _MATH_BLOCK.sub(block, text + "\n").rstrip()
    text = _MATH.sub(lambda found: f"${found[1]}$", text)
    return _EXAMPLE.sub("Examples:", _ROLE.sub(link, text))


class Roles(griffe.Extension):
    """Griffe calls this for each object that it reads."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value, obj.resolve)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Let ``agileact.fold`` be the function, as in Python: Griffe takes the folder of the same name."""
        for module in (pkg, *pkg.modules.values()):
            for name, member in list(module.members.items()):
                if member.is_alias and (found := _function(member)) is not None:
                    module.set_member(name, griffe.Alias(name, found, parent=module))


def _function(alias: Any) -> Any:
    """Return the function that has the name of the module to which an alias leads; None for any other alias."""
    try:
        found = alias.final_target
    except griffe.AliasResolutionError:  # a name of another package
        return None
    module = found.is_module
    while found.is_module and found.name in found.members:
        found = found.members[found.name]
    return found if module and found.is_function else None
