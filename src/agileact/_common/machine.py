"""What a study ran on, in one line."""

from __future__ import annotations

import os
import platform


def hardware() -> str:
    """Return processor, number of cores and system in one line.

    Example:
        >>> "cores" in hardware()
        True
    """
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
        name = models[0] if models else name
    except OSError:
        pass  # not Linux; the platform's name has to do
    return f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
