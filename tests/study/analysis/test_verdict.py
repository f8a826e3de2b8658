"""What the sentence claims must follow from the numbers: no claim without both test and interval."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agileact import ArgumentError
from agileact.study.analysis import paired_difference, sign_flip_test, verdict

NOISE = np.array([0.01, -0.02, 0.015, -0.005, 0.02, -0.015, 0.005, -0.01])


def test_a_clear_difference_is_named_with_its_evidence():
    better = verdict("agile", NOISE - 0.1, "plain", np.zeros(8))
    worse = verdict("agile", NOISE + 0.1, "plain", np.zeros(8))
    assert (better.decision, worse.decision) == ("better", "worse")
    assert better.sentence.startswith("agile has a lower test loss than plain: by 0.1 (95 % interval 0.087")
    assert "paired permutation test p = 0.0078; 8 seeds" in better.sentence
    assert "higher" in worse.sentence


def test_no_difference_says_what_would_have_been_seen():
    result = verdict("agile", NOISE, "plain", np.zeros(8))
    assert result.decision == "same"
    assert result.detectable is not None
    assert result.sentence.startswith("No difference that matters was found in test loss between agile and plain: with")
    assert f"these 8 seeds an effect larger than {result.detectable:.2g} would have been seen" in result.sentence
    assert "in 80 % of such studies" in result.sentence


def test_what_matters_decides_between_none_and_undecided():
    assert verdict("a", NOISE, "b", np.zeros(8), matters=0.05).decision == "same"
    undecided = verdict("a", NOISE, "b", np.zeros(8), matters=0.005)
    assert undecided.decision == "undecided"
    assert "one of 0.005 would matter and is not excluded" in undecided.sentence
    small = verdict("a", NOISE - 0.1, "b", np.zeros(8), matters=0.5)
    assert small.decision == "same"
    assert "less than the 0.5 that would matter" in small.sentence


def test_too_few_seeds_decide_nothing():
    five = verdict("a", NOISE[:5] - 1, "b", np.zeros(5))
    assert five.decision == "undecided"
    assert "5 seeds cannot show a difference at this level" in five.sentence
    assert "0.062" in five.sentence
    one = verdict("a", [1.0], "b", [2.0])
    assert one.decision == "undecided"
    assert "One seed says nothing about chance" in one.sentence


def test_more_comparisons_ask_for_more():
    values = NOISE - 0.1
    assert verdict("a", values, "b", np.zeros(8), comparisons=6).decision == "better"
    assert verdict("a", values, "b", np.zeros(8), comparisons=7).decision == "undecided"
    corrected = verdict("a", values, "b", np.zeros(8), p_value=0.2)
    assert corrected.decision == "undecided"
    assert "only the interval shows a difference" in corrected.sentence


def test_diverged_runs_are_counted_and_never_averaged():
    result = verdict("a", [1.0, math.inf, 1.0], "b", [2.0, 2.0, 2.0])
    assert result.decision == "unstable"
    assert result.difference is None
    assert "a diverged in 1 of 3 runs, b in 0: no mean test loss exists" in result.sentence
    assert "probability 0.67" in result.sentence


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.none() | st.floats(0.01, 1))
def test_the_claim_follows_from_test_and_interval(differences, matters):
    zero = [0.0] * len(differences)
    result = verdict("a", differences, "b", zero, matters=matters)
    interval = paired_difference(differences, zero)
    if result.decision in ("better", "worse"):
        assert sign_flip_test(differences, zero) < 0.05
        assert interval.sign == (-1 if result.decision == "better" else 1)
    if result.decision == "same" and matters is None:
        # What is said to be detectable was not there to be seen.
        assert result.detectable is not None
        assert abs(interval.mean) <= result.detectable + 1e-12
    mirrored = verdict("b", zero, "a", differences, matters=matters)
    opposite = {"better": "worse", "worse": "better"}
    assert mirrored.decision == opposite.get(result.decision, result.decision)
    assert result.sentence.endswith(".")


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: verdict("a", [], "b", []), "0 and 0"),
        (lambda: verdict("a", [1.0], "b", [math.nan]), "NaN"),
        (lambda: verdict("a", [1.0], "b", [1.0], matters=0.0), "matters must be greater than 0"),
        (lambda: verdict("a", [1.0], "b", [1.0], level=0.0), "level"),
    ],
)
def test_what_does_not_fit_is_refused(call, part):
    with pytest.raises(ArgumentError, match=part):
        call()


@given(
    st.lists(st.floats(-1, 1), min_size=4, max_size=9),
    st.floats(-3, 3),
    st.sampled_from([None, 0.02, 0.06, 0.5]),
    st.sampled_from([1, 5]),
)
def test_the_interval_that_is_printed_holds_the_mean_that_is_printed(values, shift, p_value, comparisons):
    found = verdict("a", [value + shift for value in values], "b", [0.0] * len(values), p_value=p_value,
                    comparisons=comparisons)  # fmt: skip
    interval = re.search(r"interval (\S+) to ([^,;)\s]+)", found.sentence)
    mean = re.search(
        r"(?:, by|: by|difference|minus b: |minus b in test loss:) ?([+-]?[\d.]+(?:e[+-]\d+)?)", found.sentence
    )
    assert interval, found.sentence
    assert mean, found.sentence
    low, high = (float(end.rstrip(".")) for end in interval.groups())
    rounding = 0.006 * max(abs(low), abs(high))
    assert low - rounding <= float(mean[1]) <= high + rounding, found.sentence
