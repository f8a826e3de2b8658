"""What tells one network of the user's from another: its weights, and all code of theirs that may compute with them."""

import ast
import functools
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from agileact.study.spec.activation_names import parse_activation
from agileact.study.spec.reading import Options
from agileact.study.spec.user_code import RECORDED, is_users, source_of
from agileact.study.spec.user_targets import find, target_of


def network_fingerprint(model: nn.Module, function: Callable[..., Any]) -> str:
    """Return 16 hex digits of a network and its code.

    They are of its modules and weights; of its classes and those that they inherit from; and of the modules of the
    user's from which those and the function come, with what these import of the user's. Comments and layout of code do
    not count. Of packages that are installed only the classes that the network is made of count, unless the function
    itself is of that package.
    """
    digest = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    kinds = dict.fromkeys(kind for module in model.modules() for kind in type(module).__mro__)
    own = [kind for kind in kinds if _top(kind.__module__) not in RECORDED]
    for kind in own:
        digest.update(_code(kind).encode())
    home = getattr(function, "__module__", None) or type(function).__module__
    for name in _modules([home, *(kind.__module__ for kind in own)], _top(home)):
        digest.update(f"{name}\n{_parsed(source_of(sys.modules[name]))}".encode())
    return digest.hexdigest()[:16]


def arm_fingerprint(activations: Options) -> str:
    """Return 16 hex digits of the user's own activations among these, and of their code; "" if there are none."""
    digests = []
    for _, text in activations:
        if target := target_of(str(text)):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                made = parse_activation(str(text)).build(2)
            digests.append(network_fingerprint(made, find(target, "activation")))
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16] if digests else ""


def _modules(begin: Iterable[str], package: str) -> list[str]:
    """Return the names of the user's modules among these, and of what they import, sorted."""
    found: set[str] = set()
    waiting = list(begin)
    while waiting:
        name = waiting.pop()
        if name in found or not is_users(name, package):
            continue
        found.add(name)
        for value in list(vars(sys.modules[name]).values()):
            origin = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(origin, str):
                waiting.append(origin)
    return sorted(found)


def _top(name: str) -> str:
    return name.partition(".")[0]


@functools.lru_cache(maxsize=256)
def _parsed(source: str) -> str:
    """Return code without comments and layout."""
    try:
        return ast.unparse(ast.parse(source))
    except (SyntaxError, ValueError):
        return ""


def _code(kind: type) -> str:
    try:
        return _parsed(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):
        return ""  # made by a program, with no source to look at
