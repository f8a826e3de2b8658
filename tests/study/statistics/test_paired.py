from __future__ import annotations

import importlib
import itertools
import math
import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agileact import ArgumentError
from agileact.study.statistics import effect_size, holm, paired_difference, sign_flip_test, smallest_effect

finite = st.floats(-1e3, 1e3)
pairs_of = st.lists(st.tuples(finite, finite), min_size=2, max_size=8)


def sides(pairs):
    return [p[0] for p in pairs], [p[1] for p in pairs]


def test_interval_against_a_table_of_students_t():
    # Differences 1..5: mean 3, standard error sqrt(2.5 / 5); t(0.975, 4) = 2.776 (any table of Student's t).
    difference = paired_difference([2.0, 4.0, 6.0, 8.0, 10.0], [1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451 * math.sqrt(0.5)
    assert difference.mean == 3.0
    assert difference.low == pytest.approx(3 - half)
    assert difference.high == pytest.approx(3 + half)
    assert difference.sign == 1


def test_more_comparisons_widen_the_interval():
    a, b = [1.0, 2.0, 4.0], [0.5, 1.7, 3.6]
    one, ten = paired_difference(a, b), paired_difference(a, b, comparisons=10)
    assert one.low is not None
    assert ten.low is not None
    assert ten.low < one.low


def test_one_pair_gives_no_interval_and_no_sign():
    difference = paired_difference([1.0], [2.0])
    assert (difference.mean, difference.low, difference.high, difference.sign) == (-1.0, None, None, 0)


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=8))
def test_swapping_the_sides_mirrors_the_interval(pairs):
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.mean == pytest.approx(-other.mean, abs=1e-9)
    assert one.sign == -other.sign


def test_unequal_lengths_are_refused():
    with pytest.raises(ArgumentError, match="2 and 1"):
        paired_difference([1.0, 2.0], [1.0])


@given(pairs_of, st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_changes_nothing(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    (a, b), (c, d) = sides(pairs), sides(shuffled)
    assert sign_flip_test(a, b) == pytest.approx(sign_flip_test(c, d), abs=1e-9)
    one, other = paired_difference(a, b), paired_difference(c, d)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-9)
    assert smallest_effect(a, b) == pytest.approx(smallest_effect(c, d), rel=1e-6, abs=1e-9)


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=8), st.sampled_from([0.25, 2.0, 1024.0]))
def test_a_change_of_unit_changes_what_has_the_unit_and_nothing_else(differences, factor):
    a, zero = [float(d) for d in differences], [0.0] * len(differences)
    scaled = [factor * d for d in a]
    assert sign_flip_test(scaled, zero) == sign_flip_test(a, zero)
    for method in ("student", "bootstrap"):
        one = paired_difference(a, zero, method=method, resamples=200)
        other = paired_difference(scaled, zero, method=method, resamples=200)
        assert other.mean == factor * one.mean
        assert one.low is not None
        assert other.low == pytest.approx(factor * one.low, rel=1e-9, abs=1e-9)
    size, same = effect_size(a, zero), effect_size(scaled, zero)
    assert (size is None) == (same is None)
    if size is not None and same is not None:
        assert same.d == pytest.approx(size.d)


@given(pairs_of)
def test_swapping_the_sides_swaps_the_sign(pairs):
    a, b = sides(pairs)
    assert sign_flip_test(a, b) == sign_flip_test(b, a)
    one, other = effect_size(a, b), effect_size(b, a)
    assume(one is not None and other is not None)
    assert one is not None
    assert other is not None
    assert one.d == pytest.approx(-other.d)
    assert abs(one.g) < abs(one.d) or one.d == 0


@pytest.mark.parametrize("count", [2, 5, 9])
def test_the_sign_flip_test_is_scipys(count):
    generator = np.random.default_rng(count)
    a, b = generator.normal(size=(2, count)) + np.array([[0.4], [0.0]])
    known = scipy.stats.permutation_test(
        (a, b), lambda x, y: float(np.mean(x - y)), permutation_type="samples", n_resamples=np.inf, vectorized=False
    )
    assert sign_flip_test(a, b) == pytest.approx(known.pvalue)


def test_the_sign_flip_test_by_hand():
    # Differences 1, 2, 3: of the 8 sums only 6 and -6 are as far from zero as 6.
    assert sign_flip_test([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]) == 2 / 8
    # With 1, 1, 1 and -1 the sum is 2; |sum| >= 2 for all patterns but the 6 that sum to zero.
    assert sign_flip_test([1.0, 1.0, 1.0, -1.0], [0.0] * 4) == 10 / 16
    assert sign_flip_test([0.0, 0.0], [0.0, 0.0]) == 1.0
    # 0.1 + 0.2 is not 0.3 in floating point; the patterns count as equal all the same.
    assert sign_flip_test([0.1, 0.2, 0.3, 0.3], [0.0] * 4) == sign_flip_test([1.0, 2.0, 3.0, 3.0], [0.0] * 4)


def test_many_pairs_are_sampled_and_close_to_the_normal_limit():
    generator = np.random.default_rng(0)
    differences = generator.normal(0.3, 1.0, 60)
    p = sign_flip_test(differences, np.zeros(60))
    z = differences.sum() / math.sqrt((differences**2).sum())
    assert p == pytest.approx(2 * scipy.stats.norm.sf(abs(z)), abs=0.01)
    assert p == sign_flip_test(differences, np.zeros(60))
    assert sign_flip_test(np.ones(40), np.zeros(40)) == pytest.approx(1 / 100_001)


def test_the_bootstrap_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(120):
        values = generator.exponential(size=25)
        interval = paired_difference(values, np.zeros(25), level=0.9, method="bootstrap", resamples=400)
        assert interval.low is not None
        assert interval.high is not None
        held += interval.low <= 1 <= interval.high
    assert 0.8 < held / 120 < 0.97
    flat = paired_difference([1.0, 1.0], [0.0, 0.0], method="bootstrap")
    assert (flat.low, flat.high) == (1.0, 1.0)


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1, then made monotone.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@settings(max_examples=15)  # statsmodels takes its time
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_keeps_the_order_and_is_bonferroni_for_the_smallest(values):
    corrected = holm(values)
    assert all(p <= q + 1e-12 for p, q in zip(values, corrected, strict=True))
    assert min(corrected) == pytest.approx(min(1.0, len(values) * min(values)))
    order = sorted(range(len(values)), key=values.__getitem__)
    assert all(corrected[i] <= corrected[j] + 1e-12 for i, j in itertools.pairwise(order))


def test_hedges_factor_against_the_gamma_function():
    values = [0.3, 0.9, 0.1, 0.5, 0.7]
    size = effect_size(values, [0.0] * 5)
    assert size is not None
    d = statistics.fmean(values) / statistics.stdev(values)
    factor = math.gamma(4 / 2) / (math.sqrt(4 / 2) * math.gamma(3 / 2))
    assert (size.d, size.g) == pytest.approx((d, d * factor))
    assert effect_size([1.0, 1.0], [0.0, 0.0]) is None


@pytest.mark.parametrize("count", [4, 6, 10, 30])
def test_the_smallest_effect_is_that_of_statsmodels(count):
    values = np.random.default_rng(count).normal(size=count)
    power = importlib.import_module("statsmodels.stats.power").TTestPower()
    known = power.solve_power(nobs=count, alpha=0.05 / 3, power=0.8)
    effect = smallest_effect(values, np.zeros(count), comparisons=3)
    assert effect == pytest.approx(known * statistics.stdev(values), rel=1e-5)


def test_an_effect_of_that_size_is_seen_as_often_as_it_says():
    generator = np.random.default_rng(3)
    effect = smallest_effect([-1.0, 1.0] * 5, [0.0] * 10)
    assert effect is not None
    effect /= statistics.stdev([-1.0, 1.0] * 5)
    seen = sum(paired_difference(generator.normal(effect, 1, 10), np.zeros(10)).sign == 1 for _ in range(400))
    assert 0.74 < seen / 400 < 0.86


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: paired_difference([], []), "0 and 0"),
        (lambda: paired_difference([1.0, math.inf], [0.0, 0.0]), "not finite, such as inf; a diverged run"),
        (lambda: sign_flip_test([1.0], [math.nan]), "second holds 1 values"),
        (lambda: paired_difference([1.0], [0.0], level=1.0), "level must lie between"),
        (lambda: paired_difference([1.0], [0.0], comparisons=0), "comparisons"),
        (lambda: paired_difference([1.0], [0.0], method="t"), "'student' or 'bootstrap'"),  # type: ignore[arg-type]
        (lambda: holm([1.2]), "between 0 and 1"),
        (lambda: effect_size([1.0], [0.0]), "at least two"),
        (lambda: smallest_effect([1.0], [0.0], power=1.0), "power"),
        (lambda: smallest_effect([1.0, 2.0], [0.0, 0.0], power=0.01), "greater than the test's level"),
    ],
)
def test_what_does_not_fit_is_refused(call, part):
    with pytest.raises(ArgumentError, match=part):
        call()
