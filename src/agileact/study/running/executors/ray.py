"""Trials as tasks of a Ray cluster: one that runs already, or one made of this machine for as long as the study runs.

Results come back to this process, which alone writes the store; no node needs the data, which travels through Ray's
object store. Every node needs the same version of agileact.
"""

import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from agileact._common.errors import ArgumentError, TrialError
from agileact._common.optional import require
from agileact._common.version import __version__
from agileact.study.data import dataset as data_room
from agileact.study.data.dataset import DataSet
from agileact.study.running.executors import Advanced, Event, Failed, FinishedTogether, Started, ended
from agileact.study.running.executors.local import ATTEMPTS, ENVIRONMENT, available_cores
from agileact.study.running.executors.worker import check_data
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import DataSpec, TrialSpec
from agileact.study.spec.user_code import UserCode
from agileact.study.training import child_process
from agileact.study.training.stacked import run_group, stacks

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_ANSWER = 10.0


class RayExecutor:
    """Runs trials side by side as Ray tasks, of one core for each of their processes.

    Args:
        address: ``"ray://host:port"`` or another address that ``ray.init`` takes; None for a cluster of this
            machine alone, which ends with the run.
        jobs: With ``address=None``: how many trials run side by side; None for one per available core.
        gpus: The share of a GPU that each trial asks for, such as 0.25; for trials whose budget's device is "cuda".
        data_dir: Folder with data files on this machine.

    Attributes:
        code: Folder with the copy of the user's modules that tasks run, on this machine; None for what nodes find.
        tick: Called twice a second while trials run; an error that it raises stops them.

    Raises:
        ArgumentError: If a number does not fit, or ``jobs`` is given for a cluster that runs already.
        MissingExtraError: If Ray is not installed.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        jobs: int | None = None,
        gpus: float = 0.0,
        data_dir: Path | None = None,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise ArgumentError(f"the number of jobs must be at least 1, not {jobs}")
        if jobs is not None and address is not None:
            raise ArgumentError("a running cluster decides how many trials fit; leave out jobs")
        if not gpus >= 0:
            raise ArgumentError(f"the share of a GPU must be at least 0, not {gpus}")
        self._ray = require("ray", "ray")
        self.address = address
        self.jobs = jobs or available_cores()
        self.gpus = gpus
        self.data_dir = data_dir
        self.code: Path | None = None
        self.tick: Callable[[], None] | None = None
        self._kept = False
        self._connected = False

    def __enter__(self) -> "RayExecutor":
        self._kept = True
        return self

    def __exit__(self, *error: object) -> None:
        self._kept = False
        self._leave()

    def run(self, specs: Sequence[TrialSpec]) -> Iterator[Event | FinishedTogether]:
        """Run ``specs``; closing the iterator cancels what runs and leaves the cluster.

        Within a ``with`` block the cluster is left only at the end of the block, so that several runs share it.
        """
        if not specs:
            return
        devices = {spec.task.budget.device for spec in specs}
        if "cuda" in devices and not self.gpus:
            # Ray hides all GPUs from a task that asks for none.
            raise ArgumentError("trials on the device 'cuda' need a share of a GPU: --gpus, such as --gpus 0.25")
        if self.gpus and "cpu" in devices:
            raise ArgumentError("trials on the CPU take no share of a GPU; leave out --gpus, or take --device cuda")
        loaded = {spec: data_room.load(spec, data_dir=self.data_dir) for spec in {s.task.data for s in specs}}
        if not self._connected:
            self._connect()
        run = _Run(self._ray, self.gpus, loaded, UserCode.read(self.code) if self.code else None)
        try:
            yield from run.events(specs, self.tick)
        finally:
            run.cancel()
            if not self._kept:
                self._leave()

    def _leave(self) -> None:
        if self._connected:
            self._ray.shutdown()
        self._connected = False

    def _connect(self) -> None:
        ray = self._ray
        if ray.is_initialized():
            raise TrialError("this process is connected to a Ray cluster already; call ray.shutdown() first")
        settings: dict[str, Any] = {
            "log_to_driver": False,
            "logging_level": "ERROR",
            "runtime_env": {"env_vars": ENVIRONMENT},
        }
        where = "on this machine" if self.address is None else f"at {self.address}"
        if self.address is None:
            settings |= {"num_cpus": self.jobs, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        else:
            settings["address"] = self.address
        terminate = signal.getsignal(signal.SIGTERM)
        try:
            _reach(self.address)
            ray.init(**settings)
            self._connected = True
            if threading.current_thread() is threading.main_thread():
                # Ray has put one there that ends this process in the midst of what it does.
                signal.signal(signal.SIGTERM, terminate)
        except Exception as error:  # Ray raises plain ones too, such as of a node that took too long to start
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TrialError(f"no Ray cluster can be used {where}: {first}", traceback.format_exc()) from None


def _reach(address: str | None) -> None:
    """Knock at an address: Ray itself would wait for minutes for one where nobody listens."""
    host, colon, port = (address or "").rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()


class _Run:
    """The tasks of one run and what is known of them."""

    def __init__(self, ray: Any, gpus: float, loaded: dict[DataSpec, DataSet], code: UserCode | None) -> None:
        self.ray, self.code = ray, code
        self.data = {spec: (ray.put(data), data.fingerprint) for spec, data in loaded.items()}
        # Lost workers are counted here, as for local workers; Ray itself is to try nothing again.
        self.task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_run)
        self.inbox = ray.remote(num_cpus=0)(_Inbox).remote()
        self.pending: dict[Any, tuple[list[TrialSpec], int]] = {}
        self.started: set[TrialSpec] = set()

    def events(
        self, specs: Sequence[TrialSpec], tick: Callable[[], None] | None = None
    ) -> Iterator[Event | FinishedTogether]:
        by_key = {spec.key: spec for spec in specs}
        for group in stacks(specs):
            self._submit(group, 1)
        while self.pending:
            if tick:
                tick()
            ready, _ = self.ray.wait(list(self.pending), num_returns=1, timeout=_SECONDS_BETWEEN_LOOKS)
            for key, iteration, loss in self._news():
                spec = by_key[key]
                yield from self._start(spec)
                if iteration:
                    yield Advanced(spec, iteration, loss)
            for ref in ready:
                group, attempt = self.pending.pop(ref)
                for spec in group:
                    yield from self._start(spec)
                yield from self._end(ref, group, attempt)

    def cancel(self) -> None:
        """Stop every task that runs or waits."""
        for ref in self.pending:
            try:
                self.ray.cancel(ref, force=True)
            except (self.ray.exceptions.RayError, ConnectionError):
                return  # the cluster is gone, and with it its tasks
        self.pending.clear()

    def _submit(self, group: list[TrialSpec], attempt: int) -> None:
        texts = [spec.to_json() for spec in group]
        sets = [self.data[data] for data in dict.fromkeys(spec.task.data for spec in group)]
        prints = [fingerprint for _, fingerprint in sets]
        # Ray brings what is an argument by itself, not what is in a list.
        ref = self.task.options(num_cpus=group[0].task.budget.processes).remote(
            texts, prints, self.inbox, __version__, self.code, *(data for data, _ in sets)
        )
        self.pending[ref] = group, attempt

    def _start(self, spec: TrialSpec) -> Iterator[Event]:
        if spec not in self.started:
            self.started.add(spec)
            yield Started(spec)

    def _news(self) -> list[tuple[str, int, float]]:
        try:
            news: list[tuple[str, int, float]] = self.ray.get(self.inbox.take.remote())
        except self.ray.exceptions.RayActorError:
            # Its node is gone: progress starts anew with another one; running trials tell nothing until their end.
            self.inbox = self.ray.remote(num_cpus=0)(_Inbox).remote()
            return []
        return news

    def _end(self, ref: Any, group: list[TrialSpec], attempt: int) -> Iterator[Event | FinishedTogether]:
        errors = self.ray.exceptions
        try:
            last = self.ray.get(ref)
        except errors.RayTaskError as error:
            # The task's own code raised nothing: it could not be brought there, mostly because agileact is missing.
            words = str(error).strip().splitlines()[-1]
            reason = f"the task cannot run on the cluster ({words}); is agileact installed there?"
            yield from (Failed(spec, reason, str(error)) for spec in group)
            return
        except errors.RayError as error:
            if attempt < ATTEMPTS:
                self._submit(group, attempt + 1)
            else:
                reason = f"its worker was lost {attempt} times ({str(error).strip().splitlines()[0]})"
                yield from (Failed(spec, reason, str(error)) for spec in group)
            return
        yield from ended(last, group)


class _Inbox:
    """An actor that holds the last word of each running trial until it is asked for it."""

    def __init__(self) -> None:
        self.news: dict[str, tuple[str, int, float]] = {}

    def tell(self, key: str, iteration: int, loss: float) -> None:
        self.news[key] = key, iteration, loss

    def take(self) -> list[tuple[str, int, float]]:
        news, self.news = list(self.news.values()), {}
        return news


def _run(
    texts: list[str], prints: list[str], inbox: Any, version: str, code: UserCode | None, *sets: DataSet
) -> dict[str, Any]:
    """Run one group of trials on a node; errors come back as words, as from a local worker."""

    def run() -> list[TrialResult]:
        if version != __version__:
            raise TrialError(f"the node has agileact {__version__}, the study runs with {version}")
        if code is not None:
            code.install()
        specs = [TrialSpec.from_json(text) for text in texts]
        planned = dict.fromkeys(spec.task.data for spec in specs)
        for name, found in zip(planned, prints, strict=True):
            check_data(name, found)
        for spec in specs:
            inbox.tell.remote(spec.key, 0, 0.0)
        data = dict(zip(planned, sets, strict=True))
        return run_group(specs, data, lambda spec, iteration, loss: inbox.tell.remote(spec.key, iteration, loss))

    return child_process.outcome(run)
