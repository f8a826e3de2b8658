"""What trials are called: by arm and task where the study is known, and in a list never two alike."""

from __future__ import annotations

import dataclasses

import pytest

from agileact.lab.content.source import Trials
from agileact.study.running.naming import described, trial_name, trial_names
from agileact.study.running.planner import Point, final_trials, tuning_trials
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.record import write_record
from agileact.study.spec.tasks import task
from agileact.study.spec.trial import ArmSpec

ARMS = tuple(
    map(arm, ("agile-relu", "agile-relu+calibrated", "agile-relu+location-only", "agile-relu+weight-decay=0.05"))
)
DIGITS = task("digits-mlp")
MANNER = "; mlp on digits; rate 0.01; seed 0"


def finals(study, point=None):
    trials = [final_trials(study.protocol, one, DIGITS, point)[0] for one in study.arms]
    assert len({trial.key for trial in trials}) == len(trials)
    return trials


def labels(trials, folder):
    return Trials("it", folder / "store.sqlite", tuple(trials)).labels()


def rates(lr):
    return tuple(dataclasses.replace(one, spec=dataclasses.replace(one.spec, lr=lr)) for one in ARMS)


@pytest.mark.parametrize("point", [Point(0.01), Point(0.01, 3.0)], ids=["same rate", "own rate"])
def test_arms_have_the_names_of_their_study(tmp_path, point):
    study = Study("s", ARMS, (DIGITS,), Protocol(seeds=(0,)))
    write_record(tmp_path, study)
    rate = "0.01" if point.activation_lr is None else "0.01, a and b 0.03"
    named = labels(finals(study, point), tmp_path)
    assert list(named.values()) == [f"{one.name}; digits-mlp; rate {rate}; seed 0" for one in ARMS]


def test_arms_that_differ_in_their_rate_alone_are_told_apart_without_tuning(tmp_path):
    slow, fast = (dataclasses.replace(rates(lr)[0], name=name) for lr, name in ((0.001, "slow"), (0.01, "fast")))
    study = Study("s", (slow, fast), (DIGITS,), Protocol(tune=False, seeds=(0,)))
    write_record(tmp_path, study)
    assert list(labels(finals(study), tmp_path).values()) == [
        "slow; digits-mlp; rate 0.001; seed 0", "fast; digits-mlp; rate 0.01; seed 0",
    ]  # fmt: skip


@pytest.mark.parametrize("record", [None, "no JSON", "[]"])
def test_without_a_record_arms_are_told_by_what_they_change(tmp_path, record):
    if record is not None:
        (tmp_path / "study.json").write_text(record)
    study = Study("s", rates(0.01), (DIGITS,), Protocol(tune=False, seeds=(0,)))
    named = list(labels(finals(study), tmp_path).values())
    assert named == [
        f"agile-relu{more}{MANNER}" for more in ("", ", start calibrated", ", freeze scale", ", weight decay 0.05")
    ]


def test_trials_that_are_in_no_study_are_described(tmp_path):
    write_record(tmp_path, Study("s", (arm("gelu"),), (task("paper-mlp"),)))
    (trial,) = finals(Study("s", rates(0.01)[:1], (DIGITS,), Protocol(tune=False, seeds=(0,))))
    assert labels([trial], tmp_path) == {trial.key: f"agile-relu{MANNER}"}


def test_no_two_trials_are_called_alike(tmp_path):
    (one,) = finals(Study("s", rates(0.01)[:1], (DIGITS,), Protocol(tune=False, seeds=(0,))))
    budget = dataclasses.replace(one.task.budget, iterations=one.task.budget.iterations + 1)
    longer = dataclasses.replace(one, task=dataclasses.replace(one.task, budget=budget))
    assert labels([one, longer], tmp_path) == {
        trial.key: f"agile-relu{MANNER}; trial {trial.key[:6]}" for trial in (one, longer)
    }


def test_tuning_trials_and_final_ones_have_the_names_of_their_task():
    study = Study("s", ARMS, (DIGITS, task("paper-mlp")), Protocol(seeds=(0,)))
    for number in (0, 1):
        (trial, *_) = tuning_trials(study.protocol, ARMS[1], study.tasks[number], Point(0.03))
        assert trial_name(trial, study) == f"{ARMS[1].name}; {study.tasks[number].name}; rate 0.03; seed {trial.seed}"
    assert trial_names([trial], study) == {trial.key: trial_name(trial, study)}


def test_an_arm_without_a_study_is_told_by_its_places_and_what_it_changes():
    sgd = ArmSpec((("conv", "agile-relu"), ("fc", "sigmoid")), optimizer="sgd", freeze=("scale", "location"))
    assert described(sgd) == "conv: agile-relu, fc: sigmoid, optimizer sgd, freeze location and scale"
    assert described(ArmSpec(())) == "original"
