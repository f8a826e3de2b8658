"""What the user names as ``package.module:name``: functions, and activations (a class, what makes one, a function)."""

import contextlib
import copy
import functools
import importlib
import inspect
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
        raise ArgumentError(
            f"the {what} {target!r} raised {type(error).__name__}: {error} ({_place(error)})"
        ) from error


def _place(error: Exception) -> str:
    """Return file and line of an error of the user's code."""
    if isinstance(error, SyntaxError):
        place = (error.filename or "", error.lineno)
    else:
        frames = traceback.extract_tb(error.__traceback__)
        # Behind the user's own lines may come those of the interpreter's machinery of imports.
        last = next((one for one in reversed(frames) if not one.filename.startswith("<frozen")), frames[-1])
        place = (last.filename, last.lineno)
    return f"{Path(place[0]).name}, line {place[1]}"


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
    except AgileactError:
        raise
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and (module == missing or module.startswith(missing + ".")):
            raise ArgumentError(f"the {what} {target!r}: there is no module {module!r}, also not in {here}") from None
        raise ArgumentError(
            f"the {what} {target!r}: importing {module!r} raised {type(error).__name__}: {error} ({_place(error)})"
        ) from error
    function = getattr(found, name, None)
    if not callable(function):
        own = [one for one, value in vars(found).items() if callable(value) and not _imported(one, value, module)]
        public = [one for one in own if not one.startswith("_")]
        raise ArgumentError(f"the {what} {target!r}: module {module!r} has no function {name!r}{hint(name, public)}")
    return function  # type: ignore[no-any-return]


def _imported(name: str, value: Any, module: str) -> bool:
    """Return whether a module has a class or function from another package, by its own name."""
    of = getattr(value, "__module__", None) or ""
    return getattr(value, "__name__", None) == name and of.partition(".")[0] != module.partition(".")[0]


_TARGET = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*)(?::|$)")
_CHANNELS = ("num_parameters", "channels", "num_channels", "num_features", "features")
"""An argument of this name is given the number of channels."""


def target_of(text: str) -> str:
    """Return the user's target in an activation's name; "" if the name is one of this package's."""
    found = _TARGET.match(text)
    return found[1] if found else ""


class UserActivation(nn.Module):
    """What the user named, in the place of an activation: y = f(x), of the shape of x.

    ``axis`` is the channel axis, if the function knows how many channels there are, but not where. Where the last of
    three axes or more holds them, it sees (rows, channels): channels are the second axis and the last.
    """

    def __init__(self, target: str, function: Callable[..., Any], axis: int | None = None) -> None:
        super().__init__()
        self.target = target
        self.function = function
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x); an ArgumentError if that is no tensor of the same shape."""
        rows = x.ndim > 2 and self.axis in (-1, x.ndim - 1)
        seen = x.flatten(0, -2) if rows else x
        result = self.function(seen)
        if not isinstance(result, Tensor) or result.shape != seen.shape:
            given = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ArgumentError(
                f"the activation {self.target!r} made {given} of {tuple(seen.shape)}; it must keep the shape"
            )
        return result.reshape(x.shape) if rows else result

    def extra_repr(self) -> str:
        """Show what was named."""
        return self.target


def channels_argument(target: str) -> str | None:
    """Return the name of the argument by which the user's class or function asks for channels, if it does."""
    found = find(target, "activation")
    named = next((name for name in arguments(found) or {} if name in _CHANNELS), None)
    needed = [name for name in required(found) if name != "dim"]
    if named is None and isinstance(found, type) and len(needed) == 1:
        return needed[0]  # the one thing that a module's class must be told
    return named


def build_activation(target: str, channels: int, dim: int, options: Mapping[str, Any]) -> UserActivation:
    """Return the user's activation for so many channels along an axis.

    A class, a function without required arguments, and one that asks for channels make the activation; any other
    function is the activation. A module that is named itself is copied.
    """
    found = find(target, "activation")
    signature, asks = arguments(found), channels_argument(target)
    parameters = signature or {}
    if isinstance(found, nn.Module):
        if options:
            raise ArgumentError(f"the activation {target!r} is a module already and takes no options")
        return UserActivation(target, copy.deepcopy(found))
    if not (isinstance(found, type) or asks or (signature is not None and not required(found))):
        wrong = [name for name in options if parameters and name not in parameters]
        if wrong:
            raise ArgumentError(f"the activation {target!r} takes no {wrong[0]}, only {', '.join(parameters)}")
        return UserActivation(target, functools.partial(found, **options) if options else found)
    given = {**({asks: channels} if asks else {}), **({"dim": dim} if "dim" in parameters else {}), **options}
    try:
        made = found(**given)
    except AgileactError:
        raise
    except Exception as error:
        told = ", ".join(f"{name}={value!r}" for name, value in given.items()) or "no arguments"
        raise ArgumentError(
            f"the activation {target!r} cannot be made with {told}: {type(error).__name__}: {error}"
        ) from error
    if not callable(made):
        raise ArgumentError(f"the activation {target!r} made a {type(made).__name__}, which is no module or function")
    return UserActivation(target, made, dim if asks and "dim" not in parameters else None)


def learns(target: str, options: Mapping[str, Any]) -> bool:
    """Return whether the user's activation has parameters that learn."""
    with torch.random.fork_rng(devices=[]):
        return any(parameter.requires_grad for parameter in build_activation(target, 1, 1, options).parameters())
