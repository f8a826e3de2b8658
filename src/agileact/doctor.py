"""What runs here and why: versions, the processor, which kernel serves what, and how to get the faster one."""

import contextlib
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from agileact import bases, ops
from agileact._common.machine import versions
from agileact._common.terminal import print_json, print_table
from agileact.ops.fused import FUSED

DTYPES = ("float32", "float64", "bfloat16", "float16")
# What the default kernels cost, forward and backward against the plain activation: benchmarks/results/op.json.
_COST = "without them an agile activation takes about 3 to 6 times as long as the plain one, instead of about as long"


def report() -> dict[str, Any]:
    """Return everything that ``agileact doctor`` prints.

    Example:
        >>> from agileact import doctor
        >>> sorted(doctor.report())
        ['advice', 'kernels', 'libraries', 'processor', 'versions']
    """
    return {
        "versions": {**versions(), "triton": _version("triton"), "cuda": torch.version.cuda},
        "processor": {
            "machine": platform.machine(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "gpus": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        },
        "libraries": {
            "cpu": {
                "loaded": ops.CPU.loaded,
                **{name: getattr(ops.CPU, name) or None for name in ("capability", "path", "reason")},
            },
        },
        "kernels": kernels(),
        "advice": advice(),
    }


def kernels() -> list[dict[str, str]]:
    """Return which kernel serves each base function, dtype and device."""
    rows = []
    for base in bases.names():
        for device in ("cpu", "cuda"):
            for dtype in DTYPES:
                kernel, note = _kernel(base, device, dtype)
                rows.append({"base": base, "device": device, "dtype": dtype, "kernel": kernel, "note": note})
    return rows


def _kernel(base: str, device: str, dtype: str) -> tuple[str, str]:
    if base not in FUSED:
        return "default", "not fused: several passes over memory"
    if device == "cuda":
        if _version("triton") is None or dtype == "float64":
            return "default", "float64 is not fused on CUDA" if dtype == "float64" else "Triton is not installed"
        if not ops.CPU.loaded:
            return "default", "for want of the compiled library, whose autograd serves every device"
        return "triton", "not measured on a GPU"
    if not ops.CPU.loaded:
        return "default", ops.CPU.reason
    return "compiled", ""


def advice() -> list[str]:
    """Return what to do for faster kernels; empty if there is nothing to do."""
    lines = []
    if not ops.CPU.loaded:
        lines.append(f"The compiled CPU kernels are not used: {ops.CPU.reason}; {_COST}.")
        if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
            lines.append("There is no C++ compiler; on Debian and Ubuntu: apt-get install g++")
        lines.append("Then, in the source tree: python csrc/build.py (or: pip install --no-build-isolation -e .)")
    elif ops.CPU.capability != torch.backends.cpu.get_cpu_capability():
        lines.append(
            f"The library for {ops.CPU.capability} runs; the one for "
            f"{torch.backends.cpu.get_cpu_capability()} was not built."
        )
    if torch.cuda.is_available() and _version("triton") is None:
        lines.append("There is a GPU but no Triton; for fused kernels there: pip install triton")
    return lines


def show(found: dict[str, Any]) -> None:
    """Print a report for people."""
    cpu = found["libraries"]["cpu"]
    state = f"{cpu['capability']}, {cpu['path']}" if cpu["loaded"] else f"not used: {cpu['reason']}"
    facts = [(key, value) for title in ("versions", "processor") for key, value in found[title].items()]
    rows = [(key, "none" if value is None else str(value)) for key, value in facts]
    print_table("Here", ("what", "is"), [*rows, ("compiled CPU kernels", state)], keys=1, wrap=1)
    print()
    header = ("device", "kernel", "dtypes", "base functions")
    print_table("Which kernel serves what", header, _by_kernel(found["kernels"]), keys=2, wrap=2)
    print()
    print("\n".join(found["advice"] or ["Nothing to do for faster kernels."]))


def _by_kernel(rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    """Return a row for each kernel, with all the dtypes and base functions that it serves."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        groups.setdefault((row["device"], row["kernel"], row["note"], row["dtype"]), []).append(row["base"])
    merged: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for (device, kernel, note, dtype), names in groups.items():
        merged.setdefault((device, kernel, note, tuple(names)), []).append(dtype)
    return [
        (device, kernel, ", ".join(dtypes) + (f" ({note})" if note else ""), ", ".join(names))
        for (device, kernel, note, names), dtypes in sorted(merged.items(), key=lambda item: item[0][:2])
    ]


def run(as_json: bool = False) -> None:
    """Print the report, as tables or as JSON."""
    found = report()
    print_json(found) if as_json else show(found)


def _version(package: str) -> str | None:
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return None
