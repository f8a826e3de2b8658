"""Functions of the user's, named as ``package.module:function``."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agileact._common.errors import AgileactError, ArgumentError
from agileact._common.names import hint


def call(target: str, what: str, seed: int | None = None) -> Any:
    """Call the function that ``target`` names, without arguments, and return what it returns.

    ``what`` says in errors what it is for. With a seed the random numbers of torch, numpy and Python that the function
    draws begin there, and the streams of the caller are left alone.
    """
    function = find(target, what)
    if asked := required(function):
        raise ArgumentError(f"the {what} {target!r} must be had without arguments, but it asks for {', '.join(asked)}")
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


def arguments(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """Return what may be given by name; None for what is written in C, of which nobody knows."""
    with contextlib.suppress(ValueError, TypeError):
        found = inspect.signature(function).parameters.items()
        return {name: one for name, one in found if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    return None


def required(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that must be given."""
    return [name for name, one in (arguments(function) or {}).items() if one.default is one.empty]


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
    """Return the function that ``target``, ``package.module:function``, names, also of the working directory."""
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
