from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agileact import ArgumentError
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import ArmSpec, Budget, DataSpec, TrialSpec, freeze
from tests.study.builders import make_result, make_spec


@given(
    seed=st.integers(0, 2**40),
    lr=st.floats(1e-8, 10),
    rate=st.none() | st.floats(0, 10),
    names=st.tuples(st.text(max_size=20), st.text(max_size=20)),
)
def test_json_round_trip_keeps_spec_and_identity(seed, lr, rate, names):
    spec = make_spec()
    arm = ArmSpec(freeze({"conv": names[0], "fc": names[1]}), lr=lr, activation_lr=rate)
    spec = dataclasses.replace(spec, seed=seed, arm=arm)
    again = TrialSpec.from_json(spec.to_json())
    assert again == spec
    assert again.key == spec.key
    assert hash(again) == hash(spec)


def test_every_field_is_part_of_the_identity():
    spec = make_spec()
    task, arm = spec.task, spec.arm
    others = [
        dataclasses.replace(spec, seed=1),
        dataclasses.replace(spec, arm=dataclasses.replace(arm, lr=0.02)),
        dataclasses.replace(spec, arm=dataclasses.replace(arm, activation_lr=0.02)),
        dataclasses.replace(spec, arm=dataclasses.replace(arm, optimizer="sgd")),
        dataclasses.replace(spec, task=dataclasses.replace(task, data=DataSpec("mnist5k-split", 400))),
        dataclasses.replace(spec, task=dataclasses.replace(task, data=DataSpec("mnist5k-split", 500, "abc"))),
        make_spec(iterations=7),
        make_spec(test_curve=False),
        make_spec(probe_every=0),
        make_spec(conv="agile-relu"),
    ]
    assert len({other.key for other in [spec, *others]}) == len(others) + 1


def test_trials_that_were_stored_are_found_again():
    spec = make_spec()
    assert spec.key == "175d069547ea4692"  # as it was before there were later fields
    written = json.loads(spec.to_json())
    assert list(written) == sorted(written)
    assert not {"device", "precision", "use_test"} & set(written["task"]["budget"])
    assert list(written["arm"]) == ["activation_lr", "activations", "lr", "optimizer"]


def test_one_meaning_has_one_identity():
    one, other = (ArmSpec((), freeze=names) for names in (("scale", "location"), ("location", "scale")))
    assert one == other
    assert one.freeze == ("location", "scale")


@pytest.mark.slow
def test_identity_is_the_same_in_another_process():
    code = "from tests.study.builders import make_spec; print(make_spec().key)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == make_spec().key


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: Budget(0), "iterations must be at least 1, not 0"),
        (lambda: Budget(1, batch_size=0), "batch size"),
        (lambda: Budget(1, evaluate_every=0), "evaluations"),
        (lambda: Budget(1, probe_every=-1), "probes"),
        (lambda: ArmSpec((), lr=0.0), "learning rate must be greater than 0.0"),
        (lambda: ArmSpec((), lr=float("nan")), "learning rate"),
        (lambda: ArmSpec((), activation_lr=-1.0), "activation learning rate"),
        (lambda: DataSpec("x", 0), "validation"),
        (lambda: make_spec(seed=-1), "seed"),
        (lambda: freeze({"a": object()}), "an option must be"),
    ],
)
def test_wrong_values_are_refused(make, part):
    with pytest.raises(ArgumentError, match=part):
        make()


def test_result_round_trip_keeps_order_of_layers():
    from agileact.study.spec.result import DirectionTrace, LayerTrace

    layers = {"conv2": LayerTrace([1.0], [2.0], [3.0], [4.0]), "conv1": LayerTrace()}
    result = make_result(make_spec(), layers=layers, best_test_loss=0.1 + 0.2)
    again = TrialResult.from_json(result.to_json())
    assert again == result
    assert list(again.layers) == ["conv2", "conv1"]
    # What came later is not written where there is none, and is read where it is.
    assert "directions" not in json.loads(result.to_json())
    turned = make_result(make_spec(), directions={"fc1": DirectionTrace([0.1, 0.2], [0.3, 0.4])})
    assert TrialResult.from_json(turned.to_json()) == turned
