"""Interleaved timing: every contender takes its turn in every round, so that noise of the machine hits all alike."""

import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from agileact._common.machine import processor, versions


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int, seconds: float = 0.004, budget: float = 20.0
) -> dict[str, float]:
    """Return the median time of one call of each contender, in microseconds.

    A turn lasts about ``seconds``, with several short calls in it. If all would take longer than the ``budget``, also
    in seconds, there are fewer ``rounds``, but never less than five.
    """
    calls = {}
    cost = 0.0
    for name, run in contenders.items():
        run()
        run()
        start = time.perf_counter()
        run()
        once = max(time.perf_counter() - start, 1e-7)
        calls[name] = max(1, min(1000, int(seconds / once)))
        cost += once * calls[name]
    rounds = max(5, min(rounds, int(budget / cost)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            count = calls[name]
            start = time.perf_counter()
            for _ in range(count):
                run()
            times[name].append((time.perf_counter() - start) / count)
    return {name: statistics.median(values) * 1e6 for name, values in times.items()}


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed, for the rest of the process; return whether it could be told.

    By default it hands the end of its heap back to the kernel once that is large enough, and gets it again page by page
    in the next call. Whether it does depends on which small block happens to lie last, not on what is timed: the same
    tensors of 25 MB then take three times as long in one row as in the next.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.system() == "Linux" else None
    trim_threshold, mmap_max = -1, -4  # the names' values in malloc.h
    return mallopt is not None and bool(mallopt(trim_threshold, 2**31 - 1)) and bool(mallopt(mmap_max, 0))


def environment() -> dict[str, Any]:
    """Return the hardware and the versions that a result belongs to."""
    from agileact import ops

    return {
        **versions(),
        "system": platform.platform(),
        "cpu": processor(),
        "freed_memory": "kept" if keep_freed_memory() else "as the allocator likes",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": "compiled" if ops.CPU.loaded else f"default ({ops.CPU.reason})",
    }
