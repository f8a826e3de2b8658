"""Signed ranks against SciPy, against all sign patterns one by one, and against shifts tried one by one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from agileact import ArgumentError
from agileact.study.statistics import signed_rank

few = st.lists(st.integers(-4, 4), min_size=1, max_size=8)
INF = math.inf


def by_all_patterns(differences: list[float]) -> float:
    """Wilcoxon's test as it is defined: ranks by counting, every pattern of signs written out."""
    sizes = [abs(d) for d in differences if d != 0]
    ranks = [sum(o < s for o in sizes) + (sum(o == s for o in sizes) + 1) / 2 for s in sizes]
    observed = abs(sum(math.copysign(r, d) for r, d in zip(ranks, (d for d in differences if d != 0), strict=True)))
    patterns = list(itertools.product((-1, 1), repeat=len(ranks)))
    return sum(abs(sum(s * r for s, r in zip(p, ranks, strict=True))) >= observed for p in patterns) / len(patterns)


@given(few)
def test_the_p_value_is_the_share_of_sign_patterns_also_with_ties_and_zeros(differences):
    values = [float(d) for d in differences]
    assert signed_rank(values, [0.0] * len(values)).p_value == pytest.approx(by_all_patterns(values))


@pytest.mark.parametrize("count", [1, 2, 6, 10, 20, 45])
def test_the_p_value_is_scipys(count):
    values = np.random.default_rng(count).normal(0.3, 1, count)
    assert signed_rank(values, np.zeros(count)).p_value == pytest.approx(
        scipy.stats.wilcoxon(values, method="exact").pvalue
    )


def test_interval_against_a_table():
    # Critical values of the signed-rank statistic, two-sided 0.05 (any table): 8 for 10 and 52 for 20 pairs. The
    # bounds are the 9th and the 53rd of the means of two differences, from either end.
    for count, critical in ((10, 8), (20, 52)):
        values = np.random.default_rng(count).normal(size=count)
        means = sorted((values[i] + values[j]) / 2 for i in range(count) for j in range(i, count))
        found = signed_rank(values, np.zeros(count))
        assert (found.low, found.high) == pytest.approx((means[critical], means[-critical - 1]))
        assert found.estimate == pytest.approx(np.median(means))


@pytest.mark.parametrize("comparisons", [1, 3])
def test_the_interval_holds_the_shifts_that_the_test_does_not_reject(comparisons):
    values = np.random.default_rng(5).normal(0.5, 1, 9)
    found = signed_rank(values, np.zeros(9), comparisons=comparisons)
    assert found.low is not None
    assert found.high is not None
    for shift in np.linspace(-3, 3, 121):
        kept = scipy.stats.wilcoxon(values - shift, method="exact").pvalue > 0.05 / comparisons
        assert kept == (found.low < shift < found.high), shift


def test_the_interval_holds_the_middle_as_often_as_it_says():
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(1500):
        found = signed_rank(generator.standard_t(2, size=8), np.zeros(8))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0 <= found.high
    # 3 of the 36 means are left out on either side: P = 1 - 2 * 5 / 2^8, by counting subsets with rank sum below 4.
    assert held / 1500 == pytest.approx(1 - 10 / 256, abs=0.02)


def test_one_dead_run_moves_the_mean_and_not_what_is_typical():
    plain = [0.25, 0.27, 0.26, 0.25, 0.29, 0.24, 0.26, 0.28, 0.27, 0.25]
    better = [value - 0.05 - 0.001 * place for place, value in enumerate(plain)]
    dead = [*plain[:-1], 2.3026]
    whole, hurt = signed_rank(better, plain), signed_rank(better, dead)
    assert whole.estimate == pytest.approx(-0.0545)
    assert hurt.estimate == pytest.approx(-0.0545, abs=0.001)
    assert (hurt.sign, hurt.lower, hurt.p_value) == (-1, 10, whole.p_value)


def test_diverged_runs_are_the_worst_and_equal_to_each_other():
    found = signed_rank([INF, 1.0, 1.0, 1.0, 1.0, 1.0], [1.1, 1.2, 1.3, 1.4, 1.5, 1.6])
    # Ranks 1 to 5 against 6: of 64 patterns 28 are as far from the middle, by hand 2 * P(sum <= 6) = 2 * 14 / 64.
    assert found.p_value == 28 / 64
    assert (found.lower, found.higher, found.high) == (5, 1, INF)
    assert found.estimate == pytest.approx(-0.35)
    both = signed_rank([INF, INF, 1.0], [INF, 1.0, INF])
    assert (both.estimate, both.p_value, both.lower, both.higher) == (None, 1.0, 1, 1)
    assert signed_rank([INF] * 3, [INF] * 3).p_value == 1.0


def test_too_few_pairs_have_no_interval():
    found = signed_rank([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    assert (found.low, found.high, found.sign, found.estimate) == (None, None, 0, 2.0)
    assert signed_rank(range(6), [9.0] * 6).sign == -1
    assert signed_rank(range(6), [9.0] * 6, comparisons=2).sign == 0


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=9))
def test_swapping_the_sides_mirrors_everything(values):
    zero = [0.0] * len(values)
    one, other = signed_rank(values, zero), signed_rank(zero, values)
    assert (one.p_value, one.lower, one.sign) == (other.p_value, other.higher, -other.sign)
    assert one.estimate is not None
    assert one.estimate == pytest.approx(-(other.estimate or 0.0), abs=1e-12)
    if one.low is not None and other.high is not None:
        assert one.low == -other.high


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: signed_rank([], []), "0 and 0"),
        (lambda: signed_rank([1.0], [1.0, 2.0]), "1 and 2"),
        (lambda: signed_rank([math.nan], [1.0]), "first holds NaN"),
        (lambda: signed_rank([1.0], [-INF]), "second holds NaN or minus infinity"),
        (lambda: signed_rank([1.0], [1.0], level=0), "level"),
        (lambda: signed_rank([1.0], [1.0], comparisons=0), "comparisons"),
    ],
)
def test_what_does_not_fit_is_refused(call, part):
    with pytest.raises(ArgumentError, match=part):
        call()
