"""A study that was written down is the same one when it is read back."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agileact import ArgumentError, StoreError
from agileact.paper.recipe import Recipe
from agileact.study.running.planner import final_trials, plan
from agileact.study.spec import tasks
from agileact.study.spec.arms import Arm, arm, every_arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.record import Circumstances, read_record, study_from_record, study_record, write_record
from agileact.study.spec.trial import ArmSpec, freeze

RATE = st.floats(1e-6, 1.0)


def again(study: Study) -> Study:
    return study_from_record(json.loads(json.dumps(study_record(study))))


def test_every_arm_and_task_comes_back():
    own = [tasks.task(name) for name in tasks.names() if tasks.needs(name) is None]
    others = [tasks.task(name, f"data of {name}") for name in tasks.names() if tasks.needs(name)]
    study = Study("all", tuple(every_arm("relu")), (*own, *others))
    assert again(study) == study
    assert plan(again(study), lambda spec: None) == plan(study, lambda spec: None)


@given(
    name=st.text(min_size=1),
    rates=st.lists(RATE, min_size=1, max_size=4, unique=True).map(sorted),
    seeds=st.lists(st.integers(0, 99), min_size=1, unique=True),
    options=st.dictionaries(st.sampled_from(["conv", "fc", "block*"]), st.sampled_from(["relu", "agile-gelu"])),
    freezing=st.sets(st.sampled_from(["scale", "location"])),
    own=RATE,
)
def test_any_study_comes_back(name, rates, seeds, options, freezing, own):
    protocol = Protocol(trials=9, lr=tuple(rates), seeds=tuple(seeds), tuning_seeds=(100,), activation_lr=())
    spec = ArmSpec(freeze(options), lr=own, scale_lr=own / 2, freeze=tuple(sorted(freezing)), weight_decay=own)
    study = Study("한국어", (Arm(name, spec),), (tasks.task("digits-mlp"),), protocol)
    assert again(study) == study


def test_the_papers_study_finds_the_papers_trials():
    recipe = Recipe(seeds=(3, 5), nodes=(20, 10), optimizer="sgd", activation_lr=0.01)
    study = again(recipe.study("f" * 16))
    found = {spec for one in study.arms for spec in final_trials(study.protocol, one, study.tasks[0], None)}
    assert found == {spec for spec in recipe.trials("f" * 16) if spec.task.model.name == "cnn"}


def test_a_record_tells_how_the_study_was_run(tmp_path):
    study = Study("small", (arm("relu"),), (tasks.task("digits-mlp"),))
    write_record(tmp_path, study, command="agileact study run 'é'", data={"digits-mlp": "digits"}, notes=("note",))
    found, around = read_record(tmp_path)
    assert found == study
    assert (around.command, around.data, around.notes) == (
        "agileact study run 'é'",
        {"digits-mlp": "digits"},
        ("note",),
    )
    assert "cores" in around.hardware


def test_a_record_of_an_older_version_tells_the_study_alone(tmp_path):
    study = Study("small", (arm("relu"),), (tasks.task("digits-mlp"),))
    (tmp_path / "study.json").write_text(json.dumps(study_record(study)))
    assert read_record(tmp_path) == (study, Circumstances())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"there is no study.json in .*; give the study's YAML file"),
        ("{", "is not JSON"),
        ("[]", "is no record of a study"),
        ('{"name": "x"}', "it has no 'arms'"),
        ('{"name": "x", "arms": 3}', "no record of a study that this version reads"),
        ('{"name": "x", "arms": [], "tasks": [], "protocol": {"later": 1}}', "that this version reads .*later"),
        ('{"name": "x", "arms": [], "tasks": [], "protocol": {}}', "needs at least one arm"),
    ],
)
def test_what_is_no_record_is_an_error_that_says_so(tmp_path, text, message):
    if text is not None:
        (tmp_path / "study.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        read_record(tmp_path)


def test_a_record_with_a_wrong_value_is_refused():
    record = study_record(Study("small", (arm("relu"),), (tasks.task("digits-mlp"),)))
    record["protocol"]["select"] = "luck"
    with pytest.raises(ArgumentError, match="luck"):
        study_from_record(json.loads(json.dumps(record)))


def test_which_way_of_a_metric_is_good_is_recorded_and_is_no_part_of_a_trial():
    plain = tasks.task("diabetes-mlp")
    said = dataclasses.replace(plain, better="lower")
    study, other = (Study("s", (arm("relu"),), (one,), Protocol(replicates=2, seeds=(0,))) for one in (plain, said))
    assert study_from_record(json.loads(json.dumps(study_record(other)))) == other
    assert "better" not in study_record(study)["tasks"][0]  # a record of before is the same
    assert other.replicate(1).tasks[0].better == "lower"
    keys = [[spec.key for spec in plan(one, lambda spec: None).next] for one in (study, other)]
    assert keys[0] == keys[1]
    with pytest.raises(ArgumentError, match="better must be 'higher' or 'lower', not 'lowest'; did you mean 'lower'"):
        dataclasses.replace(plain, better="lowest")
