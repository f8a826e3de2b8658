"""What a run depends on: the machine in one line, and the versions; and since when this process runs."""

import os
import platform
import sys
import time

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


def running_seconds() -> float:
    """Return how long this process has run, its start-up too; where the system does not tell, how long it computed."""
    if sys.platform == "linux":
        try:
            with open("/proc/self/stat", encoding="utf-8") as stat:
                # Behind the name, which may hold blanks: the state is the third field, the start the 22nd.
                begun = int(stat.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
            return time.clock_gettime(time.CLOCK_BOOTTIME) - begun
        except OSError:
            pass  # /proc is not mounted
    return time.process_time()


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
