"""The nearest name that exists, for errors about names that do not."""

import difflib
from collections.abc import Iterable
from typing import Any

_MOST = 50
"""So many names are listed at most: what a module of the user's holds may be hundreds."""


def suggestion(name: Any, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` with the nearest of the known names, or nothing if none is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def hint(name: Any, known: Iterable[str]) -> str:
    """Return the nearest of the known names and all of them, to be put behind what is wrong."""
    names = sorted(known)
    near = suggestion(name, names)
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"{near}{'' if near else ';'} known: {', '.join(names[:_MOST])}{more}"


def unknown(kind: str, name: Any, known: Iterable[str]) -> str:
    """Say that ``name`` is not one of ``known``, with the nearest name first.

    Example:
        >>> unknown("model", "cn", ["mlp", "cnn"])
        "unknown model 'cn'; did you mean 'cnn'? known: cnn, mlp"
    """
    return f"unknown {kind} {name!r}{hint(name, known)}"
