"""Ctrl-C while the command's own modules are imported: nothing of the command line is there yet to catch it.

Imported first by the package, and of consequence for the command ``agileact`` alone.
"""

import sys
from collections.abc import Sequence
from pathlib import PurePath
from types import TracebackType


def is_command(words: Sequence[str]) -> bool:
    """Return whether a process with this command line, from the interpreter on, was started as the command.

    Example:
        >>> is_command(["python3", "/usr/bin/agileact", "doctor"]), is_command(["python3", "-m", "agileact.cli"])
        (True, True)
        >>> is_command(["python3", "train.py", "agileact"])
        False
    """
    program = list(words[1:])
    while program and program[0].startswith("-") and program[0] not in ("-m", "-c"):
        # Of the interpreter's own options these are followed by a word.
        program = program[2 if program[0] in ("-W", "-X") else 1 :]
    return program[:2] == ["-m", "agileact.cli"] or (bool(program) and PurePath(program[0]).stem == "agileact")


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("agileact: stopped", file=sys.stderr)  # the interpreter itself ends as by the signal: 130 for a shell
    else:
        sys.__excepthook__(kind, error, trace)


if is_command(sys.orig_argv):
    sys.excepthook = _say
