"""Search spaces: how they are written, what is refused, and that they come back from a record."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agileact import ArgumentError
from agileact.study.spec.arms import Arm, arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.record import study_from_record, study_record
from agileact.study.spec.space import Dimension, described, joined, search_space, with_values
from agileact.study.spec.tasks import task
from agileact.study.spec.trial import ArmSpec

SPACE = search_space(
    {
        "lr": "1e-4..0.1",
        "activation_lr": {"from": 0.1, "to": 10},
        "weight_decay": "0, 1e-6..1e-2",
        "warmup": "0..0.2",
        "schedule": ["constant", "cosine"],
        "optimizer_options.betas": [[0.9, 0.999], [0.9, 0.95]],
        "optimizer_options.eps": "1e-9..1e-6 log",
        "clip_norm": ["none", 1],
    }
)


def test_every_way_of_writing_means_what_it_says():
    found = {one.name: one for one in SPACE}
    assert found["lr"] == Dimension("lr", 1e-4, 0.1, log=True)
    assert found["weight_decay"] == Dimension("weight_decay", 1e-6, 1e-2, log=True, zero=True)
    assert found["warmup"] == Dimension("warmup", 0.0, 0.2)
    assert found["optimizer_options.eps"].log
    assert found["optimizer_options.betas"].choices == ((0.9, 0.999), (0.9, 0.95))
    assert found["clip_norm"].choices == (None, 1.0)
    assert [one.name for one in SPACE][-1] == "activation_lr"  # what concerns activations alone comes last
    texts = [f"{one.name}={one.text}" for one in SPACE if "betas" not in one.name]
    assert search_space(texts) == tuple(one for one in SPACE if "betas" not in one.name)


@given(st.floats(1e-9, 1.0), st.floats(1.5, 1e6), st.floats(0, 1), st.booleans())
def test_a_place_in_a_range_is_spread_as_the_range_says(low, factor, place, log):
    one, high = Dimension("optimizer_options.eps", low, low * factor, log=log), low * factor
    expected = math.exp(math.log(low) + place * math.log(factor)) if log else low + place * (high - low)
    assert one.at(place) == pytest.approx(expected, rel=1e-5)


def test_a_quarter_of_the_places_is_zero_where_zero_stands_beside_a_range():
    decay = Dimension("weight_decay", 1e-6, 1e-2, log=True, zero=True)
    values = [decay.at((place + 0.5) / 100) for place in range(100)]
    assert values.count(0.0) == 25
    assert min(value for value in values if value) < 2e-6
    assert max(values) > 9e-3


def test_values_become_fields_and_factors_become_rates():
    values = {"lr": 0.01, "activation_lr": 3.0, "scale_lr": 1.0, "optimizer_options.eps": 1e-7, "clip_norm": None}
    before = ArmSpec((("*", "agile-relu"),), optimizer_options=(("amsgrad", True),), clip_norm=1.0)
    assert with_values(before, values) == dataclasses.replace(
        before, lr=0.01, activation_lr=0.03, optimizer_options=(("amsgrad", True), ("eps", 1e-7)), clip_norm=None
    )


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        ({"learning_rate": "1..2"}, "'learning_rate' cannot be tuned; known: activation_decay"),
        ({"weight_deca": [0]}, "did you mean 'weight_decay'"),
        ({"optimizer_options.": [0]}, "cannot be tuned"),
        ({"lr": "0..1"}, "a logarithmic range begins above 0, not at 0; begin higher"),
        ({"weight_decay": "0..1"}, "begin higher and add 0 beside it"),
        ({"lr": "0.1..0.01"}, "from a number up to a larger one, not 0.1 to 0.01"),
        ({"lr": "1e-4..x"}, "a number was expected, not 'x'"),
        ({"lr": "1,1e-4..0.1"}, "neither a range"),
        ({"lr": "1..2,3..4"}, "neither a range"),
        ({"lr": ["fast"]}, "a number was expected, not 'fast'"),
        ({"lr": [0.1, 0.1]}, "names a choice twice"),
        ({"lr": []}, "names no value"),
        ({"lr": {"from": 1}}, "lacks 'to'"),
        ({"lr": {"from": 1, "to": 2, "scale": "lin"}}, "did you mean 'linear'"),
        ({"lr": {"form": 1, "to": 2}}, "did you mean 'from'"),
        ({"lr": {"from": 1, "to": 2, "zero": 1}}, "true or false"),
        ({"lr": "nan..1"}, "up to a larger one"),
        ({"schedule": ["cosin"]}, "did you mean 'cosine'"),
        ({"schedule": "0..1"}, "schedule has choices, not a range"),
        ({"warmup": "0..1.5"}, "warmup must be at least 0 and less than 1"),
        ({"activation_lr": [0]}, "is a factor of the learning rate, greater than 0"),
        (["lr"], "not of the form NAME=VALUES"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(raw, part):
    with pytest.raises(ArgumentError, match=part) as caught:
        search_space(raw)
    assert "\n" not in str(caught.value)


def study(*arms, **protocol):
    given = {"space": SPACE, "trials": 4, **protocol}
    return Study("s", arms or (arm("relu"), arm("agile-relu")), (task("digits-mlp"),), Protocol(**given))


def test_an_arm_has_what_is_common_its_own_before_it_and_nothing_that_would_do_nothing():
    own = Arm("own", arm("agile-relu").spec, search_space({"lr": "0.01..1", "location_lr": "0.1..1"}))
    folded = arm("relu+folded-updates")
    found = study(arm("relu"), own, arm("agile-relu+frozen"), arm("prelu"), folded)
    names = {one.name: [dimension.name for dimension in found.space(one)] for one in found.arms}
    assert "activation_lr" not in names["relu"]
    assert names["agile-relu+frozen"] == names["relu"]
    assert names["prelu"] == names["relu+folded-updates"] == [*names["relu"], "activation_lr"]
    assert names["own"] == [*names["relu"], "activation_lr", "location_lr"]
    assert found.space(own)[0] == Dimension("lr", 0.01, 1.0, log=True)
    assert found.searches[0] == (("relu", "agile-relu+frozen"), described(found.space(found.arms[0])))


def test_a_space_comes_back_from_the_record():
    own = Arm(
        "own", arm("agile-relu").spec, search_space({"lr": "0.01..1", "optimizer_options.amsgrad": [True, False]})
    )
    found = study(arm("relu"), own, sampler="optuna:TPESampler")
    assert study_from_record(json.loads(json.dumps(study_record(found)))) == found


def test_a_study_without_a_space_is_recorded_as_before():
    record = study_record(Study("s", (arm("relu"),), (task("digits-mlp"),)))
    assert not {"space", "sampler"} & {*record["protocol"], *record["arms"][0]}


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: study(tune=False), "a space is for tuning"),
        (lambda: study(lr=(0.1,)), "lr is for tuning without a space"),
        (lambda: study(extend=False), "extend is for tuning without a space"),
        (lambda: study(trials=0), "trials must be at least 1"),
        (lambda: study(sampler="sobl"), "did you mean 'sobol'"),
        (lambda: study(space=(), sampler="optuna:TPESampler"), "needs a space"),
        (lambda: study(space=search_space({"warmup": [0.1]})), "does not name lr"),
        (lambda: study(arm("relu"), Arm("b", arm("agile-relu").spec, SPACE), space=()), "'relu' has no search space"),
        (lambda: study(Arm("b", arm("relu").spec, search_space({"scale_lr": [0.1]}))), "scale_lr is for activations"),
        (lambda: study(Arm("b", arm("relu").spec, SPACE), space=(), tune=False), "tune is false"),
    ],
)
def test_a_space_that_does_not_fit_the_study_is_refused(make, part):
    with pytest.raises(ArgumentError, match=part):
        make()


def test_spaces_are_joined_by_name():
    assert joined(SPACE, SPACE) == SPACE
