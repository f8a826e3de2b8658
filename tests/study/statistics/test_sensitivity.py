"""The range of good rates and the expected best of a few draws, by counting and by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from agileact._common.errors import ArgumentError
from agileact.study.statistics import expected_best, rate_range


@pytest.mark.parametrize("draws", [1, 2, 4, 7])
def test_the_expected_best_is_the_mean_over_all_sets(draws: int):
    losses = np.random.default_rng(0).normal(size=7).tolist()
    sets = [min(one) for one in itertools.combinations(losses, draws)]
    assert expected_best(losses, draws) == pytest.approx(sum(sets) / len(sets), abs=1e-12)


def test_an_infinite_loss_counts_only_where_it_can_be_the_best():
    assert expected_best([1.0, math.inf], 2) == 1.0
    assert expected_best([1.0, math.inf], 1) == math.inf
    assert expected_best([1.0], 2) is None
    with pytest.raises(ArgumentError, match="at least 1, not 0"):
        expected_best([1.0], 0)


def test_the_range_ends_where_the_line_crosses_the_bound():
    # Losses that are a line over the logarithm of the rate, on each side of the best: 1 + 0.5 |log10(rate / 0.01)|.
    rates = [0.1, 0.001, 0.01]
    found = rate_range(rates, [1.5, 1.5, 1.0], share=0.1)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.01 * 10**-0.2, 0.01 * 10**0.2))
    assert found.decades == pytest.approx(0.4)
    assert not found.open_low
    assert not found.open_high


def test_a_range_may_be_cut_by_what_was_tried_or_by_divergence():
    found = rate_range([0.001, 0.01, 0.1, 1.0], [1.05, 1.0, 1.09, math.inf])
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.001, 0.1))
    assert found.open_low
    assert not found.open_high
    # A second valley behind a hill is no part of it.
    found = rate_range([0.001, 0.01, 0.1], [1.0, 2.0, 1.0])
    assert found is not None
    assert found.high == pytest.approx(0.001 * 10**0.1)


@pytest.mark.parametrize("losses", [[math.inf, math.inf], [-1.0, 1.0], [0.0, 1.0]])
def test_no_range_without_a_positive_lowest_loss(losses: list[float]):
    assert rate_range([0.1, 0.2], losses) is None
    assert rate_range([0.1], [1.0]) is None


def test_rates_are_checked():
    with pytest.raises(ArgumentError, match="as many losses as rates, not 1 for 2"):
        rate_range([0.1, 0.2], [1.0])
    with pytest.raises(ArgumentError, match="different positive numbers"):
        rate_range([0.1, 0.1], [1.0, 2.0])
