"""agileact compare: arms on a user's own model and data, with as many trials as fit into a time."""

import argparse
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agileact._common.errors import ArgumentError
from agileact._common.files import write_atomically
from agileact._common.optional import expect
from agileact._common.terminal import say
from agileact.study import models
from agileact.study.commands.context import STATISTICS, Context, as_asked, carry_out, visible
from agileact.study.data.dataset import load
from agileact.study.data.objective import OPTIONS
from agileact.study.running.budget import Limit
from agileact.study.running.conduct import identified
from agileact.study.running.cost import START_SECONDS, estimate
from agileact.study.running.executors.local import available_cores
from agileact.study.running.planner import plan
from agileact.study.running.progress import format_duration
from agileact.study.spec.arms import Arm, arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.reading import PlacedError, placed
from agileact.study.spec.space import Space, search_space
from agileact.study.spec.tasks import Task
from agileact.study.spec.trial import Budget, DataSpec, ModelSpec, TaskSpec, freeze
from agileact.study.spec.user_targets import find
from agileact.study.training.dry_run import check_arms

_MOST_SEEDS = 20
_MOST_TUNING = 16
_MOST_REPLICATES = 10
_MOST_SEEDS_OF_ONE = 4
"""Of a replicate: more replicates say more than more seeds in each, and more points to tune more than either."""

_TASK = "compare"


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    expect("study", *STATISTICS)
    begun = time.monotonic()
    names = [name.strip() for name in options.arms.split(",") if name.strip()]
    if len(set(names)) < 2:
        raise ArgumentError(f"--arms must name at least two different arms, not {options.arms!r}")
    # Their modules may register the base functions that arms name.
    find(options.data, "data")
    find(options.model, "model")
    study = proposed(
        [arm(name) for name in dict.fromkeys(names)],
        options.model,
        options.data,
        fingerprint=models.model_fingerprint(options.model),
        iterations=options.iterations,
        batch_size=options.batch_size,
        validation=options.validation or usual_validation(options.data),
        told={name: value for name in OPTIONS if (value := getattr(options, name)) is not None},
        space=_asked_space(options),
        sampler=options.sampler,
        better=options.better,
    )
    study, data = identified(as_asked(study, options), options.data_dir)
    context = Context(study, data, options.out or Path("runs") / "compare")
    jobs = options.jobs or available_cores()
    check_arms(context.study, context.data)
    seconds = _remembered(
        context,
        lambda: estimate(context.study, plan(context.study, lambda spec: None), context.data, jobs).trial_seconds,
    )
    context.study = fitted(context.study, seconds, options.budget, jobs)
    protocol = context.study.protocol
    whole = START_SECONDS + sum(seconds.values()) * context.study.pair_trials / jobs
    runs = f"{len(protocol.tuning_seeds)} seed{'s' * (len(protocol.tuning_seeds) > 1)} a point"
    often = f"; all of this in {protocol.replicates} replicates" * (protocol.replicates > 1)
    say(
        f"{len(names)} arms: each {protocol.trials} points to tune, {runs}, and {len(protocol.seeds)} fresh ones"
        f"{often}; about {format_duration(whole)} on {jobs} core(s), within {format_duration(options.budget)}."
    )
    for arms, space in context.study.searches:
        say(f"Search space of {', '.join(arms)} ({protocol.sampler}): {space}.")
    if shown := visible(context.study):
        say(f"{shown}.")
    # All else that the machine does makes trials slower than the few timed steps: what is planned follows.
    expected = sum(seconds.values()) / len(seconds) / jobs
    carry_out(context, options, Limit(options.budget, expected, begun=begun))


def _asked_space(options: argparse.Namespace) -> Space:
    if options.space is None:
        return ()
    try:
        with placed("--space"):
            return search_space(options.space)
    except PlacedError as error:
        raise ArgumentError(f"{' '.join(map(str, error.path))}: {error}") from None


def _remembered(context: Context, measure: Callable[[], dict[tuple[str, str], float]]) -> dict[tuple[str, str], float]:
    """Return measured seconds; the same ones when the command is repeated, or it would plan other trials."""
    path = context.out / "cost.json"
    wanted = [[arm.name, task.name, repr(task.spec)] for task in context.study.tasks for arm in context.study.arms]
    if path.exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            known = json.loads(path.read_text())
            if [row[:3] for row in known] == wanted:
                return {(row[0], row[1]): float(row[3]) for row in known}
    found = measure()
    rows = [[*row, found[row[0], row[1]]] for row in wanted]
    write_atomically(path, json.dumps(rows, indent=1) + "\n")
    return found


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


def usual_validation(data: str) -> int:
    """Return how many samples are set aside where the user does not say: 500, and at most a fifth."""
    usual, loaded = DataSpec("custom").validation, load(DataSpec("custom", 1, options=freeze({"target": data})))
    if len(loaded.validation_y) > 1:
        return usual  # it has a part of its own, and the number means nothing
    return max(1, min(usual, (len(loaded.train_y) + 1) // 5))


def fitted(study: Study, trial_seconds: Mapping[tuple[str, str], float], budget: float, jobs: int) -> Study:
    """Return the study with as many trials of so many seconds, by (arm, task), as fit into a time, on ``jobs`` workers.

    If so many replicates fit that a test can show something, they are taken: first as many as there may be, each with
    the fewest trials, then more points to tune and more seeds in each. Else tuning is done once, what is left beyond
    the fewest trials goes in equal parts to tuning and seeds, and the verdict is about the rates that it chose.
    """
    each = sum(trial_seconds.values())
    room = int(max(0.0, budget - START_SECONDS) * jobs / each) if each > 0 else _MOST_SEEDS + _MOST_TUNING
    least_seeds, least_tuning = len(study.protocol.seeds), study.protocol.trials
    if replicated := _replicated(study, room):
        return dataclasses.replace(study, protocol=replicated)
    runs = len(study.protocol.tuning_seeds)  # of each point
    extra = room - least_seeds - least_tuning * runs
    if extra < 0:
        needed = START_SECONDS + (least_seeds + least_tuning * runs) * each / jobs
        share = max(0.0, budget - START_SECONDS) / (needed - START_SECONDS)
        iterations = int(study.tasks[0].spec.budget.iterations * share)
        ways = ["a budget of that", "fewer arms", *([f"about {iterations} iterations"] if iterations else [])]
        raise ArgumentError(
            f"{len(study.arms)} arms need at least {least_tuning * runs} trials each to tune and {least_seeds} seeds, "
            f"about {format_duration(needed)}; the budget is {format_duration(budget)}. Take "
            f"{', '.join(ways[:-1])} or {ways[-1]}"
        )
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
