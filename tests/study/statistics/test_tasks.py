from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from agileact import ArgumentError
from agileact.study.statistics import (
    average_ranks,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)

losses = st.lists(st.integers(0, 9), min_size=2, max_size=7)


@pytest.mark.parametrize("shape", [(4, 2), (5, 3), (10, 1), (1, 4)])
def test_the_interquartile_mean_is_scipys(shape):
    matrix = np.random.default_rng(0).normal(size=shape)
    estimate = interquartile_mean(matrix, resamples=200)
    assert estimate.value == pytest.approx(scipy.stats.trim_mean(matrix, 0.25, axis=None))
    if shape[0] > 1:
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high
    else:
        assert (estimate.low, estimate.high) == (None, None)


def test_tasks_are_resampled_apart():
    # Within each task all runs are alike, so no resample differs; resampling over all values would.
    estimate = interquartile_mean(np.tile([1.0, 5.0, 9.0], (6, 1)), resamples=50)
    assert (estimate.low, estimate.high) == (estimate.value, estimate.value)


def test_a_few_diverged_runs_are_cut_off_and_many_are_not():
    assert interquartile_mean([[1.0], [2.0], [3.0], [math.inf]], resamples=50).value == 2.5
    assert math.isinf(interquartile_mean([[1.0], [math.inf], [math.inf], [math.inf]], resamples=50).value)


@given(losses, losses)
def test_the_probability_of_improvement_is_mann_whitneys(first, second):
    a, b = np.array(first, float), np.array(second, float)
    u = scipy.stats.mannwhitneyu(b, a).statistic / (len(a) * len(b))
    one = probability_of_improvement(a[:, None], b[:, None], resamples=20)
    other = probability_of_improvement(b[:, None], a[:, None], resamples=20)
    assert one.value == pytest.approx(u)
    assert one.value + other.value == pytest.approx(1)
    shifted = probability_of_improvement(7 * a[:, None] + 2, 7 * b[:, None] + 2, resamples=20)
    assert shifted == one


def test_the_probability_of_improvement_averages_over_tasks_and_takes_diverged_as_worst():
    first, second = [[0.0, math.inf], [1.0, 2.0]], [[2.0, 3.0]]
    assert probability_of_improvement(first, second).value == pytest.approx((1 + 0.5) / 2)
    assert probability_of_improvement([[math.inf]], [[math.inf]]).value == 0.5


def test_ranks_by_hand_with_ties():
    ranking = average_ranks([[0.1, 0.2, 0.2], [0.3, 0.1, 0.2], [0.1, math.inf, 0.2]])
    assert ranking.ranks == pytest.approx(((1 + 3 + 1) / 3, (2.5 + 1 + 3) / 3, (2.5 + 2 + 2) / 3))


def test_the_critical_difference_is_demsars():
    # Demšar 2006, Table 5(a): q(0.05) = 2.343 for 3 and 2.569 for 4 classifiers; section 3.2.2: 14 data sets, CD 1.25.
    matrix = np.random.default_rng(0).normal(size=(14, 4))
    ranking = average_ranks(matrix)
    assert ranking.critical_difference == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), rel=1e-3)
    known = scipy.stats.friedmanchisquare(*matrix.T).pvalue
    assert ranking.friedman_p == pytest.approx(known)


@given(st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=2, max_size=6))
def test_ranks_follow_their_arms_and_sum_to_what_they_must(rows):
    matrix = np.array(rows, float)
    ranking = average_ranks(matrix)
    assert sum(ranking.ranks) == pytest.approx(10)
    order = [2, 0, 3, 1]
    assert average_ranks(matrix[:, order]).ranks == pytest.approx([ranking.ranks[i] for i in order])


def test_equal_arms_are_alike_and_two_have_no_friedman_test():
    matrix = np.tile([1.0, 2.0, 3.0, 4.0], (60, 1))
    assert average_ranks(np.ones((5, 3))).friedman_p == 1.0
    assert average_ranks(matrix[:, :2]).friedman_p is None


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: interquartile_mean([1.0, 2.0]), r"matrix of runs x tasks .* not of shape \(2,\)"),
        (lambda: interquartile_mean([[]]), "matrix"),
        (lambda: interquartile_mean([[math.nan]]), "NaN; a diverged run"),
        (lambda: interquartile_mean([[-math.inf]]), "minus infinity"),
        (lambda: interquartile_mean([[1.0]], level=2), "level"),
        (lambda: interquartile_mean([[1.0]], resamples=0), "resamples"),
        (lambda: probability_of_improvement([[1.0]], [[1.0, 2.0]]), "same tasks, not 1 and 2"),
        (lambda: average_ranks([[1.0, 2.0]]), "at least two arms and two rows, not 2 and 1"),
    ],
)
def test_what_does_not_fit_is_refused(call, part):
    with pytest.raises(ArgumentError, match=part):
        call()


def test_a_profile_is_the_distribution_of_all_runs():
    matrix = np.random.default_rng(0).random((7, 3))
    edges = np.linspace(0, 1, 9)[1:]
    profile = performance_profile(matrix, edges, resamples=200)
    assert profile.shares == pytest.approx([(matrix <= edge).mean() for edge in edges])
    assert profile.low is not None
    assert profile.high is not None
    assert all(low <= share <= high for low, share, high in zip(profile.low, profile.shares, profile.high, strict=True))
    worse = performance_profile([[0.5], [math.inf]], [0.4, 1e9], resamples=50)
    assert worse.shares == (0.0, 0.5)
    assert performance_profile([[0.5, 0.7]], [1.0]).low is None
    with pytest.raises(ArgumentError, match="finite and increasing"):
        performance_profile(matrix, [0.5, 0.5])
