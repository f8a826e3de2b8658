from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agileact import ArgumentError
from agileact.study.statistics import TimesToLoss, TimeToLoss, common_target, sign_flip_test, time_to_loss


def test_the_first_evaluation_at_or_below_the_target_counts():
    time = time_to_loss([0, 10, 20, 30], [3.0, 1.0, 2.0, 0.5], 1.0, seconds_per_iteration=0.5)
    assert (time.iteration, time.seconds, time.horizon, time.reached) == (10, 5.0, 30, True)
    assert time_to_loss([0, 10], [1.0, 2.0], 1.0).iteration == 0
    never = time_to_loss([0, 10], [2.0, math.nan], 1.0, seconds_per_iteration=0.5)
    assert (never.iteration, never.seconds, never.horizon) == (None, None, 10)
    assert time_to_loss([0, 10], [2.0, -math.inf], 1.0).iteration is None


@given(st.lists(st.floats(0, 10), min_size=1, max_size=9), st.floats(0, 10), st.floats(0, 10))
def test_a_harder_target_never_comes_sooner(losses, target, other):
    iterations = list(range(len(losses)))
    easy = time_to_loss(iterations, losses, max(target, other)).iteration
    hard = time_to_loss(iterations, losses, min(target, other)).iteration
    assert hard is None or (easy is not None and easy <= hard)


def test_runs_that_never_got_there_stay_in():
    times = TimesToLoss(tuple(TimeToLoss(i, 100, 0.1) for i in (20, 40, None)))
    assert times.reached == 2
    assert times.median() == 40
    assert times.median("seconds") == 4.0
    assert times.describe() == "2 of 3 runs got there, in the median after 40 iterations and 4 s"
    half = TimesToLoss(tuple(TimeToLoss(i, 100, 0.1) for i in (20, None)))
    assert half.median() is None
    none = TimesToLoss((TimeToLoss(None, 100, 0.1), TimeToLoss(None, 100, 0.1)))
    assert none.median() is None
    assert "beyond the 100 iterations" in none.describe()


def test_the_lowest_loss_that_both_reach():
    assert common_target([3.0, 1.0, 2.0], [2.5, 1.5, 9.0]) == 1.5
    assert common_target([3.0, math.nan, 2.0], [math.inf, 1.5]) == 2.0
    assert common_target([1.0], [math.nan, math.inf]) is None


@pytest.mark.parametrize("seeds", [8, 16])
def test_an_arm_against_itself_is_found_earlier_or_later_by_chance_alone(seeds):
    # The time to the baseline's own best would be "significantly later" far more often than in one of twenty draws.
    random = np.random.default_rng(3)
    draws, both, own = 400, 0, 0
    iterations = list(range(0, 300, 10))
    for _ in range(draws):
        runs = (np.exp(-np.array(iterations) / 60) + random.normal(0, 0.05, (seeds, 2, 30))).tolist()
        common: list[list[float]] = []
        best: list[list[float]] = []
        for arm, base in runs:
            target = common_target(arm, base)
            assert target is not None
            for found, goal in ((common, target), (best, min(base))):
                times = [time_to_loss(iterations, curve, goal).iteration for curve in (arm, base)]
                found.append([290.0 if time is None else float(time) for time in times])
        both += sign_flip_test(*zip(*common, strict=True)) < 0.05
        own += sign_flip_test(*zip(*best, strict=True)) < 0.05
    assert both / draws < 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    assert own / draws > 0.1


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: time_to_loss([0], [1.0, 2.0], 1.0), "not 2 and 1"),
        (lambda: time_to_loss([], [], 1.0), "not 0 and 0"),
        (lambda: time_to_loss([0, 0], [1.0, 2.0], 1.0), "increase"),
        (lambda: time_to_loss([0], [1.0], math.inf), "target must be finite"),
        (lambda: TimesToLoss(()), "at least one run"),
        (lambda: TimesToLoss((TimeToLoss(1, 1, 1.0),)).median("hours"), "'iterations' or 'seconds'"),
    ],
)
def test_what_does_not_fit_is_refused(call, part):
    with pytest.raises(ArgumentError, match=part):
        call()
