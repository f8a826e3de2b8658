"""Interleaved timing: every contender takes its turn in every round, so that noise of the machine hits all alike."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int, seconds: float = 0.004, budget: float = 20.0
) -> dict[str, float]:
    """Return the median time of one call of each contender, in microseconds.

    Args:
        contenders: What to time, by name.
        rounds: How often each takes its turn.
        seconds: About how long a turn lasts; a short call is repeated within it.
        budget: About how long all may take, in seconds; there are fewer rounds then, but never less than five.
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


def environment() -> dict[str, Any]:
    """Return the hardware and the versions that a result belongs to."""
    from agileact import __version__, ops

    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "agileact": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": model,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": "compiled" if ops.CPU.loaded else f"default ({ops.CPU.reason})",
    }
