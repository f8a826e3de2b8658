"""Python processes that end with the process that started them, however it ends."""

from __future__ import annotations

import os
import sys

# It looks by itself whether the process that started it still lives, from before it imports anything slow and in the
# midst of a long step too: pipes tell it only when it reads or writes.
_START = """
import os, runpy, sys, threading, time
parent, module = int(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]
def watch():
    while os.getppid() == parent:
        time.sleep(0.3)
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
runpy.run_module(module, run_name="__main__")
"""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in a process that does not outlive this one.

    Example:
        >>> command("json.tool")[3:] == [str(os.getpid()), "json.tool"]
        True
    """
    return [sys.executable, "-c", _START, str(os.getpid()), module, *arguments]
