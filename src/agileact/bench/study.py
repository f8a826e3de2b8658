"""Trials a minute of the study's engine, against a straightforward PyTorch loop that does the same work."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agileact._common.errors import AgileactError
from agileact.bench.timing import environment
from agileact.paper.recipe import Recipe
from agileact.study.data import dataset as data_room
from agileact.study.running.executors.local import LocalExecutor
from agileact.study.running.runner import run_study
from agileact.study.running.store import Store
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import DataSpec, TrialSpec

JOBS = 2
_CHECKED = 10
"""Up to here losses are compared: later, the last bits of two ways to sum have grown by training itself."""


def run(
    *,
    quick: bool = False,
    iterations: int | None = None,
    rounds: int | None = None,
    notify: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Time the paper's twelve arms, and return trials a minute of both and the ratio.

    In every round the engine runs the twelve trials with two workers, and the plain loop (:mod:`._plain_loop`) runs
    them as two processes of one thread each, which is faster than one process of two threads. The start of processes,
    imports and the loading of data are left out on both sides. ``quick`` is one round of few iterations.
    """
    steps = iterations or (60 if quick else 300)
    recipe = _recipe(steps, 0)
    data = data_room.load(DataSpec(recipe.data, recipe.validation))
    engine, plain = [], []
    with LocalExecutor(JOBS) as executor:
        # Workers have imported and loaded everything before the first round.
        _engine(_recipe(1, 0).trials(data.fingerprint), executor)
        for index in range(rounds or (1 if quick else 3)):
            # Other seeds each time: no round repeats one that ran before.
            trials = _recipe(steps, index).trials(data.fingerprint)
            engine.append(_engine(trials, executor)[0])
            plain.append(_plain([trials[::2], trials[1::2]]))
            notify(f"engine {engine[-1]:.1f} s, plain loop {plain[-1]:.1f} s")
    ratios = [other / own for own, other in zip(engine, plain, strict=True)]
    return {
        "benchmark": "study",
        "speedup": round(statistics.median(ratios), 3),
        "trials_per_minute": round(len(trials) * 60 / statistics.median(engine), 2),
        "plain_trials_per_minute": round(len(trials) * 60 / statistics.median(plain), 2),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "greatest_difference": greatest_difference(data.fingerprint),
        "trials": len(trials),
        "iterations": steps,
        "cores": JOBS,
        "environment": environment(),
    }


def greatest_difference(fingerprint: str) -> dict[str, float]:
    """Return how far losses of the engine and the plain loop are apart, at most, over ten steps of all twelve arms."""
    trials = _recipe(_CHECKED, 0, every=1).trials(fingerprint)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "plain.json"
        _plain([trials], [output])
        plain = json.loads(output.read_text())
    with LocalExecutor(JOBS) as executor:
        _, ours = _engine(trials, executor)
    return {
        name: max(
            abs(mine - other)
            for result, loop in zip(ours, plain, strict=True)
            for mine, other in zip(getattr(result.curve, name), loop[name], strict=True)
        )
        for name in ("train_loss", "validation_loss", "test_loss")
    }


def _recipe(iterations: int, seed: int, every: int = 50) -> Recipe:
    return Recipe(seeds=(seed,), iterations=iterations, evaluate_every=every, probe_every=0, figure_11=())


def _engine(trials: Sequence[TrialSpec], executor: LocalExecutor) -> tuple[float, list[TrialResult]]:
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.sqlite") as store:
        start = time.perf_counter()
        results = run_study(trials, store, executor)
        return time.perf_counter() - start, results


def _plain(parts: Sequence[Sequence[TrialSpec]], outputs: Sequence[Path] = ()) -> float:
    """Run the plain loop in a process for each part; return how long the slowest took."""
    processes = []
    for index in range(len(parts)):
        command = [sys.executable, "-m", "agileact.bench.plain_loop"]
        if outputs:
            command += ["--out", str(outputs[index])]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # it has imported and loaded everything
    for process, part in zip(processes, parts, strict=True):
        assert process.stdin is not None
        process.stdin.write(json.dumps([spec.to_json() for spec in part]) + "\n")
        process.stdin.flush()
    seconds = []
    for process in processes:
        answer, _ = process.communicate()
        if process.returncode:
            raise AgileactError(f"the plain loop ended with exit code {process.returncode}")
        seconds.append(float(answer))
    return max(seconds)
