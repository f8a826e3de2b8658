"""What watching costs: a training step with a monitor attached to its optimizer, against the step alone."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agileact.bench.networks import build, training_batch
from agileact.bench.rows import THREADS, Notify, Row, collect, training_step
from agileact.bench.step import MODELS
from agileact.bench.timing import interleaved
from agileact.monitor import Monitor

_STEPS = 1000


def run(*, quick: bool = False, models: Sequence[str] = MODELS, notify: Notify = lambda text: None) -> dict[str, Any]:
    """Time whole steps of ``models`` with and without a monitor, and the monitor alone; return rows and environment.

    A hundredth of a step is less than what whole steps differ by on a busy machine. So the monitor's own cost is also
    timed directly: 1,000 of its steps, with all copies, statistics and measurements of activations that belong to
    them, in the first 1,000 steps, where it records most. ``share`` is that cost a step over the step alone.
    """
    return collect("monitor", _rows(quick, models), notify)


def _rows(quick: bool, models: Sequence[str]) -> Iterator[Row]:
    for name in models:
        x, target = training_batch(name)
        for count in THREADS:
            torch.set_num_threads(count)
            alone, watched = build(name, "fused"), build(name, "fused")
            optimizer = torch.optim.Adam(watched.parameters(), lr=1e-4, fused=True)
            with Monitor(watched, optimizer=optimizer):
                rounds = 7 if name == "resnet18" else 61
                times = interleaved(
                    {
                        "alone": training_step(alone, x, target),
                        "watched": training_step(watched, x, target, optimizer),
                    },
                    rounds=max(3, rounds // 3) if quick else rounds,
                )
            own = own_cost(build(name, "fused"), x, repeats=1 if quick else 5)
            yield {
                "model": name,
                "threads": count,
                "step_us": round(times["alone"], 1),
                "watched_us": round(times["watched"], 1),
                "ratio": round(times["watched"] / times["alone"], 4),
                "monitor_us": round(own, 2),
                "share": round(own / times["alone"], 5),
            }


def own_cost(model: nn.Module, x: Tensor, repeats: int) -> float:
    """Return the time that a monitor takes a step, in microseconds: the median over ``repeats`` times 1,000 steps."""
    costs = []
    for _ in range(repeats):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        monitor = Monitor(model, optimizer=optimizer)
        spent = 0.0
        for step in range(_STEPS):
            measured = step % 100 == 0
            if measured:
                # The forward pass in which the monitor looks at activations, and then the same one without it.
                spent += _timed(lambda: model(x))
            spent += _timed(optimizer.step)
            if measured:
                spent -= statistics.median(_timed(lambda: model(x)) for _ in range(3))
        spent += _timed(monitor.close)
        # What the optimizer's empty step costs by itself.
        spent -= sum(_timed(optimizer.step) for _ in range(_STEPS))
        costs.append(spent / _STEPS * 1e6)
    return statistics.median(costs)


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
