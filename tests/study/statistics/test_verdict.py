"""What the sentence claims must follow from the numbers: no claim without both test and interval."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agileact import ArgumentError
from agileact.study.statistics import paired_difference, sign_flip_test, smallest_effect, verdict

NOISE = np.array([0.01, -0.02, 0.015, -0.005, 0.02, -0.015, 0.005, -0.01])


def test_a_clear_difference_is_named_with_its_evidence():
    better = verdict("agile", NOISE - 0.1, "plain", np.zeros(8))
    worse = verdict("agile", NOISE + 0.1, "plain", np.zeros(8))
    assert (better.decision, worse.decision) == ("better", "worse")
    assert better.sentence.startswith("agile has a lower test loss than plain: by 0.1 (95 % interval 0.087")
    assert "paired permutation test p = 0.0078; 8 seeds" in better.sentence
    assert "higher" in worse.sentence


def test_which_values_are_good_is_the_callers_to_say():
    higher = verdict("agile", NOISE + 0.1, "plain", np.zeros(8), measure="accuracy", better="higher")
    lower = verdict("agile", NOISE - 0.1, "plain", np.zeros(8), measure="accuracy", better="higher")
    assert (higher.decision, lower.decision) == ("better", "worse")
    assert higher.sentence.startswith("agile has a higher accuracy than plain: by 0.1")
    usual = verdict("agile", NOISE + 0.1, "plain", np.zeros(8), measure="accuracy")
    assert (usual.sentence, usual.by_seed) == (higher.sentence, higher.by_seed)
    with pytest.raises(ArgumentError, match="better must be 'lower' or 'higher', not 'more'"):
        verdict("agile", NOISE, "plain", np.zeros(8), better="more")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="no value may be infinite"):
        verdict("agile", [math.inf, 1.0], "plain", [1.0, 1.0], better="higher")


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
    corrected = verdict("a", values, "b", np.zeros(8), p_value=0.2, rank_p=0.2)
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
    if "the same test loss" in found.sentence:
        assert all(value + shift == 0 for value in values)
        return
    interval = re.search(r"interval (\S+) to ([^,;)\s]+)", found.sentence)
    mean = re.search(
        r"(?:, by|: by|difference|minus b: |minus b in test loss:) ?([+-]?[\d.]+(?:e[+-]\d+)?)", found.sentence
    )
    assert interval, found.sentence
    assert mean, found.sentence
    low, high = (float(end.rstrip(".")) for end in interval.groups())
    rounding = 0.006 * max(abs(low), abs(high))
    assert low - rounding <= float(mean[1]) <= high + rounding, found.sentence


PLAIN = np.array([0.25, 0.27, 0.26, 0.25, 0.29, 0.24, 0.26, 0.28, 0.27, 0.25])


def test_a_dead_run_that_drowns_the_mean_is_seen():
    dead = PLAIN.copy()
    dead[3] = 2.3026
    found = verdict("agile", PLAIN - 0.05 - NOISE.mean(), "plain", dead, idle=(0, 1))
    assert found.decision == "undecided"
    assert found.sentence.startswith("Undecided by the means (agile minus plain in test loss: -0.25")
    assert "1 of 10 runs of plain did not learn), but seed by seed agile is lower in 10 of 10" in found.sentence
    assert "typically by 0.05 (95 % interval 0.05 to" in found.sentence
    assert found.by_seed.startswith("Seed by seed agile is lower than plain in 10 of 10; typical difference")
    opposite = verdict("plain", dead, "agile", PLAIN - 0.05 - NOISE.mean(), idle=(1, 0))
    assert "plain is higher in 10 of 10, typically by 0.05" in opposite.sentence
    # The other seeds show nothing either: then the verdict is what it was, and the dead run is told.
    same = verdict("agile", PLAIN + np.resize(NOISE, 10), "plain", dead, idle=(0, 1))
    assert same.decision == "same"
    assert "; 1 of 10 runs of plain did not learn)." in same.sentence


def test_equal_losses_are_said_to_be_equal():
    found = verdict("agile", PLAIN, "plain", PLAIN)
    assert (found.decision, found.sentence) == (
        "same",
        "agile and plain have the same test loss with each of 10 seeds.",
    )
    nearly = verdict("agile", PLAIN * (1 + 1e-7), "plain", PLAIN)
    assert nearly.sentence == "agile and plain have the same test loss with each of 10 seeds, but for rounding."
    assert (nearly.typical.lower, nearly.rank_p) == (0, 1.0)
    assert verdict("a", PLAIN[:3], "b", PLAIN[:3]).decision == "undecided"


def test_what_would_have_been_seen_is_what_the_rule_sees():
    found = verdict("agile", NOISE, "plain", np.zeros(8), comparisons=3)
    assert found.detectable == smallest_effect(NOISE, np.zeros(8), comparisons=3, test="verdict")
    # Eight seeds cannot show anything in seven comparisons, so nothing is said that would have been seen.
    found = verdict("agile", NOISE, "plain", np.zeros(8), comparisons=7, matters=1.0)
    assert (found.decision, found.detectable) == ("same", None)
    assert "would have been seen" not in found.sentence


def test_ranks_compare_runs_that_diverged():
    found = verdict("a", [math.inf] * 6, "b", [1.0] * 6)
    assert found.decision == "unstable"
    assert "a is lower in 0 of 6 seeds, higher in 6 (signed-rank test p = 0.031)" in found.sentence


def test_the_level_holds_over_replicates_and_not_over_the_seeds_of_one_tuning():
    # What a tuning chose moves all seeds of its replicate together; both arms are the same.
    random = np.random.default_rng(11)
    draws, wrong = 300, {"seed": 0, "replicate": 0}
    for _ in range(draws):
        runs = 3 * random.standard_normal((16, 1)) + random.standard_normal((16, 8))
        for unit, first, second in (("seed", runs[0], runs[8]), ("replicate", runs[:8].mean(1), runs[8:].mean(1))):
            wrong[unit] += verdict("one", first, "other", second, unit=unit).decision in ("better", "worse")
    assert wrong["replicate"] / draws < 0.05 + 2 * np.sqrt(0.05 * 0.95 / draws)
    assert wrong["seed"] / draws > 0.5


def test_a_verdict_names_its_unit():
    first, second = np.array([0.20, 0.22, 0.21, 0.19, 0.23, 0.20]), np.array([0.25, 0.26, 0.25, 0.25, 0.27, 0.26])
    found = verdict("agile", first, "plain", second, unit="replicate", idle=(2, 0), runs=18)
    assert "6 replicates; 2 of 18 runs of agile did not learn)" in found.sentence
    assert found.by_seed.startswith("Replicate by replicate agile is lower than plain in 6 of 6")
    lost = verdict("agile", [*first[:5], np.inf], "plain", second, unit="replicate")
    assert "agile diverged in 1 of 6 replicates" in lost.sentence
    assert "One replicate says nothing about chance" in verdict("a", [1.0], "b", [2.0], unit="replicate").sentence
    assert "5 replicates cannot show" in verdict("a", first[:5], "b", second[:5], unit="replicate").sentence
