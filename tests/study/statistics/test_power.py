"""What a verdict says would have been seen must be seen as often as it says, by its own rule."""

from __future__ import annotations

import numpy as np
import pytest

from agileact import ArgumentError
from agileact.study.statistics import detectable, paired_difference, sign_flip_test, smallest_effect

UNIT = {6: 1.0954451150103321, 10: 1.0540925533894598}
"""Standard deviation of as many alternating -1 and 1."""


@pytest.mark.parametrize(("count", "comparisons"), [(6, 1), (10, 1), (10, 24)])
def test_an_effect_of_that_size_is_seen_by_both_tests_as_often_as_it_says(count, comparisons):
    generator = np.random.default_rng(4)
    alternating, zero = [-1.0, 1.0] * (count // 2), np.zeros(count)
    found = smallest_effect(alternating, zero, comparisons=comparisons, test="verdict")
    student = smallest_effect(alternating, zero, comparisons=comparisons)
    assert found is not None
    assert student is not None
    assert found > student
    seen = {found: 0, student: 0}
    for effect in seen:
        for _ in range(300):
            values = generator.normal(effect / UNIT[count], 1, count)
            test = sign_flip_test(values, zero) * comparisons < 0.05
            seen[effect] += test and paired_difference(values, zero, comparisons=comparisons).sign == 1
    assert 0.73 < seen[found] / 300 < 0.87
    if (count, comparisons) != (10, 1):
        # Where pairs are few for so many comparisons, the effect that Student's test alone sees is not seen.
        assert seen[student] / 300 < 0.7


def test_where_the_exact_test_cannot_reach_the_level_nothing_would_have_been_seen():
    for count, comparisons, possible in ((5, 1, False), (6, 1, True), (6, 2, False), (10, 25, True), (10, 26, False)):
        values = np.random.default_rng(0).normal(size=count)
        found = smallest_effect(values, np.zeros(count), comparisons=comparisons, test="verdict")
        # Two of 2^n patterns are the least that there is.
        assert possible == (2 / 2**count * comparisons < 0.05)
        assert (found is not None) == possible


def test_many_pairs_come_near_to_students():
    values = np.random.default_rng(1).normal(size=40)
    found = smallest_effect(values, np.zeros(40), test="verdict")
    assert found == pytest.approx(smallest_effect(values, np.zeros(40)), rel=0.03)
    with pytest.raises(ArgumentError, match="'student' or 'verdict', not 'both'"):
        smallest_effect(values, values, test="both")  # type: ignore[arg-type]


def test_what_is_seen_is_known_in_deviations_before_anything_is_run():
    values = np.random.default_rng(5).standard_normal(9)
    deviation = values.std(ddof=1)
    for test in ("student", "verdict"):
        known = detectable(9, comparisons=2, test=test)
        assert known == pytest.approx(smallest_effect(values, np.zeros(9), comparisons=2, test=test) / deviation)
    assert detectable(5) is None
