"""Python processes that end with the process that started them, however it ends."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from agileact._common.errors import AgileactError
from agileact.study.spec.result import TrialResult
from agileact.study.spec.user_code import install_from_environment

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
    """Return the command that runs a module in a process that does not outlive this one."""
    return [sys.executable, "-c", _START, str(os.getpid()), module, *arguments]


def answering() -> Callable[..., None]:
    """Return what tells the process that started this one of events, as lines of JSON on standard output.

    From then on only the other process decides what ends: Ctrl-C, which reaches the whole group, is ignored. What a
    library prints goes to standard error, not between the lines. Of the user's modules the copies are imported that
    the environment names.
    """
    install_from_environment()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(event: str, **fields: object) -> None:
        answers.write(json.dumps({"event": event, **fields}) + "\n")
        answers.flush()

    return say


def outcome(work: Callable[[], Sequence[TrialResult]]) -> dict[str, Any]:
    """Do the work of a process, and return its last event: results, or why there are none, in words."""
    try:
        results = work()
    except BrokenPipeError:
        raise  # nobody is there to be told
    except AgileactError as error:
        return {"event": "failed", "reason": str(error), "details": ""}
    except Exception as error:
        return {"event": "failed", "reason": f"{type(error).__name__}: {error}", "details": traceback.format_exc()}
    return {"event": "finished", "results": [result.to_json() for result in results]}
