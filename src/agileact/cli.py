"""The command line: parse, call, print."""

import argparse
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from agileact._common.errors import AgileactError
from agileact._common.machine import running_seconds
from agileact._common.terminal import HelpFormatter, printable, replace_unprintable
from agileact._common.version import __version__

_EPILOG = """\
exit codes:
  0    done
  1    it could not be done; one line on standard error says why
  2    the command line was not understood
  70   an internal error; AGILEACT_DEBUG=1 shows where
  130  stopped by Ctrl-C
  143  stopped by SIGTERM, as batch systems and containers send it

With --json a command prints one JSON document to standard output; progress, notes and errors go to standard error."""


_GREETING = f"""\
Agileact {__version__}: activations a*f(x - b) that learn their size a and position b.

The three most useful commands:
  agileact compare --model pkg.module:build --data pkg.module:load --arms original,agile-relu --budget 5m
                     compare activations in your own network, with intervals over seeds
  agileact lab       open a local page: drag a and b, watch a network learn
  agileact doctor    say which kernels run here, and why

All commands: agileact --help"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {_one_line(message)} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code, as ``_EPILOG`` lists them. Without arguments it greets."""
    # A user who gives a command a time counts from when they typed it, and imports are a part of that.
    begun = time.monotonic() - (running_seconds() if argv is None else 0.0)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sys.stdout is None:  # closed by the shell: >&-
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    replace_unprintable(sys.stdout)
    if not arguments:
        print(_GREETING)
        return 0
    options = argparse.Namespace()
    terminated = False

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        # Whatever cleans up after Ctrl-C does so after this, too. Not by a class of its own: libraries raise theirs.
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)
    try:
        parser = _parser()
        parser.parse_args(arguments, options)
        if not hasattr(options, "run"):
            parser.print_help()
            return 2
        options.command = shlex.join(["agileact", *arguments])
        options.begun = begun
        options.run(options)
        sys.stdout.flush()
    except AgileactError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        # A second one must not cut short what is said, nor end in a traceback at the interpreter's exit.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        rest = "; finished trials are stored, and the same command continues with the rest"
        print(f"agileact: stopped{rest if getattr(options, 'resumes', False) else ''}", file=sys.stderr)
        return 143 if terminated else 130
    except BrokenPipeError:
        # The reader (head, less) has left.
        _abandon_stdout()
        return 1
    except OSError as error:
        # A full disk, a folder without permission: the system's words say what, and the path says where.
        where = f": {error.filename}" if error.filename else ""
        _abandon_stdout()
        return _failed(f"{error.strerror or error}{where}")
    except MemoryError:
        return _failed("out of memory; smaller batches or fewer trials side by side (--jobs 1) need less")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in ("torch", "numpy"):
            return _failed(f"this command needs {error.name}, which is not installed: pip install {error.name}")
        if os.environ.get("AGILEACT_DEBUG"):
            traceback.print_exc()
        _say(
            f"internal error: {type(error).__name__}: {error} (set AGILEACT_DEBUG=1 to see where, and please report it)"
        )
        return 70
    return 0


def _failed(message: str) -> int:
    _say(f"error: {message}")
    return 1


def _say(message: str) -> None:
    print(f"agileact: {_one_line(message)}", file=sys.stderr)


def _one_line(message: str) -> str:
    return printable(" ".join(message.split()))


def _abandon_stdout() -> None:
    """Point standard output elsewhere: what is still buffered cannot be written, and the interpreter would try."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    from agileact import completion
    from agileact.bench import command as bench_command
    from agileact.lab import command as lab_command
    from agileact.paper import command as paper_command
    from agileact.study.commands import study as study_command

    parser = _Parser(
        prog="agileact",
        description="Agile activation functions a*f(x - b), with size a and position b learned by gradient descent.",
        formatter_class=HelpFormatter,
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"agileact {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    paper_command.add_paper(commands)
    paper_command.add_xor(commands)
    study_command.add_command(commands)
    bench_command.add_bench(commands)
    lab_command.add_lab(commands)
    _add_doctor(commands)
    completion.add_command(commands, parser)
    return parser


def _add_doctor(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="say which kernels run here and why",
        description="Print versions, the processor, which kernel serves which base function, dtype and device, and how "
        "to get the faster one.",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> None:
    from agileact import doctor  # it needs PyTorch, which help and completion do without

    doctor.run(options.json)


if __name__ == "__main__":
    sys.exit(main())
