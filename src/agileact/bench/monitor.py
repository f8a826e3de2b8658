"""What watching costs: a training step with a monitor attached to its optimizer, against the step alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agileact.bench.step import MODELS
from agileact.bench.timing import environment, interleaved
from agileact.monitor import Monitor

_STEPS = 1000


def run(
    *,
    quick: bool = False,
    threads: Sequence[int] = (1, 2),
    models: Sequence[str] = tuple(MODELS),
    notify: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Time whole steps with and without a monitor, and the monitor alone; return rows and environment.

    A hundredth of a step is less than what whole steps differ by on a busy machine. So the monitor's own cost is also
    timed directly: 1,000 of its steps, with all copies, statistics and measurements of activations that belong to
    them, in the first 1,000 steps, where it records most. ``share`` is that cost a step over the step alone.

    Args:
        quick: Fewer rounds.
        threads: The numbers of threads.
        models: Names from ``step.MODELS``.
        notify: Is told each row when it is there.
    """
    before = torch.get_num_threads()
    rows = []
    try:
        for name in models:
            make, shape = MODELS[name]
            x, target = torch.randn(shape), torch.randint(10, (shape[0],))
            for count in threads:
                torch.set_num_threads(count)
                alone, watched = make("fused"), make("fused")
                plain = torch.optim.Adam(alone.parameters(), lr=1e-4, fused=True)
                optimizer = torch.optim.Adam(watched.parameters(), lr=1e-4, fused=True)
                with Monitor(watched, optimizer=optimizer):
                    rounds = 7 if name == "resnet18" else 61
                    times = interleaved(
                        {"alone": _step(alone, plain, x, target), "watched": _step(watched, optimizer, x, target)},
                        rounds=max(3, rounds // 3) if quick else rounds,
                    )
                own = own_cost(make("fused"), x, repeats=1 if quick else 5)
                row = {
                    "model": name,
                    "threads": count,
                    "step_us": round(times["alone"], 1),
                    "watched_us": round(times["watched"], 1),
                    "ratio": round(times["watched"] / times["alone"], 4),
                    "monitor_us": round(own, 2),
                    "share": round(own / times["alone"], 5),
                }
                rows.append(row)
                notify(" ".join(f"{key}={value}" for key, value in row.items()))
    finally:
        torch.set_num_threads(before)
    return {"benchmark": "monitor", "environment": environment(), "rows": rows}


def own_cost(model: nn.Module, x: Tensor, repeats: int) -> float:
    """Return the time that a monitor takes a step, in microseconds: the median over ``repeats`` times 1,000 steps."""
    costs = []
    for _ in range(repeats):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        monitor = Monitor(model, optimizer=optimizer)
        spent = 0.0
        for step in range(_STEPS):
            if step % 100 == 0:
                # The forward pass in which the monitor looks at activations, and then the same one without it.
                spent += _timed(lambda: model(x))
                start = time.perf_counter()
                optimizer.step()
                spent += time.perf_counter() - start
                spent -= statistics.median(_timed(lambda: model(x)) for _ in range(3))
            else:
                start = time.perf_counter()
                optimizer.step()
                spent += time.perf_counter() - start
        start = time.perf_counter()
        monitor.close()
        spent += time.perf_counter() - start
        # What the optimizer's empty step costs by itself.
        spent -= sum(_timed(optimizer.step) for _ in range(_STEPS))
        costs.append(spent / _STEPS * 1e6)
    return statistics.median(costs)


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, target: Tensor) -> Callable[[], object]:
    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), target).backward()
        optimizer.step()

    return step
