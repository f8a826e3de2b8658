"""Loads the compiled CPU kernels, if they were built for this PyTorch and from these sources."""

import importlib.machinery
import importlib.util
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import torch

from agileact._common.errors import AgileactError

LIBRARIES = Path(__file__).with_name("lib")
_SOURCES = Path(__file__).resolve().parents[3] / "csrc"
_T = TypeVar("_T")
_BEFORE, _AFTER = b"AGILEACT-STAMP", b"AGILEACT-END"


class KernelError(AgileactError, RuntimeError):
    """A kernel was asked for by name and is not there; the message says why."""


@dataclass(frozen=True)
class Status:
    """What became of the compiled kernels.

    Attributes:
        loaded: Whether they serve this process.
        capability: The instruction set of the library that was loaded or tried.
        path: The library, if there is one.
        reason: Why they were not loaded; empty if they were.
    """

    loaded: bool
    capability: str
    path: str
    reason: str


def read_stamp(library: Path) -> dict[str, str]:
    """Return what a library says it was built from and for; empty if it says nothing.

    The file is read, not loaded: loading would already run its code.
    """
    content = library.read_bytes()
    start = content.find(_BEFORE)
    end = content.find(_AFTER, start)
    if start < 0 or end < 0:
        return {}
    try:
        stamp = json.loads(content[start + len(_BEFORE) : end])
    except ValueError:
        return {}
    return stamp if isinstance(stamp, dict) else {}


def refusal(stamp: dict[str, str]) -> str:
    """Return why a library with this stamp must not be loaded here; empty if it may."""
    if not stamp:
        return "it carries no stamp, so nobody knows what it was built from"
    here = {
        "torch": torch.__version__,
        "cxx11_abi": str(int(torch.compiled_with_cxx11_abi())),
        "machine": platform.machine(),
        "schema": _digest(Path(__file__).with_name("schema.py")),
    }
    if _SOURCES.is_dir():
        here["source"] = _digest(*_SOURCES.glob("*.cpp"), *_SOURCES.glob("*.h"))
    names = {
        "torch": "PyTorch",
        "cxx11_abi": "the C++ ABI",
        "machine": "the machine",
        "schema": "the operators' schema",
        "source": "the sources",
    }
    for key, value in here.items():
        if stamp.get(key) != value:
            return f"it was built for another version of {names[key]}: {stamp.get(key)}, here {value}"
    return ""


def load_binding() -> Callable[..., Any] | None:
    """Return the short way to the operator (csrc/binding.cpp), or None where ``torch.ops`` has to do.

    It is there if it was built for this version of Python, this PyTorch and from these sources.
    """
    path = LIBRARIES / f"binding{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    return _opened(path, _channels)[0] if path.exists() else None


def _channels(path: str) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location("agileact.ops.binding", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    channels: Callable[..., Any] = module.channels
    return channels


def _opened(path: Path, opener: Callable[[str], _T]) -> tuple[_T | None, str]:
    """Return what ``opener`` makes of a library, and why there is nothing; empty if there is."""
    reason = refusal(read_stamp(path))
    if reason:
        return None, reason
    try:
        return opener(str(path)), ""
    except (ImportError, OSError) as error:
        return None, f"the system cannot load it: {error}"


def _digest(*files: Path) -> str:
    total = sha256()
    for file in sorted(files):
        total.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def _candidates() -> list[str]:
    """Return the instruction sets that this process may use, the best first."""
    # ATen's own choice, which also follows ATEN_CPU_CAPABILITY.
    ours = torch.backends.cpu.get_cpu_capability()
    order = ["AVX512", "AVX2", "DEFAULT"]
    return order[order.index(ours) :] if ours in order else ["DEFAULT"]


def load() -> Status:
    """Load the library for this machine, unless it is missing, stale or foreign.

    The environment variable ``AGILEACT_KERNELS`` chooses: ``default`` leaves the compiled kernels out, ``compiled``
    makes it an error if they cannot be loaded.

    Raises:
        KernelError: If they were asked for and cannot be loaded, or the variable has another value.
    """
    wanted = os.environ.get("AGILEACT_KERNELS", "")
    if wanted not in ("", "default", "compiled"):
        raise KernelError(f"AGILEACT_KERNELS must be 'default' or 'compiled', not {wanted!r}")
    if wanted == "default":
        return Status(False, "", "", "AGILEACT_KERNELS=default leaves them out")
    status = _load()
    if wanted == "compiled" and not status.loaded:
        raise KernelError(f"AGILEACT_KERNELS=compiled, but the compiled kernels cannot be used: {status.reason}")
    return status


def _load() -> Status:
    for capability in _candidates():
        path = LIBRARIES / f"libagileact_{capability}.so"
        if not path.exists():
            continue
        _, reason = _opened(path, torch.ops.load_library)
        return Status(not reason, capability, str(path), reason)
    failure = LIBRARIES / "failed.txt"
    if failure.exists():
        return Status(False, "", "", f"the build failed: {failure.read_text().strip()}")
    others = sorted(path.stem.rpartition("_")[2] for path in LIBRARIES.glob("libagileact_*.so"))
    if others:
        reason = f"they were built for {', '.join(others)}, which this machine or ATEN_CPU_CAPABILITY rules out"
        return Status(False, "", "", f"{reason}; build them for all with: AGILEACT_BUILD_SETS=all python csrc/build.py")
    return Status(False, "", "", "they were never built; build them with: python csrc/build.py")
