"""Trials in worker processes of this machine, each on one thread.

Workers are Python processes that run :mod:`agileact.study.running.executors.worker` and talk JSON lines: specs in,
events out. They need no ``__main__`` guard in the caller, are isolated from each other, and end when the
process that started them ends, however it ends.
"""

import json
import os
import queue
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from agileact._common.errors import ArgumentError
from agileact.study.running.executors import Advanced, Event, Failed, FinishedTogether, Started, ended
from agileact.study.spec.trial import TrialSpec
from agileact.study.spec.user_code import VARIABLE
from agileact.study.training import child_process
from agileact.study.training.stacked import stacks

ATTEMPTS = 2
"""A trial whose worker was lost is tried once more; one that loses two workers is to blame itself."""

_SECONDS_BETWEEN_TICKS = 0.5

_SECONDS_TO_LISTEN = 10.0
"""How long to wait for the last words of a worker that is dead: they are there already."""

# glibc returns each freed activation map to the system and takes page faults on the next step; keeping
# the memory makes a training step of the paper's network up to twice as fast. Other systems ignore these.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
}


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalExecutor:
    """Runs trials side by side in worker processes.

    Within a ``with`` block idle workers stay alive from one call of :meth:`run` to the next, with what they have
    imported and loaded; otherwise each call starts its own and ends them.

    Args:
        jobs: Number of workers; None for one per available core.
        data_dir: Folder with data files, passed on to the data loaders.

    Attributes:
        code: Folder with the copy of the user's modules that workers run; None for the modules as they are found.
        tick: Called twice a second while trials run; an error that it raises stops them.

    Raises:
        ArgumentError: If ``jobs`` is less than 1.

    Example:
        >>> LocalExecutor(jobs=2).jobs
        2
    """

    def __init__(self, jobs: int | None = None, data_dir: Path | None = None) -> None:
        if jobs is not None and jobs < 1:
            raise ArgumentError(f"the number of jobs must be at least 1, not {jobs}")
        self.jobs = jobs or available_cores()
        self.data_dir = data_dir
        self.code: Path | None = None
        self.tick: Callable[[], None] | None = None
        self._keep = False
        self._idle: list[_Worker] = []
        # Simple, because Ctrl-C in the midst of a Queue's Python code can leave its lock taken for ever.
        self._inbox: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()

    def run(self, specs: Sequence[TrialSpec]) -> Iterator[Event | FinishedTogether]:
        """Run ``specs``, started in their order, stack by stack; closing the iterator stops the workers."""
        waiting = deque((group, 1) for group in stacks(specs))
        workers: list[_Worker] = []
        unbroken = False
        try:
            for _ in range(min(self.jobs, len(waiting))):
                worker = self._worker()
                workers.append(worker)
                yield from worker.take(waiting)
            while any(worker.current for worker in workers):
                if self.tick:
                    self.tick()
                try:
                    worker, message = self._inbox.get(timeout=_SECONDS_BETWEEN_TICKS if self.tick else None)
                except queue.Empty:
                    continue
                if worker.current is None:
                    continue
                group, attempt = worker.current
                if message is None:
                    workers.remove(worker)
                    reason = worker.obituary()
                    if attempt < ATTEMPTS:
                        waiting.appendleft((group, attempt + 1))
                    else:
                        lost = f"its worker was lost {attempt} times ({reason})"
                        yield from (Failed(spec, lost, worker.errors()) for spec in group)
                    worker.stop()
                    if waiting:
                        worker = self._worker()
                        workers.append(worker)
                        yield from worker.take(waiting)
                elif message["event"] == "advanced":
                    yield Advanced(group[message["index"]], message["iteration"], message["loss"])
                else:
                    yield from ended(message, group)
                    worker.current = None
                    yield from worker.take(waiting)
            unbroken = True
        finally:
            if unbroken and self._keep:
                self._idle += workers
            else:
                for worker in workers:
                    worker.stop()

    def warm(self) -> None:
        """Start the workers, within a ``with`` block: they import what they need while the caller goes on."""
        self._idle += [self._new_worker() for _ in range(self.jobs - len(self._idle))]

    def __enter__(self) -> "LocalExecutor":
        self._keep = True
        return self

    def __exit__(self, *_: object) -> None:
        self._keep = False
        while self._idle:
            self._idle.pop().stop()

    def _worker(self) -> "_Worker":
        """Return an idle worker that lives, or a new one."""
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            worker.stop()
        return self._new_worker()

    def _new_worker(self) -> "_Worker":
        # Evaluation beside training pays where a worker has a second core; else the two only take turns.
        return _Worker(self._inbox, self.data_dir, self.code, aside=2 * self.jobs <= available_cores())


class _Worker:
    """One worker process and the thread that reads what it says."""

    def __init__(
        self,
        inbox: "queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]",
        data_dir: Path | None,
        code: Path | None,
        *,
        aside: bool,
    ) -> None:
        self.current: tuple[list[TrialSpec], int] | None = None
        self._stderr: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        command = child_process.command("agileact.study.running.executors.worker")
        if data_dir is not None:
            command += ["--data-dir", str(data_dir)]
        command += ["--aside"] * aside
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **ENVIRONMENT, **({VARIABLE: str(code.resolve())} if code else {})},
            encoding="utf-8",
        )
        self._thread = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self._thread.start()

    def _listen(self, inbox: "queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]") -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                inbox.put((self, json.loads(line)))
        except ValueError:  # a line cut off by the worker's death, or the pipe closed by stop()
            pass
        inbox.put((self, None))

    def take(self, waiting: deque[tuple[list[TrialSpec], int]]) -> Iterator[Event]:
        """Give the worker the next waiting stack, if there is one."""
        if not waiting:
            return
        self.current = waiting.popleft()
        group = self.current[0]
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([spec.to_json() for spec in group]) + "\n")
            self._process.stdin.flush()
        except OSError:
            return  # the worker is dead already; its listener reports that
        yield from map(Started, group)

    @property
    def alive(self) -> bool:
        """Whether the process still runs and its listener too."""
        return self._process.poll() is None and self._thread.is_alive()

    def obituary(self) -> str:
        """Say how the process ended."""
        code = self._process.wait()
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"

    def errors(self) -> str:
        """Return the end of what the process wrote to its standard error."""
        self._stderr.seek(0)
        return self._stderr.read()[-4000:]

    def stop(self) -> None:
        """End the process, if it still runs, and free what it held."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._thread.join(_SECONDS_TO_LISTEN)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Closing a pipe that a thread still reads would wait for it.
        heard = () if self._thread.is_alive() else (self._process.stdout,)
        for pipe in (self._process.stdin, *heard, self._stderr):
            try:
                pipe.close()
            except OSError:
                continue  # a spec was still in the buffer of a dead worker's pipe
