"""What a study will cost: a few steps of every arm on every task, timed, times what is planned."""

import dataclasses
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from agileact.study.data.dataset import DataSet
from agileact.study.running.planner import Plan
from agileact.study.spec.protocol import Study
from agileact.study.spec.trial import ArmSpec, TaskSpec, TrialSpec
from agileact.study.training.loop import evaluate
from agileact.study.training.pooling import pooled_at_once
from agileact.study.training.run import run_trial
from agileact.study.training.setup import build_optimizer, network_on
from agileact.study.training.stacked import run_stack, stackable
from agileact.study.training.threads import one_thread

_STEPS = 6
_SECONDS_TO_TIME = 1.0
"""Of steps that take so long together, two are enough to know how long one takes."""
_TRIALS_TIMED = 10
"""So many trials of a stack tell nearly what each takes of a whole one."""
START_SECONDS = 4.0
"""What a worker needs to import torch and load data."""


@dataclass(frozen=True)
class Cost:
    """Seconds of the whole study, tuning to the last point, and of one final trial by (arm, task)."""

    seconds: float
    trial_seconds: dict[tuple[str, str], float]


def estimate(study: Study, current: Plan, data: Mapping[str, DataSet], jobs: int) -> Cost:
    """Estimate how long what is left of a study takes, from a few timed steps of each arm and task.

    Other load on the machine, and cores that share what they compute with, make it longer. What is done is left out
    in proportion; ``jobs`` trials run side by side.
    """
    with one_thread():
        seconds = {
            (arm.name, task.name): trial_seconds(task.spec, arm.spec, data[task.name], study.pair_trials)
            for task in study.tasks
            for arm in study.arms
        }
    left = statistics.mean(seconds.values()) * (study.most_trials - current.done)
    return Cost(0.0 if current.finished else START_SECONDS + left / jobs, seconds)


def trial_seconds(task: TaskSpec, arm: ArmSpec, data: DataSet, trials: int = 1) -> float:
    """Return how long one trial takes of as many: timed steps and one timed evaluation, times their number.

    Trials that share a stack are timed in one. What is to run on a GPU that this process does not see, because it is a
    cluster's, is timed on the CPU.
    """
    budget = task.budget
    on_gpu = budget.device == "cuda" and torch.cuda.is_available()
    if on_gpu or (budget.device == "cpu" and (budget.precision != "fp32" or budget.processes > 1)):
        return _tried_seconds(task, arm, data)
    if trials > 1 and stackable(TrialSpec(task, arm, 0)):
        return _tried_seconds(task, arm, data, min(trials, _TRIALS_TIMED))
    model = pooled_at_once(network_on(data, task.model, arm))
    optimizer, loss = build_optimizer(model, arm), data.objective.mean
    x, y = data.train_x[: budget.batch_size], data.train_y[: budget.batch_size]
    durations: list[float] = []
    while len(durations) < 2 or (len(durations) < _STEPS and sum(durations) < _SECONDS_TO_TIME):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss(model(data.objective.augmented(x)), y).backward()
        optimizer.step()
        durations.append(time.perf_counter() - start)
    start = time.perf_counter()
    evaluate(model, data.validation_x, data.validation_y, objective=data.objective)
    evaluation = time.perf_counter() - start
    test = evaluation * len(data.test_y) / len(data.validation_y)
    evaluations = budget.iterations // budget.evaluate_every + 1
    # The first step sets memory aside and is slower; the fastest is what nothing disturbed.
    return min(durations[1:]) * budget.iterations + evaluation * evaluations + test


def _tried_seconds(task: TaskSpec, arm: ArmSpec, data: DataSet, together: int = 1) -> float:
    """Return how long one trial takes, from very short ones: processes, device, precision and stack count."""
    budget = task.budget
    short = dataclasses.replace(
        budget, iterations=_STEPS, evaluate_every=_STEPS, probe_every=0, test_curve=False, use_test=False
    )
    specs = [TrialSpec(dataclasses.replace(task, budget=short), arm, seed) for seed in range(together)]
    start = time.perf_counter()
    results = run_stack(specs, {task.data: data}) if together > 1 else [run_trial(specs[0], data)]
    result = results[0]  # each has the same share of the time
    beginning = (time.perf_counter() - start) / together - result.seconds
    # It evaluated all training samples once and the validation samples twice.
    validation, test = len(data.validation_y), len(data.test_y)
    evaluating = max(0.0, result.seconds - _STEPS * result.seconds_per_iteration)
    sample = evaluating / (len(data.train_y) + 2 * validation)
    evaluations = budget.iterations // budget.evaluate_every + 1
    return beginning + result.seconds_per_iteration * budget.iterations + sample * (validation * evaluations + test)
