"""Points of search spaces: they follow from the spec, are the same number for every arm, and are carried out."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from agileact import ArgumentError
from agileact.study.running.conduct import conduct, identified
from agileact.study.running.planner import Point, plan
from agileact.study.running.sampling import asked, quasi_random
from agileact.study.running.store import Store
from agileact.study.spec.arms import Arm, arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.space import search_space
from agileact.study.spec.tasks import Task, task
from agileact.study.training.dry_run import check_arms
from tests.packages import Package
from tests.study.builders import HereExecutor, make_result
from tests.study.running.test_planner import made_up

optuna = Package("optuna")

SPACE = search_space(
    {"lr": "1e-4..0.1", "weight_decay": "0, 1e-6..1e-2", "schedule": "constant, cosine", "activation_lr": "0.1..10"}
)
PROTOCOL = Protocol(trials=8, space=SPACE, tuning_seeds=(100, 101), seeds=(0, 1, 2))
STUDY = Study("s", (arm("relu"), arm("agile-relu"), arm("relu+weight-decay=0.1")), (task("digits-mlp"),), PROTOCOL)


def test_points_are_those_of_sobol_and_always_the_same():
    # Written down: trials are known by these numbers, whatever version of scipy made them.
    assert quasi_random(search_space({"lr": "1e-4..0.1", "warmup": "0..0.5"}), 3, 0) == (
        (0.00169765, 0.48206),
        (0.00368229, 0.248363),
        (0.0727978, 0.333078),
    )
    eight = quasi_random(SPACE, 8, 0)
    assert quasi_random(SPACE, 5, 0) == eight[:5]
    assert not set(eight) & set(quasi_random(SPACE, 8, 1))
    # One in each eighth of the logarithmic range, one half of each choice, a quarter without decay.
    assert sorted(int(8 * math.log10(lr / 1e-4) / 3) for lr, *_ in eight) == list(range(8))
    assert [values[2] for values in eight].count("cosine") == 4
    assert [values[1] for values in eight].count(0.0) == 2


def test_arms_that_share_a_part_of_the_space_have_the_same_values_in_it():
    points: dict[str, list[Any]] = {one.name: [] for one in STUDY.arms}
    for part in plan(STUDY, lambda spec: None).next:
        points["agile-relu" if part.arm.activation("fc") == "agile-relu" else "relu"].append(part.arm)
    common = [(one.lr, one.weight_decay, one.schedule) for one in points["relu"]]
    assert [(one.lr, one.weight_decay, one.schedule) for one in points["agile-relu"]] == common
    assert len({one.activation_lr for one in points["agile-relu"]}) == 8


def carried_out(study, known=None):
    known, rounds = dict(known or {}), 0
    while not (current := plan(study, known.get)).finished:
        assert not set(current.next) & set(known)
        known.update({spec: made_up(spec, best=0.005) for spec in current.next})
        rounds += 1
    return current, known, rounds


@pytest.mark.parametrize("replicates", [1, 3])
def test_every_arm_tries_as_many_points_and_the_best_is_run(replicates):
    protocol = dataclasses.replace(PROTOCOL, replicates=replicates, choose="lowest")
    study = dataclasses.replace(STUDY, arms=STUDY.arms[:2], protocol=protocol)
    current, known, _ = carried_out(study)
    assert len(known) == study.most_trials == current.done
    for part in current.parts:
        assert len(part.choice.scores) == 8
        assert dict(part.choice.scores)[part.choice.point] == min(dict(part.choice.scores).values())
        assert {spec.arm for spec in part.final} == {part.choice.point.spec(arm(part.arm))}
    lost = [spec for spec in known if spec.seed % 2]
    again = carried_out(study, {spec: result for spec, result in known.items() if spec not in lost})
    assert again[1] == known


def test_a_space_of_choices_alone_tries_each_once():
    space = search_space({"lr": [0.01], "schedule": "constant, linear"})
    assert sorted(quasi_random(space, 8, 0)) == [(0.01, "constant"), (0.01, "linear")]
    assert quasi_random(search_space({"lr": 0.01}), 8, 0) == ((0.01,),)


def test_a_choice_at_the_edge_of_the_space_is_told_and_a_point_of_which_a_run_died_is_not_chosen():
    space = search_space({"lr": "1e-4..0.1"})
    study = dataclasses.replace(
        STUDY, arms=(arm("relu"),), protocol=dataclasses.replace(PROTOCOL, space=space, trials=32)
    )
    for best, told in ((0.004, False), (10.0, True)):
        known = {spec: made_up(spec, best=best) for spec in plan(study, lambda spec: None).next}
        choice = plan(study, known.get).choices["relu", "digits-mlp", 0]
        assert any("is at the upper edge of the space, 0.0001..0.1 log" in flag for flag in choice.flags) == told
    known = {spec: made_up(spec, best=10.0, diverge_above=0.005) for spec in known}
    assert plan(study, known.get).choices["relu", "digits-mlp", 0].point.lr <= 0.005


def test_within_noise_the_smallest_rate_is_taken_in_a_space_too():
    study = dataclasses.replace(STUDY, protocol=dataclasses.replace(PROTOCOL, choose="within-noise"))
    known = {spec: make_result(spec) for spec in plan(study, lambda spec: None).next}  # all alike
    for choice in plan(study, known.get).choices.values():
        assert choice.point.lr == min(point.lr for point, _ in choice.scores)


def test_a_point_in_words():
    assert Point(0.01, 3.0, (("scale_lr", 0.5), ("optimizer_options.eps", 1e-8))).describe() == (
        "learning rate 0.01, activations 0.03, scale lr 0.005, eps 1e-08"
    )


def test_what_a_space_cannot_do_is_said_before_anything_is_run():
    def checked(raw, name="relu"):
        space = search_space({"lr": "0.001..0.1", **raw})
        study, data = identified(
            Study("s", (arm(name),), (task("digits-mlp"),), dataclasses.replace(PROTOCOL, space=space))
        )
        check_arms(study, data)

    checked({"optimizer": "adam, sgd"})
    for raw, part in (
        ({"optimizer": "adam, sdg"}, "unknown optimizer 'sdg'; did you mean 'sgd'"),
        ({"optimizer_options.betaz": [0.1]}, "unknown option of the optimizer 'adam': 'betaz'; did you mean 'betas'"),
        ({"optimizer_options.momentum": "0.5..0.99", "optimizer": "sgd, adam"}, "option of the optimizer 'adam'"),
    ):
        with pytest.raises(ArgumentError, match=part):
            checked(raw)


def test_a_study_with_a_space_runs_in_stacks_and_alone_and_goes_on(tmp_path):
    short = dataclasses.replace(task("digits-mlp").spec.budget, iterations=10, evaluate_every=5)
    small = Task("d", dataclasses.replace(task("digits-mlp").spec, budget=short))
    own = Arm("clipped", arm("agile-relu").spec, search_space({"clip_norm": [1.0]}))
    protocol = dataclasses.replace(PROTOCOL, trials=2, tuning_seeds=(100,), seeds=(0, 1))
    study, _ = identified(Study("s", (arm("relu"), own), (small,), protocol))
    with Store(tmp_path / "store.sqlite") as store:
        assert conduct(study, store, HereExecutor()).finished
        assert len(store) == study.most_trials == 8
        assert {spec.arm.clip_norm for spec in store.specs()} == {None, 1.0}
        assert plan(study, store.get).finished


def test_a_sampler_of_optuna_is_asked_in_order_and_follows_from_spec_and_results():
    assert optuna.samplers
    study = dataclasses.replace(
        STUDY,
        arms=STUDY.arms[:2],
        protocol=dataclasses.replace(PROTOCOL, sampler="optuna:TPESampler:n_startup_trials=3", trials=6),
    )
    current, known, rounds = carried_out(study)
    assert rounds == 7  # one point after the other, then the final trials
    assert all(len(choice.scores) == 6 for choice in current.choices.values())
    asked.cache_clear()
    kept = {spec: result for spec, result in known.items() if spec.seed != 101}
    assert carried_out(study, kept)[1] == known


@pytest.mark.parametrize(
    ("sampler", "part"),
    [
        ("optuna:TPESample", "Optuna has no sampler 'TPESample'; did you mean 'TPESampler'"),
        ("optuna:TPESampler:n=3", "does not take these options and a seed"),
    ],
)
def test_a_sampler_that_optuna_does_not_have_is_refused(sampler, part):
    assert optuna.samplers
    with pytest.raises(ArgumentError, match=part):
        asked(SPACE, sampler, 0, ())


def test_what_a_sampler_of_optuna_is_told_may_be_infinite():
    assert optuna.samplers
    assert len(asked(SPACE, "optuna:TPESampler", 0, (math.inf,) * 12)) == 4
