"""Real processes that run the command line, started fast: a process that has imported everything forks for each.

The forked process is one like any other: it can be killed, stopped and limited, has a session of its own, and starts
its workers as always.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Command:
    """A running command."""

    def __init__(self, forks: Forks, pid: int, out: Path) -> None:
        self._forks = forks
        self.pid = pid
        self._out = out
        self._status: int | None = None

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._out.with_suffix(".err").read_text()

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.pid, number)

    def wait(self) -> int:
        """Return the exit code once it has ended; the negative signal that ended it."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(self._forks.ask(wait=self.pid))
        return self._status

    def others(self) -> list[int]:
        """Return the processes of its session but itself: its workers, orphans among them (Linux)."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != self.pid:
                with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8") as stat:
                    fields = stat.read().rpartition(")")[2].split()
                    if int(fields[3]) == self.pid and fields[0] != "Z":
                        found.append(int(name))
        return found

    def alone(self) -> bool:
        """Wait until nothing is left of its session."""
        return until(lambda: not self.others())


class Forks:
    """The process that forks."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.study.processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self._count = 0

    def ask(self, **question: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, folder: Path, *argv: str, file_size: int | None = None) -> Command:
        """Start ``agileact ARGV``; ``file_size`` limits how long each of its files may get."""
        self._count += 1
        out = folder / f"{self._count}.out"
        pid = self.ask(argv=argv, out=str(out), file_size=file_size)
        return Command(self, pid, out)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@contextlib.contextmanager
def forks(**environment: str) -> Iterator[Forks]:
    started = Forks(environment)
    try:
        yield started
    finally:
        started.close()


def until(true: Any, seconds: float = 240.0) -> bool:
    """Wait until something is true; say whether it came."""
    deadline = time.monotonic() + seconds
    while not (met := true()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(met)


def _serve() -> None:
    import torch

    from agileact import cli
    from agileact.study.commands import yaml_file as spec_file
    from agileact.study.results import outcome
    from agileact.study.running import conduct, cost, executors, progress, rescue, store
    from agileact.study.running.executors import local

    assert all((conduct, cost, executors, outcome, progress, rescue, spec_file, store, local))
    torch.set_num_threads(1)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            print(os.waitpid(question["wait"], 0)[1], flush=True)
            continue
        out = Path(question["out"])
        pid = os.fork()
        if pid == 0:
            os.setsid()
            # A shell that starts the tests in the background has its children ignore Ctrl-C.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.stdin = open(os.devnull)  # noqa: SIM115
            os.dup2(sys.stdin.fileno(), 0)
            for number, path in ((1, out), (2, out.with_suffix(".err"))):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            if question["file_size"]:
                import resource

                resource.setrlimit(resource.RLIMIT_FSIZE, (question["file_size"],) * 2)
            sys.exit(cli.main(question["argv"]))
        print(pid, flush=True)


if __name__ == "__main__":
    _serve()
