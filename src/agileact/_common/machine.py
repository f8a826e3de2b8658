"""What a run depends on: the machine in one line, and the versions."""

import os
import platform

from agileact._common.version import __version__


def processor() -> str:
    """Return the processor's name."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            return next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), name)
    except OSError:
        return name  # not Linux; the platform's name has to do


def hardware() -> str:
    """Return processor, number of cores and system in one line."""
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    # Deferred: the command line needs the hardware without PyTorch, whose import takes seconds.
    import numpy
    import torch

    return {
        "agileact": __version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
