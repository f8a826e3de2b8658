"""agileact compare: arms on a user's own model and data, with as many trials as fit into a time."""

import argparse
import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agileact._common.errors import ArgumentError
from agileact._common.files import write_atomically
from agileact._common.optional import expect, require
from agileact._common.terminal import say
from agileact.study import models
from agileact.study.commands.context import STATISTICS, Context, as_asked, carry_out, make_executor, visible
from agileact.study.data.objective import OPTIONS
from agileact.study.data.user_function import loaded_ahead
from agileact.study.running.budget import Limit, smaller
from agileact.study.running.conduct import identified
from agileact.study.running.cost import START_SECONDS, estimate
from agileact.study.running.executors.local import LocalExecutor, available_cores
from agileact.study.running.planner import plan
from agileact.study.running.progress import format_duration
from agileact.study.spec.arms import Arm, arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.reading import PlacedError, placed
from agileact.study.spec.space import Space, search_space
from agileact.study.spec.tasks import Task
from agileact.study.spec.trial import Budget, DataSpec, ModelSpec, TaskSpec, freeze
from agileact.study.spec.user_targets import find

_MOST_SEEDS = 20
_MOST_TUNING = 16
_MOST_REPLICATES = 10
_MOST_SEEDS_OF_ONE = 4
"""Of a replicate: more replicates say more than more seeds in each, and more points to tune more than either."""

_TASK = "compare"
_COST = "cost.json"

_Costs = tuple[dict[tuple[str, str], float], float]
"""Seconds of a trial by (arm, task); and from the start of the process until these were known."""


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    expect("study", *STATISTICS)
    names = [name.strip() for name in options.arms.split(",") if name.strip()]
    if len(set(names)) < 2:
        raise ArgumentError(f"--arms must name at least two different arms, not {options.arms!r}")
    # Their modules may register the base functions that arms name.
    find(options.data, "data")
    find(options.model, "model")
    with loaded_ahead(options.data) as usual_validation:
        study = proposed(
            [arm(name) for name in dict.fromkeys(names)],
            options.model,
            options.data,
            fingerprint=models.model_fingerprint(options.model),
            iterations=options.iterations,
            batch_size=options.batch_size,
            validation=options.validation or usual_validation,
            told={name: value for name in OPTIONS if (value := getattr(options, name)) is not None},
            space=_asked_space(options),
            sampler=options.sampler,
            better=options.better,
        )
        study, data = identified(as_asked(study, options), options.data_dir)
    context = Context(study, data, options.out or Path("runs") / "compare")
    jobs = options.jobs or available_cores()
    context.check()
    seconds, beginning = _remembered(context) or (
        estimate(context.study, plan(context.study, lambda spec: None), context.data, jobs).trial_seconds,
        time.monotonic() - options.begun,
    )
    # All else that the machine does makes trials slower than the few timed steps: what is planned follows.
    expected = sum(seconds.values()) / len(seconds) / jobs
    limit = Limit(options.budget, expected, begun=options.begun, beginning=beginning)
    others = beginning + START_SECONDS + limit.closing
    context.study = fitted(context.study, seconds, options.budget, jobs, others)
    _remember(context, (seconds, beginning))
    with make_executor(options) as executor:
        context.prepare(executor)
        if isinstance(executor, LocalExecutor):
            executor.warm()  # workers begin while this process imports what the verdict needs
        _tell(context.study, others + sum(seconds.values()) * context.study.pair_trials / jobs, options.budget, jobs)
        if limit.left > 0:
            require("statsmodels.stats.multitest", "study")
        options.ready()
        carry_out(context, options, executor, limit)


def _tell(study: Study, whole: float, budget: float, jobs: int) -> None:
    """Say what is planned, and about how many seconds the whole of it takes."""
    protocol = study.protocol
    runs = f"{len(protocol.tuning_seeds)} seed{'s' * (len(protocol.tuning_seeds) > 1)} a point"
    often = f"; all of this in {protocol.replicates} replicates" * (protocol.replicates > 1)
    say(
        f"{len(study.arms)} arms: each {protocol.trials} points to tune, {runs}, and {len(protocol.seeds)} fresh ones"
        f"{often}; about {format_duration(whole)} on {jobs} core(s), within {format_duration(budget)}."
    )
    if whole > budget:
        say(f"Note: a verdict needs about {format_duration(whole)}; the budget has room for less, of all arms alike.")
    for arms, space in study.searches:
        say(f"Search space of {', '.join(arms)} ({protocol.sampler}): {space}.")
    if shown := visible(study):
        say(f"{shown}.")


def _asked_space(options: argparse.Namespace) -> Space:
    if options.space is None:
        return ()
    try:
        with placed("--space"):
            return search_space(options.space)
    except PlacedError as error:
        raise ArgumentError(f"{' '.join(map(str, error.path))}: {error}") from None


def _trials_of(study: Study) -> list[list[str]]:
    return [[arm.name, task.name, repr(task.spec)] for task in study.tasks for arm in study.arms]


def _remembered(context: Context) -> _Costs | None:
    """Return the seconds that a plan was made with; a command that is repeated would else plan other trials."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads((context.out / _COST).read_text())
        if [row[:3] for row in known["trials"]] == _trials_of(context.study):
            return {(row[0], row[1]): float(row[3]) for row in known["trials"]}, float(known["beginning"])
    return None


def _remember(context: Context, costs: _Costs) -> None:
    trials = [[*row, costs[0][row[0], row[1]]] for row in _trials_of(context.study)]
    write_atomically(context.out / _COST, json.dumps({"beginning": costs[1], "trials": trials}, indent=1) + "\n")


def proposed(
    arms: Sequence[Arm],
    model: str,
    data: str,
    *,
    fingerprint: str,
    iterations: int,
    batch_size: int,
    validation: int,
    told: Mapping[str, Any] | None = None,
    space: Space = (),
    sampler: str = "sobol",
    better: str = "",
) -> Study:
    """Return the study of a user's model and data, with the fewest trials that can say something.

    ``fingerprint`` is the model's, and ``validation`` counts where the data has no validation part.
    """
    budget = Budget(iterations, batch_size, evaluate_every=max(1, iterations // 40), test_curve=False)
    spec = TaskSpec(
        DataSpec("custom", validation, options=freeze({"target": data, **(told or {})})),
        ModelSpec("custom", freeze({"target": model, "fingerprint": fingerprint})),
        budget,
    )
    protocol = Protocol(trials=len(Protocol.lr))
    if space:
        # Twice as many points for each doubling of what is tuned together.
        protocol = Protocol(trials=max(protocol.trials, 2 ** len(space).bit_length()), space=space, sampler=sampler)
    elif sampler != "sobol":
        raise ArgumentError("--sampler is for a search space: name one with --space")
    study = Study(f"{_TASK} {model}", tuple(arms), (Task(_TASK, spec, better),), protocol)
    seeds = tuple(range(study.least_seeds))
    return dataclasses.replace(study, protocol=dataclasses.replace(protocol, seeds=seeds))


def fitted(
    study: Study,
    trial_seconds: Mapping[tuple[str, str], float],
    budget: float,
    jobs: int,
    others: float = START_SECONDS,
) -> Study:
    """Return the study with as many trials of so many seconds, by (arm, task), as fit into a time, on ``jobs`` workers.

    If so many replicates fit that a test can show something, they are taken: first as many as there may be, each with
    the fewest trials, then more points to tune and more seeds in each. Else tuning is done once, what is left beyond
    the fewest trials goes in equal parts to tuning and seeds, and the verdict is about the rates that it chose. What
    has room for one seed of each arm, but not for a verdict, is returned as it is: it becomes smaller while it runs.
    ``others`` are the seconds of all that is no trial.
    """
    each, left = sum(trial_seconds.values()), max(0.0, budget - others)
    room = int(left * jobs / each) if each > 0 else _MOST_SEEDS + _MOST_TUNING
    least_seeds, least_tuning = len(study.protocol.seeds), study.protocol.trials
    if replicated := _replicated(study, room):
        return dataclasses.replace(study, protocol=replicated)
    runs = len(study.protocol.tuning_seeds)  # of each point
    extra = room - least_seeds - least_tuning * runs
    if extra < 0:
        *_, least = smaller(study)
        if room < least.pair_trials:
            some, enough = (format_duration(others + one.pair_trials * each / jobs) for one in (least, study))
            iterations = int(study.tasks[0].spec.budget.iterations * left * jobs / (least.pair_trials * each))
            ways = ["a budget of that", "fewer arms", *([f"about {iterations} iterations"] if iterations else [])]
            raise ArgumentError(
                f"{len(study.arms)} arms need at least {least.protocol.trials} trials each to tune and 1 seed, about "
                f"{some}, and for a verdict {enough}; the budget is {format_duration(budget)}. Take "
                f"{', '.join(ways[:-1])} or {ways[-1]}"
            )
        return study
    tuning = min(_MOST_TUNING, least_tuning + extra // 2 // runs)
    seeds = min(_MOST_SEEDS, room - tuning * runs)
    tuning = min(_MOST_TUNING, (room - seeds) // runs)
    return dataclasses.replace(
        study, protocol=dataclasses.replace(study.protocol, trials=tuning, seeds=tuple(range(seeds)))
    )


def _replicated(study: Study, room: int) -> Protocol | None:
    """Return the protocol of as many replicates as fit into ``room`` trials of each arm; None if they are too few."""
    points, seeds = study.protocol.trials, 1
    replicates = min(max(_MOST_REPLICATES, study.least_seeds) if _MOST_REPLICATES else 0, room // (points + seeds))
    if replicates < study.least_seeds:
        return None
    each = room // replicates
    points = min(_MOST_TUNING, points + (each - points - seeds) // 2)
    seeds = min(_MOST_SEEDS_OF_ONE, each - points)
    points = min(_MOST_TUNING, each - seeds)
    return dataclasses.replace(
        study.protocol, trials=points, tuning_seeds=(1000,), seeds=tuple(range(seeds)), replicates=replicates
    )
