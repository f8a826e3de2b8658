from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agileact import ArgumentError
from agileact.study.analysis import paired_difference, pairs_in_same_order, rank_correlation, summarise

finite = st.floats(-1e3, 1e3)


def test_summary_of_known_numbers():
    summary = summarise([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert summary is not None
    assert summary.mean == 5.0
    assert summary.deviation == pytest.approx(math.sqrt(32 / 7))
    assert summarise([]) is None
    assert summarise([3.0]).format(1) == "3.0"  # type: ignore[union-attr]


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


def test_orders():
    assert pairs_in_same_order([1, 2, 3, 4], [4, 3, 2, 1]) == (0, 6)
    assert pairs_in_same_order([1, 1], [1, 2]) == (0, 1)
    assert rank_correlation([1, 2, 3, 4], [9, 7, 5, 3]) == -1.0
