"""Functions of the user's, named as ``package.module:function``."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agileact._common.errors import AgileactError, ArgumentError
from agileact._common.names import hint


def call(target: str, what: str, seed: int | None = None) -> Any:
    """Call the function that ``target`` names, without arguments, and return what it returns.

    Args:
        target: As ``package.module:function``.
        what: What it is for, in errors.
        seed: Where the random numbers of torch, numpy and Python begin that the function draws; the streams of the
            caller are then left alone. None leaves it to the function.

    Raises:
        ArgumentError: If there is no such function, or it asks for arguments, or it fails.

    Example:
        >>> call("math:sqrt", "model")
        Traceback (most recent call last):
        ...
        agileact.ArgumentError: the model 'math:sqrt' must be had without arguments, but it asks for x
    """
    function = find(target, what)
    asked = ""
    with contextlib.suppress(ValueError, TypeError):  # which say that there is no signature to look at
        needed = [one for one in inspect.signature(function).parameters.values() if one.default is one.empty]
        asked = ", ".join(one.name for one in needed if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD))
    if asked:
        raise ArgumentError(f"the {what} {target!r} must be had without arguments, but it asks for {asked}")
    try:
        # Its module was imported before: what that draws or seeds comes once in a process and must not shift the rest.
        with contextlib.nullcontext() if seed is None else seeded(seed):
            return function()
    except AgileactError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ArgumentError(
            f"the {what} {target!r} raised {type(error).__name__}: {error} ({Path(last.filename).name}, line "
            f"{last.lineno})"
        ) from error


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let the global random streams begin at ``seed`` within a block, and go on behind it as if it had not been."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002


def find(target: str, what: str) -> Callable[..., Any]:
    """Return the function that ``target`` names; modules are looked for in the working directory too.

    Args:
        target: As ``package.module:function``.
        what: What it is for, in errors.

    Raises:
        ArgumentError: If there is no such module or function.

    Example:
        >>> find("math:sqrt", "model")(4.0)
        2.0
        >>> find("math:sqr", "model")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        agileact.ArgumentError: the model 'math:sqr': module 'math' has no function 'sqr'; did you...
    """
    module, colon, name = target.partition(":")
    if not colon or not module or not name:
        raise ArgumentError(f"the {what} must be named as package.module:function, not {target!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module that is missing inside the user's own is the user's to see as it is.
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise ArgumentError(f"the {what} {target!r}: there is no module {module!r}, also not in {here}") from None
    function = getattr(found, name, None)
    if not callable(function):
        public = [one for one in vars(found) if not one.startswith("_") and callable(getattr(found, one))]
        raise ArgumentError(f"the {what} {target!r}: module {module!r} has no function {name!r}{hint(name, public)}")
    return function  # type: ignore[no-any-return]
