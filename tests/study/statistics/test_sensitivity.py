"""Rate ranges and expected best losses, against formulas of their own."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import pytest

from agileact._common.errors import ArgumentError
from agileact.study.statistics import expected_best, rate_range


@pytest.mark.parametrize("draws", [1, 2, 4])
def test_the_expected_best_is_the_mean_over_all_equally_likely_draws(draws):
    losses = [0.7, 0.2, 1.5, 0.2, 3.0]
    expected = statistics.fmean(min(draw) for draw in itertools.product(losses, repeat=draws))
    assert expected_best(losses, draws) == pytest.approx(expected, rel=1e-12)
    assert expected_best([*losses, math.inf], draws) == math.inf


def test_a_range_ends_where_the_loss_crosses_the_limit():
    # Loss 1 + |log10(rate / 0.01)|: 1.1 is reached a tenth of a decade away on both sides.
    rates = [0.1, 0.001, 0.01]
    found: Any = rate_range(rates, [1 + abs(math.log10(rate / 0.01)) for rate in rates])
    assert math.log10(found.low) == pytest.approx(-2.1)
    assert math.log10(found.high) == pytest.approx(-1.9)
    assert found.decades == pytest.approx(0.2)
    assert not found.open_low
    assert not found.open_high


def test_a_range_at_an_edge_is_open_and_one_beside_divergence_ends_there():
    found: Any = rate_range([0.01, 0.1, 1.0], [1.05, 1.0, math.inf])
    assert (found.low, found.high, found.open_low, found.open_high) == (0.01, 0.1, True, False)
    assert "at least 1.0" in found.describe()
    assert rate_range([0.1], [math.inf]) is None
    assert rate_range([], []) is None
    # Beyond a hill a low loss is not part of the range.
    found = rate_range([0.01, 0.1, 1.0], [1.0, 9.0, 1.0])
    assert found.high < 0.1
    # Of negative losses 10 % of the size.
    found = rate_range([0.1, 1.0], [-1.0, -0.95])
    assert found.high == 1.0


@pytest.mark.parametrize(("rates", "losses"), [([0.1], []), ([0.1, 0.1], [1, 1]), ([0.0], [1]), ([math.nan], [1])])
def test_bad_rates_are_refused(rates, losses):
    with pytest.raises(ArgumentError, match="rate"):
        rate_range(rates, losses)


def test_no_loss_and_no_draw_are_refused():
    for losses, draws in (([], 1), ([1.0], 0)):
        with pytest.raises(ArgumentError, match="needs a loss and a draw"):
            expected_best(losses, draws)
