from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from agileact import ArgumentError
from agileact.study.statistics import student, wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (8, 10), (1, 3), (164, 200)])
def test_wilson_is_scipys(successes, trials):
    known = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson(successes, trials) == pytest.approx((known.low, known.high), abs=1e-12)


def test_intervals_at_their_edges():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0
    with pytest.raises(ArgumentError, match="between 0 and the 3 trials"):
        wilson(4, 3)
    values = [0.2, 0.4, 0.5, 0.9]
    known = scipy.stats.t.interval(0.95, 3, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert student(values) == pytest.approx(tuple(known))
    with pytest.raises(ArgumentError, match="at least two"):
        student([1.0])
