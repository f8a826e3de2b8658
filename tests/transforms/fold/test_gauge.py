"""The union-find with ratios, against a dense solution of the same equations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agileact.transforms.fold.gauge import GROUND, Gauges


def labels(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def test_ratios_multiply_along_ties():
    gauges = Gauges(6)
    assert gauges.tie(labels(2, 3, 4), labels(1, 2, 3), np.array([2.0, -3.0, 0.5]))
    solved = gauges.solved()
    assert solved[1:5].tolist() == [1.0, 2.0, -6.0, -3.0]
    assert solved[5] == solved[GROUND] == 1.0


def test_the_ground_is_fixed_and_others_are_not():
    gauges = Gauges(4)
    assert gauges.tie(2, 1, 4.0)
    assert not gauges.fixed(labels(1, 2))[0].any()
    assert gauges.tie(2, GROUND, 2.0)
    fixed, value = gauges.fixed(labels(1, 2, 3))
    assert fixed.tolist() == [True, True, False]
    assert value[:2].tolist() == [0.5, 2.0]
    assert gauges.alone().tolist() == [False, False, False, True]


def test_a_loop_must_close():
    gauges = Gauges(4)
    assert gauges.tie(labels(2, 3), labels(1, 2), np.array([2.0, 3.0]))
    assert gauges.tie(3, 1, 6.0)
    before = gauges.snapshot()
    assert not gauges.tie(3, 1, 6.0000001)
    gauges.restore(before)
    assert gauges.tie(1, 3, 1 / 6.0)
    assert not Gauges(3).tie(1, 1, 2.0)


@pytest.mark.parametrize("ratio", [0.0, np.inf, np.nan, 1e9, -1e9, 1e-9])
def test_ratios_that_are_of_no_use_contradict(ratio: float):
    assert not Gauges(3).tie(2, 1, ratio)


def test_signs():
    gauges = Gauges(5)
    assert gauges.positive(labels(1))
    assert gauges.tie(2, 1, -2.0)
    before = gauges.snapshot()
    assert not gauges.positive(labels(2))
    gauges.restore(before)
    assert gauges.tie(3, 2, -1.0)
    assert gauges.positive(labels(3))
    assert not gauges.tie(3, GROUND, -1.0)
    free = Gauges(3)
    assert free.tie(2, 1, -2.0)
    assert free.positive(labels(2))
    assert free.solved().tolist() == [1.0, -1.0, 2.0]
    opposed = Gauges(4)
    assert opposed.positive(labels(1, 2))
    assert not opposed.tie(labels(3, 3), labels(1, 2), np.array([1.0, -1.0]))


def test_restoring_undoes():
    gauges = Gauges(3)
    before = gauges.snapshot()
    for ratio in (2.0, 3.0):
        assert gauges.tie(2, 1, ratio)
        assert gauges.solved().tolist() == [1.0, 1.0, ratio]
        gauges.restore(before)


def test_many_ties_at_once():
    count = 20_000
    gauges = Gauges(count)
    order = np.random.default_rng(0).permutation(np.arange(1, count))
    value = np.random.default_rng(1).uniform(0.5, 2.0, count)
    assert gauges.tie(order[1:], order[:-1], value[order[1:]] / value[order[:-1]])
    solved = gauges.solved()
    np.testing.assert_allclose(solved[1:] / solved[1], value[1:] / value[1], rtol=1e-10)


@given(st.data())
def test_it_finds_what_was_hidden_and_sees_every_contradiction(data: st.DataObject):
    count = data.draw(st.integers(2, 12))
    signs = st.sampled_from([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0])
    hidden = np.array([1.0, *(data.draw(signs) for _ in range(count - 1))])
    label = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(label, label), max_size=20))
    gauges = Gauges(count)
    upper, lower = (labels(*(pair[side] for pair in pairs)) for side in (0, 1))
    assert gauges.tie(upper, lower, hidden[upper] / hidden[lower])
    signed = labels(*data.draw(st.lists(label, max_size=4)))
    assert gauges.positive(signed[hidden[signed] > 0])
    solved = gauges.solved()
    np.testing.assert_allclose(solved[upper] * hidden[lower], solved[lower] * hidden[upper], rtol=1e-12)
    assert solved[GROUND] == 1.0
    assert (solved[signed[hidden[signed] > 0]] > 0).all()
    # A tie of two labels that hang together is accepted with their ratio alone.
    adjacency = np.eye(count, dtype=bool)
    adjacency[upper, lower] = adjacency[lower, upper] = True
    connected = np.linalg.matrix_power(adjacency.astype(float), count) > 0
    one, other = data.draw(label), data.draw(label)
    wrong = hidden[one] / hidden[other] * 1.5
    assert gauges.tie(one, other, wrong) == (not connected[one, other])
