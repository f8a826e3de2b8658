"""A trial in mixed precision or in several processes, by Accelerate; the same batches, the same measurements.

Every process builds the same network from the seed and takes its part of every batch. A part's mean loss is weighted
by its share, so that the gradients which DDP averages are those of the whole batch, for unequal parts too; batch
normalisation alone sees the part, as always under DDP. All processes evaluate, the first one reports.
"""

import argparse
import contextlib
import json
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from agileact._common.errors import ArgumentError, TrialError
from agileact._common.optional import require
from agileact.study.data.dataset import DataSet
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import TrialSpec
from agileact.study.training import child_process
from agileact.study.training.loop import Progress, Trial, saved_bytes
from agileact.study.training.threads import one_thread

ATTEMPTS = 2
"""How often the processes of a trial are started if one of them is killed."""

_UNIT = 1_000_000
"""From so many parameters on a module is gathered by itself, so that never more than that is whole at a time."""

_PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def run_accelerated(spec: TrialSpec, data: DataSet, progress: Progress | None = None) -> TrialResult:
    """Train one network by Accelerate, and return everything that was measured."""
    require("accelerate", "accelerate")
    budget = spec.task.budget
    if budget.device == "cuda" and torch.cuda.device_count() < budget.processes:
        raise ArgumentError(
            f"{budget.processes} processes need as many GPUs, and this one sees {torch.cuda.device_count()}"
        )
    if budget.precision == "fp16" and spec.arm.updates != "own":
        raise ArgumentError("folded updates take gradients as they are, which fp16 scales; take bf16")
    if budget.sharded and spec.arm.updates != "own":
        raise ArgumentError("folded updates take whole weights, of which a sharded network keeps parts")
    if budget.processes == 1:
        with one_thread():
            return _AcceleratedTrial(spec, data, progress).run()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _Group(spec, data) as group:
                return group.result(progress)
        except _LostError as lost:
            if attempt == ATTEMPTS:
                raise TrialError(f"a process of the trial was lost {attempt} times ({lost})") from None
    raise AssertionError


class _AcceleratedTrial(Trial):
    def __init__(self, spec: TrialSpec, data: DataSet, progress: Progress | None) -> None:
        accelerate, state = require("accelerate", "accelerate"), require("accelerate.state", "accelerate")
        # Accelerate keeps one state for a process, and a worker runs one trial after the other.
        if not torch.distributed.is_initialized():
            state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()
        budget = spec.task.budget
        # The optimizer steps once for a batch, so there is nothing to accumulate.
        self.accelerator = accelerate.Accelerator(
            mixed_precision=_PRECISIONS[budget.precision], cpu=budget.device == "cpu"
        )
        with self.accelerator.autocast():  # what is kept for the backward pass depends on it
            super().__init__(spec, data, progress, self.accelerator.device)
        self.parts, self.index = self.accelerator.num_processes, self.accelerator.process_index
        # For evaluation mode it prepares what it always does, but for the wrapper that averages gradients.
        self.wrapped = self.accelerator.prepare_model(self.model, evaluation_mode=budget.sharded)
        if isinstance(self.optimizer, torch.optim.Optimizer):
            # It steps as before; in fp16 the gradients' scale is taken out first.
            self.optimizer = self.accelerator.prepare_optimizer(self.optimizer)

    def place(self, x: Tensor) -> int:
        if not self.budget.sharded:
            return super().place(x)
        # Measured where the network was built: whole, it may be too large for the device.
        kept = saved_bytes(self.model, x.cpu())
        for parameter in self.model.parameters():
            parameter.data = parameter.data.contiguous()  # channels last cannot be cut
        mesh = init_device_mesh(self.device.type, (self.budget.processes,))
        for unit in shard_units(self.model):
            # The outermost one too, else a pass after a change of the parts would see the old whole.
            fully_shard(unit, mesh=mesh, reshard_after_forward=True)
        return kept

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        units = [module for module in self.model.modules() if isinstance(module, FSDPModule)]
        for unit in units:
            unit.unshard()
        yield
        for unit in units:
            unit.reshard()

    def full(self, parameter: Tensor) -> Tensor:
        return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Form the gradients of a batch, of which this process takes its part, and return that part of the loss."""
        first, last = (len(x) * i // self.parts for i in (self.index, self.index + 1))
        loss: Tensor = self.loss(self.wrapped(x[first:last]), y[first:last]) * ((last - first) / len(x))
        # DDP averages over the processes what is to be summed.
        self.accelerator.backward(loss * self.parts)
        return loss.detach()

    def clip(self, norm: float) -> None:
        """Shorten the gradient of all parameters together, in fp16 after its scale is taken out of it."""
        self.accelerator.clip_grad_norm_(self.model.parameters(), norm)

    def whole(self, part: Tensor) -> Tensor:
        """Return the sum of a number over all processes."""
        if self.parts > 1:
            part = part.clone()
            torch.distributed.all_reduce(part)
        return part

    def agreed(self, stop: bool) -> bool:
        """Return what the first process does."""
        if self.parts == 1:
            return stop
        told = torch.tensor(int(stop), device=self.device)
        torch.distributed.broadcast(told, 0)
        return bool(told)

    def stream(self) -> str:
        """Return the name of the random numbers of this process: of its own, for samples of its own."""
        return f"training/{self.index}" if self.parts > 1 else super().stream()


def shard_units(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose parameters are gathered together, inner ones first and ``model`` last.

    A module is one if it has a million parameters that no module in it has taken. One whose parameter is used from
    outside too, such as tied weights, is left to a module around it.

    Example:
        >>> model = nn.Sequential(nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 10))
        >>> [type(unit).__name__ for unit in shard_units(model)]
        ['Linear', 'Sequential']
    """
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            users[id(parameter)] = users.get(id(parameter), 0) + 1
    taken: set[int] = set()
    units: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            visit(child)
        inside: dict[int, int] = {}
        for part in module.modules():
            for parameter in part.parameters(recurse=False):
                inside[id(parameter)] = inside.get(id(parameter), 0) + 1
        own = [p for p in module.parameters() if id(p) not in taken]
        alone = all(users[id(p)] == inside[id(p)] for p in own)
        # A list of modules has no forward pass of its own in which it could be gathered.
        called = not isinstance(module, (nn.ModuleList, nn.ModuleDict))
        if module is model or (called and alone and sum(p.numel() for p in own) >= _UNIT):
            taken.update(id(p) for p in own)
            units.append(module)

    visit(model)
    return units


# --- Several processes ----------------------------------------------------------------------------------------------


class _LostError(Exception):
    """A process ended without a word of its own."""


class _Group:
    """The processes of one trial; they end with the block, and with this process.

    The launchers of Accelerate and torch restart or end a script of the user's. They neither hand on a trial's
    progress while it runs nor tell a process that was killed, which is tried again, from one that failed.
    """

    def __init__(self, spec: TrialSpec, data: DataSet) -> None:
        self._spec, self._data = spec, data
        self._inbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "_Group":
        self._stack = contextlib.ExitStack()
        try:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="agileact-")))
            self._errors: IO[str] = self._stack.enter_context((folder / "errors").open("w+", errors="replace"))
            with (folder / "trial").open("wb") as stream:
                pickle.dump((self._spec.to_json(), self._data), stream, protocol=pickle.HIGHEST_PROTOCOL)
            self._stack.callback(self._stop)
            for rank in range(self._spec.task.budget.processes):
                self._processes.append(self._start(folder, rank))
            self._listener = threading.Thread(target=self._listen, daemon=True)
            self._listener.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def result(self, progress: Progress | None) -> TrialResult:
        """Return what the first process returns; hand on its progress."""
        while True:
            try:
                line = self._inbox.get(timeout=0.5)
            except queue.Empty:
                self._check()
                continue
            if line is None:
                self._check(ended=True)
                continue
            message = json.loads(line)
            if message["event"] == "advanced":
                if progress:
                    progress(message["iteration"], message["loss"])
            elif message["event"] == "failed":
                # One that lost another one fails too, in words of its own: who was killed is to blame.
                self._check()
                raise TrialError(message["reason"], message["details"])
            else:
                return TrialResult.from_json(message["results"][0])

    def _check(self, *, ended: bool = False) -> None:
        for rank, process in enumerate(self._processes):
            code = process.wait() if ended and rank == 0 else process.poll()
            if code is not None and code < 0:
                raise _LostError(f"process {rank} was killed by signal {-code}")
        codes = [process.poll() for process in self._processes]
        failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None or ended:
            self._errors.seek(0)
            text = self._errors.read()[-4000:]
            last = (text.strip().splitlines() or ["it said nothing"])[-1]
            raise TrialError(f"process {failed or 0} of the trial ended early: {last}", text)

    def _start(self, folder: Path, rank: int) -> subprocess.Popen[str]:
        count = self._spec.task.budget.processes
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            # They meet by a file; an address is only looked for.
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "0",
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            child_process.command("agileact.study.training.mixed_precision", str(folder)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            stderr=self._errors,
            env=environment,
            text=True,
        )

    def _listen(self) -> None:
        stream = self._processes[0].stdout
        assert stream is not None
        for line in stream:
            if line.endswith("\n"):  # else cut off by the end of the process
                self._inbox.put(line)
        self._inbox.put(None)

    def _stop(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        if self._processes and self._processes[0].stdout is not None:
            self._listener.join()
            self._processes[0].stdout.close()


def main() -> int:
    """Be one process of a trial: take part in its training, and if it is the first one, tell the outcome."""
    parser = argparse.ArgumentParser(prog="python -m agileact.study.training.mixed_precision")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    say = child_process.answering()
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    with (folder / "trial").open("rb") as stream:
        text, data = pickle.load(stream)
    spec = TrialSpec.from_json(text)

    def run() -> list[TrialResult]:
        with _meeting(folder, spec.task.budget.device, rank, count), one_thread():
            progress = (lambda iteration, loss: say("advanced", iteration=iteration, loss=loss)) if rank == 0 else None
            return [_AcceleratedTrial(spec, data, progress).run()]

    last = child_process.outcome(run)
    say(**last)
    return 0 if last["event"] == "finished" else 3


@contextlib.contextmanager
def _meeting(folder: Path, device: str, rank: int, count: int) -> Iterator[None]:
    if device == "cuda":
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=(folder / "meeting").resolve().as_uri(),
        rank=rank,
        world_size=count,
    )
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
