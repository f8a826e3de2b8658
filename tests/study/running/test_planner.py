"""The planner alone: made-up results in, trials out."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agileact import ArgumentError
from agileact.study.running.planner import Plan, Point, Score, plan, score, search
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.result import Curve, TrialResult
from agileact.study.spec.tasks import task
from agileact.study.spec.trial import TrialSpec
from tests.study.builders import make_result

PROTOCOL = Protocol(trials=7, lr=(0.001, 0.003, 0.01), tuning_seeds=(100, 101), seeds=(0, 1, 2))
STUDY = Study("s", (arm("relu"), arm("agile-relu")), (task("digits-mlp"),), PROTOCOL)


def made_up(spec, best=0.004, best_factor=1.0, diverge_above=math.inf):
    """A validation loss that is lowest at a learning rate and at a factor; a large rate diverges."""
    factor = 1.0 if spec.arm.activation_lr is None else spec.arm.activation_lr / spec.arm.lr
    low = 1 + abs(math.log(spec.arm.lr / best)) + 0.1 * abs(math.log(factor / best_factor)) + 0.001 * (spec.seed % 7)
    status = "diverged" if spec.arm.lr > diverge_above else "finished"
    return make_result(spec, status=status, curve=Curve([0, 1], [99.0, low], [99.0, low], [0.1, 0.2], [], []))


@pytest.mark.parametrize("arms", [2, 3, 5, 9])
def test_the_least_seeds_are_those_with_which_the_exact_test_can_reach_its_level(arms):
    names = ("relu", "gelu", "silu", "mish", "tanh", "sigmoid", "elu", "selu", "softplus")[:arms]
    study = dataclasses.replace(STUDY, arms=tuple(map(arm, names)))
    # Two of the 2^n sign patterns are as far from zero as one whose differences all have the same sign.
    least = next(seeds for seeds in range(1, 50) if 2 / 2**seeds * (arms - 1) <= 0.05)
    assert study.least_seeds == least
    for seeds, warned in ((least - 1, True), (least, False)):
        protocol = dataclasses.replace(PROTOCOL, seeds=tuple(range(seeds)))
        assert (dataclasses.replace(study, protocol=protocol).warning() is not None) == warned


def carried_out(study, **surface):
    """Run a study with made-up results; return the last plan, and all plans before it."""
    known: dict[TrialSpec, TrialResult] = {}
    plans: list[Plan] = []
    while True:
        plans.append(plan(study, known.get))
        if plans[-1].finished:
            return plans, known
        assert not set(plans[-1].next) & set(known)
        known.update({spec: made_up(spec, **surface) for spec in plans[-1].next})


def test_every_arm_spends_the_same_number_of_points():
    plans, known = carried_out(STUDY)
    tuned: dict[str | None, set[tuple[float, float | None, int]]] = {}
    for spec in known:
        if not spec.task.budget.use_test:
            tuned.setdefault(spec.arm.activation("fc"), set()).add((spec.arm.lr, spec.arm.activation_lr, spec.seed))
    assert {name: len(points) for name, points in tuned.items()} == {"relu": 14, "agile-relu": 14}
    assert len(known) == STUDY.most_trials == plans[-1].done


def test_the_test_set_is_touched_by_final_trials_alone_and_by_fresh_seeds():
    _, known = carried_out(STUDY)
    for spec in known:
        budget = spec.task.budget
        assert budget.use_test == (spec.seed in PROTOCOL.seeds)
        assert not budget.test_curve
    final = [spec for spec in known if spec.task.budget.use_test]
    assert [spec.seed for spec in final if spec.arm.activation("fc") == "relu"] == [0, 1, 2]


def test_the_best_point_is_chosen_and_run():
    plans, known = carried_out(STUDY, best_factor=3.0)
    choices = plans[-1].choices
    assert choices["relu", "digits-mlp", 0].point.factor == 1.0
    agile = choices["agile-relu", "digits-mlp", 0]
    assert agile.point.factor == 3.0
    assert {spec.arm.activation_lr for spec in known if spec.task.budget.use_test} == {None, agile.point.activation_lr}
    for choice in choices.values():
        assert dict(choice.scores)[choice.point] == min(dict(choice.scores).values())


def test_a_best_value_at_the_edge_is_followed_and_then_flagged():
    plans, _ = carried_out(STUDY, best=0.03)
    assert plans[-1].choices["relu", "digits-mlp", 0].point.lr == pytest.approx(0.0333333)
    assert plans[-1].choices["relu", "digits-mlp", 0].flags == ()
    plans, _ = carried_out(STUDY, best=1e3)
    choice = plans[-1].choices["relu", "digits-mlp", 0]
    assert len(choice.scores) == 7
    assert any("is the largest tried" in flag for flag in choice.flags)
    fixed = dataclasses.replace(STUDY, protocol=dataclasses.replace(PROTOCOL, extend=False))
    plans, _ = carried_out(fixed, best=1e-6)
    choice = plans[-1].choices["relu", "digits-mlp", 0]
    assert choice.point.lr == 0.001
    assert any("is the smallest tried" in flag for flag in choice.flags)


def test_points_that_diverge_are_never_chosen_and_told():
    plans, _ = carried_out(STUDY, best=1.0, diverge_above=0.005)
    choice = plans[-1].choices["relu", "digits-mlp", 0]
    assert choice.point.lr <= 0.005
    assert any("points diverged" in flag for flag in choice.flags)
    plans, known = carried_out(STUDY, diverge_above=0.0)
    choice = plans[-1].choices["agile-relu", "digits-mlp", 0]
    assert choice.flags[0] == "every point diverged"
    assert choice.point.lr == min(point.lr for point, _ in choice.scores)
    assert len(known) == STUDY.most_trials


@given(st.floats(1e-5, 1.0), st.sampled_from([0.1, 0.3, 1.0, 3.0, 30.0]), st.integers(0, 30), st.randoms())
def test_a_study_that_was_cut_short_ends_with_the_same_trials(best, factor, lost, random):
    _, whole = carried_out(STUDY, best=best, best_factor=factor)
    kept = dict(whole)
    for spec in random.sample(sorted(kept, key=lambda spec: spec.key), min(lost, len(kept))):
        del kept[spec]
    known = dict(kept)
    while not (current := plan(STUDY, known.get)).finished:
        assert not set(current.next) & set(known)
        known.update({spec: made_up(spec, best=best, best_factor=factor) for spec in current.next})
    assert known == whole


@given(st.integers(3, 12), st.booleans(), st.floats(1e-6, 10.0), st.floats(0.01, 100.0))
def test_the_search_stays_within_its_trials_and_repeats_no_point(trials, trainable, best, factor):
    protocol = dataclasses.replace(PROTOCOL, trials=trials)

    def known(point):
        return Score((abs(math.log(point.lr / best)) + 0.2 * abs(math.log(point.factor / factor)),))

    points, missing = search(protocol, trainable, known)
    assert missing == []
    assert len(points) <= trials
    assert len(set(points)) == len(points)
    assert [point.lr for point in points[:3]] == list(protocol.lr)
    assert trainable or all(point.factor == 1.0 for point in points)


def test_without_tuning_the_arms_own_rates_are_used():
    study = Study(
        "paper",
        (arm("relu", lr=0.02), arm("agile-relu", lr=0.02, activation_lr=0.001)),
        (task("digits-mlp"),),
        Protocol(tune=False, seeds=(5,), select="test", test="curve"),
    )
    current = plan(study, lambda spec: None)
    assert [(spec.arm.lr, spec.arm.activation_lr, spec.seed) for spec in current.next] == [
        (0.02, None, 5),
        (0.02, 0.001, 5),
    ]
    assert all(spec.task.budget.test_curve for spec in current.next)
    assert current.tuning == ()
    assert study.most_trials == 2


def test_a_score_is_the_mean_of_the_lowest_losses():
    spec = plan(STUDY, lambda spec: None).next[0]
    finished = [make_result(spec, curve=Curve([0, 1, 2], [], [3.0, low, 5.0], [])) for low in (1.0, 2.0)]
    assert score(finished).mean == 1.5
    assert score([finished[0], dataclasses.replace(finished[1], status="diverged")]).mean == math.inf


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: Protocol(seeds=()), "seeds must be one or more different whole numbers"),
        (lambda: Protocol(seeds=(1, 1)), "seeds must be one or more different"),
        (lambda: Protocol(tuning_seeds=(3,)), "seeds must be fresh ones: 3 would be tuned on too"),
        (lambda: Protocol(trials=3), "trials must be at least the number of learning rates, 4, not 3"),
        (lambda: Protocol(lr=(0.1, 0.01)), "increasing positive numbers"),
        (lambda: Protocol(activation_lr=(1.0, 3.0)), "must not name the factor 1"),
        (lambda: Protocol(select="best"), "'validation' or 'test'"),
        (lambda: Protocol(select="test"), "needs test 'curve'"),
        (lambda: Study("s", (), (task("digits-mlp"),)), "at least one arm"),
        (lambda: Study("s", (arm("relu"), arm("relu")), (task("digits-mlp"),)), "two arms are called 'relu'"),
    ],
)
def test_what_does_not_fit_is_refused(make, part):
    with pytest.raises(ArgumentError, match=part):
        make()


def test_a_point_prints_what_is_run():
    assert Point(0.003).activation_lr is None
    assert Point(0.003, 0.3).activation_lr == 0.0009


REPLICATED = dataclasses.replace(STUDY, protocol=dataclasses.replace(PROTOCOL, replicates=3, seeds=(0, 1)))


def test_every_replicate_is_done_afresh():
    plans, known = carried_out(REPLICATED)
    assert len(known) == REPLICATED.most_trials == 2 * 3 * (7 * 2 + 2) == plans[-1].done
    by_split = {n: [spec for spec in known if spec.task.data.split == n] for n in range(3)}
    seeds = [{spec.seed for spec in specs} for specs in by_split.values()]
    assert [len(one) for one in seeds] == [4, 4, 4]  # two to tune, two for the end
    assert not seeds[0] & seeds[1] | seeds[0] & seeds[2] | seeds[1] & seeds[2]
    first = [
        {spec.arm.lr for spec in plan(REPLICATED, lambda spec: None).next if spec.task.data.split == n}
        for n in range(3)
    ]
    assert first[0] == set(PROTOCOL.lr)
    assert not first[0] & first[1] | first[0] & first[2] | first[1] & first[2]
    # Within a replicate arms begin with the same rates and end with the same seeds.
    for specs in by_split.values():
        finals: dict[str | None, list[int]] = {}
        for spec in specs:
            if spec.task.budget.use_test:
                finals.setdefault(spec.arm.activation("fc"), []).append(spec.seed)
        assert len({tuple(sorted(one)) for one in finals.values()}) == 1


def test_one_replicate_is_the_study_of_before():
    once = dataclasses.replace(STUDY, protocol=dataclasses.replace(PROTOCOL, replicates=1))
    assert plan(once, lambda spec: None) == plan(STUDY, lambda spec: None)
    assert all('"split"' not in spec.to_json() for spec in plan(STUDY, lambda spec: None).next)
    # The first replicate of several begins with its trials: what was done counts.
    assert set(plan(STUDY, lambda spec: None).tuning) <= set(plan(REPLICATED, lambda spec: None).tuning)


def saturated(spec, solved=1e-4):
    """Every learning rate up to 1 solves the task; what is left of the loss falls with the rate."""
    low = solved / spec.arm.lr**0.5 if spec.arm.lr <= 1 else 2.0
    return make_result(spec, curve=Curve([0, 1], [2.3, low], [2.3, low], [0.1, 1.0], [], []))


def test_on_a_task_that_every_rate_solves_the_smallest_is_taken_and_said():
    def chosen(protocol):
        study = dataclasses.replace(STUDY, protocol=protocol)
        known: dict[TrialSpec, TrialResult] = {}
        while not (current := plan(study, known.get)).finished:
            known.update({spec: saturated(spec, 1e-5) for spec in current.next})
        return current.choices["relu", "digits-mlp", 0]

    lowest = chosen(PROTOCOL)
    assert lowest.point.lr > 0.1
    assert "the validation loss fell to" in lowest.flags[-1]
    assert "take fewer iterations" in lowest.flags[-1]
    within = chosen(dataclasses.replace(PROTOCOL, choose="within-noise"))
    assert within.point.lr < PROTOCOL.lr[0]


def test_a_tie_is_what_the_tuning_seeds_cannot_tell_apart():
    best = Score((0.30, 0.32), 2.3)
    assert Score((0.31, 0.32), 2.3).ties(best)  # 0.005 with a standard error of 0.005
    assert not Score((0.31, 0.33), 2.3).ties(best)  # worse by the same with both seeds
    assert Score((0.302, 0.322), 2.3).ties(best)  # by less than a thousandth of 2.3
    assert not Score((math.inf, 0.2), 2.3).ties(best)
    assert not Score((0.31,), 2.3).ties(Score((0.30,), 2.3))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"replicates": 0}, "replicates must be from 1 to 1,000, not 0"),
        ({"replicates": 2, "seeds": (1_000_000,)}, "every seed must be below 1,000,000"),
        ({"choose": "lowst"}, "did you mean 'lowest'"),
    ],
)
def test_replicates_that_do_not_fit_are_refused(changes, part):
    with pytest.raises(ArgumentError, match=part):
        dataclasses.replace(PROTOCOL, **changes)
