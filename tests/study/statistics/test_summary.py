from __future__ import annotations

import math

import pytest

from agileact.study.statistics import pairs_in_same_order, rank_correlation, summarise


def test_summary_of_known_numbers():
    summary = summarise([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert summary is not None
    assert summary.mean == 5.0
    assert summary.deviation == pytest.approx(math.sqrt(32 / 7))
    assert summarise([]) is None
    assert summarise([3.0]).format(1) == "3.0"  # type: ignore[union-attr]


def test_orders():
    assert pairs_in_same_order([1, 2, 3, 4], [4, 3, 2, 1]) == (0, 6)
    assert pairs_in_same_order([1, 1], [1, 2]) == (0, 1)
    assert rank_correlation([1, 2, 3, 4], [9, 7, 5, 3]) == -1.0
