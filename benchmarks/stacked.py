"""Trials of one arm, ten seeds as one stacked network against one after the other: where does stacking pay?

    python benchmarks/stacked.py

prints, for each task and arm, the median ratio of the times of interleaved runs (above 1: the stack is faster).
"""

from __future__ import annotations

import dataclasses
import statistics
import time

from agileact.bench.timing import keep_freed_memory
from agileact.study import TrialSpec, arm, run_stack, run_trial, task
from agileact.study.data import dataset as data_room

TASKS = ("paper-mlp", "deep-mlp", "mnist1d-mlp", "digits-mlp")
ARMS = ("relu", "agile-sigmoid", "combined-relu:terms=2", "prelu")
ROUNDS, ITERATIONS = 3, 200


def main() -> None:
    """Time and print."""
    keep_freed_memory()
    for task_name in TASKS:
        spec = task(task_name).spec
        budget = dataclasses.replace(spec.budget, iterations=ITERATIONS, use_test=False)
        spec = dataclasses.replace(spec, budget=budget)
        data = data_room.load(spec.data)
        for name in ARMS:
            trials = [TrialSpec(spec, arm(name).spec, seed) for seed in range(10)]
            ratios = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                run_stack(trials, {spec.data: data})
                middle = time.perf_counter()
                for trial in trials:
                    run_trial(trial, data)
                ratios.append((time.perf_counter() - middle) / (middle - start))
            print(f"{task_name:12} {name:22} {statistics.median(ratios):.2f}", flush=True)


if __name__ == "__main__":
    main()
