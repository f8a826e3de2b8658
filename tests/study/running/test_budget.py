"""A time that a run keeps to, with a clock that the executor alone moves."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from agileact.study.data import dataset as data_room
from agileact.study.running import cost
from agileact.study.running.budget import Limit, conduct_within, smaller
from agileact.study.running.executors import Advanced, Finished, FinishedTogether, Started
from agileact.study.running.planner import plan
from agileact.study.running.store import Store
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.result import TrialResult
from agileact.study.spec.space import search_space
from agileact.study.spec.tasks import task
from agileact.study.spec.trial import TrialSpec
from agileact.study.training.stacked import stacks
from tests.study.running.test_planner import made_up

PROTOCOL = Protocol(trials=5, lr=(0.001, 0.003, 0.01), tuning_seeds=(100, 101), seeds=tuple(range(8)))
ONCE = Study("s", (arm("relu"), arm("agile-relu"), arm("prelu")), (task("digits-mlp"),), PROTOCOL)
REPLICATED = dataclasses.replace(
    ONCE, protocol=dataclasses.replace(PROTOCOL, replicates=9, tuning_seeds=(100,), seeds=(0, 1))
)


class Slow:
    """Trials one after the other, each as long as a function of the time says; the clock is its own."""

    def __init__(self, seconds):
        self.now, self.seconds, self.ran = 0.0, seconds, []

    def run(self, specs):
        for spec in specs:
            yield Started(spec)
            took = self.seconds(self.now)
            for part in range(10):
                self.now += took / 10
                yield Advanced(spec, part, 1.0)
            self.ran.append(spec)
            yield Finished(spec, dataclasses.replace(made_up(spec), seconds=took))


class Stacked(Slow):
    """Trials in stacks, of which each one more takes a fifth of a trial."""

    def run(self, specs):
        for group in stacks(specs):
            yield from map(Started, group)
            took = self.seconds(self.now) * (0.8 + 0.2 * len(group))
            self.now += took
            self.ran += group
            results = tuple(dataclasses.replace(made_up(spec), seconds=took / len(group)) for spec in group)
            yield Finished(group[0], results[0]) if len(group) == 1 else FinishedTogether(results)


def conducted(tmp_path, study, seconds, budget, expected=1.0, executor=Slow):
    slow = executor(seconds)
    with Store(tmp_path / "store.sqlite") as store:
        limit = Limit(budget, expected, clock=lambda: slow.now)
        part, current = conduct_within(limit, study, store, slow)
        assert plan(part, store.get) == current
    return part, current, slow


LOADS = {
    "as fast as timed": lambda now: 1.0,
    "three times as slow": lambda now: 3.0,
    "slow from the middle on": lambda now: 1.0 if now < 40 else 5.0,
    "slow at first": lambda now: 4.0 if now < 20 else 1.0,
}


@pytest.mark.parametrize("load", LOADS, ids=str)
@pytest.mark.parametrize("study", [ONCE, REPLICATED], ids=["seeds", "replicates"])
def test_a_budget_is_a_limit_and_what_is_complete_has_all_arms(tmp_path, study, load):
    budget = 1.15 * study.most_trials
    part, current, slow = conducted(tmp_path, study, LOADS[load], budget)
    assert slow.now <= 1.1 * budget
    assert current.finished
    assert part.arms == study.arms
    # All arms have the same seeds, and the same points.
    assert len({(len(one.choice.scores), len(one.final)) for one in current.parts}) == 1
    assert len(slow.ran) == len(set(slow.ran))
    assert part == study or load != "as fast as timed"
    if load != "three times as slow":
        assert part.protocol.units >= 3


@pytest.mark.parametrize("load", LOADS, ids=str)
def test_stacks_end_together_and_tell_how_long_a_trial_takes(tmp_path, load):
    # Alone the trials would take 189 s.
    part, current, slow = conducted(tmp_path, REPLICATED, LOADS[load], 100.0, executor=Stacked)
    assert slow.now <= 110.0
    assert current.finished
    assert part.arms == REPLICATED.arms
    assert len({(len(one.choice.scores), len(one.final)) for one in current.parts}) == 1
    assert part.protocol.replicates >= 3
    assert part == REPLICATED or load != "as fast as timed"


def test_the_first_trials_are_one_of_each_stack(tmp_path):
    slow = Stacked(lambda now: 1.0)
    with Store(tmp_path / "store.sqlite") as store:
        conduct_within(Limit(1.5, 1.0, clock=lambda: slow.now), REPLICATED, store, slow, jobs=2)
    first = [spec.arm.activation("fc") for spec in slow.ran[:2]]
    assert first == ["relu", "agile-relu"]


def test_the_same_command_again_goes_on_to_the_whole(tmp_path):
    first, _, slow = conducted(tmp_path, REPLICATED, LOADS["three times as slow"], 100.0)
    assert 1 <= first.protocol.replicates < 9
    second, current, again = conducted(tmp_path, REPLICATED, lambda now: 0.1, 100.0)
    assert second == REPLICATED
    assert current.finished
    assert not set(slow.ran) & set(again.ran)


SPACE = dataclasses.replace(
    ONCE,
    protocol=Protocol(
        trials=8, space=search_space({"lr": "1e-4..0.1"}), tuning_seeds=(100, 101), seeds=tuple(range(8))
    ),
)


@pytest.mark.parametrize("times", [4.0, 4.8])
@pytest.mark.parametrize("study", [ONCE, SPACE], ids=["rates", "space"])
def test_a_run_many_times_as_slow_as_timed_has_the_least_part_of_every_arm(tmp_path, study, times):
    budget = 1.15 * study.most_trials
    part, current, slow = conducted(tmp_path, study, lambda now: times, budget)
    assert slow.now <= 1.1 * budget
    assert current.finished
    assert [len(one.final) >= 1 for one in current.parts] == [True] * len(study.arms)
    assert len({(len(one.choice.scores), len(one.final)) for one in current.parts}) == 1
    assert len(part.protocol.tuning_seeds) == 1


def test_where_nothing_is_complete_the_least_is_told_unfinished(tmp_path):
    part, current, slow = conducted(tmp_path, ONCE, lambda now: 30.0, 100.0)
    assert not current.finished
    assert part.arms == ONCE.arms
    assert slow.now <= 110


@pytest.mark.parametrize(("begun", "beginning", "closing"), [(-30.0, 0.0, 3.0), (-30.0, 30.0, 12.0), (0.0, 50.0, 20.0)])
def test_what_is_over_before_and_what_comes_after_are_in_the_time(tmp_path, begun, beginning, closing):
    slow = Slow(lambda now: 1.0)
    with Store(tmp_path / "store.sqlite") as store:
        limit = Limit(100.0, 1.0, clock=lambda: slow.now, begun=begun, beginning=beginning)
        part, current = conduct_within(limit, REPLICATED, store, slow)
    assert slow.now <= 100.0 + begun - closing
    assert current.finished
    assert part.arms == ONCE.arms
    assert 1 <= part.protocol.replicates < 9


def test_a_slow_run_keeps_as_many_replicates_as_a_test_needs(tmp_path):
    protocol = dataclasses.replace(REPLICATED.protocol, replicates=10, trials=12, seeds=(0, 1, 2, 3))
    study = dataclasses.replace(REPLICATED, protocol=protocol)
    budget = 1.15 * study.most_trials
    part, current, slow = conducted(tmp_path, study, lambda now: 3.0, budget)
    assert slow.now <= 1.1 * budget
    assert current.finished
    assert part.protocol.replicates >= part.least_seeds
    assert part.warning() is None
    # It uses the time that it has.
    assert slow.now >= 0.75 * budget


def test_what_would_be_enough_is_enough(tmp_path):
    part, current, slow = conducted(tmp_path / "first", ONCE, lambda now: 30.0, 100.0)
    limit = Limit(100.0, 30.0, clock=lambda: slow.now)
    enough = limit.enough(part.most_trials - current.done)
    part, current, slow = conducted(tmp_path / "second", ONCE, lambda now: 30.0, enough)
    assert current.finished
    assert part.protocol.units >= 1
    assert slow.now <= enough <= 1.3 * 30.0 * part.most_trials


def test_workers_that_take_long_to_begin_tell_how_slow_trials_will_be():
    now = 0.0
    limit = Limit(60.0, 1.0, clock=lambda: now)
    limit.note(Started(next(iter(plan(ONCE, lambda spec: None).next))))
    assert limit.enough(10) == pytest.approx(60 + 10 * 1.05)
    now = 50.0  # ten times as long as 4 s to begin, and a trial
    assert limit.enough(10) == pytest.approx(60 + 50 + 10 * 10 * 1.05)


def test_of_trials_that_share_a_stack_each_takes_its_part_of_the_time(monkeypatch):
    sizes = []

    def run(specs, data):
        sizes.append(len(specs))
        return [dataclasses.replace(made_up(spec), seconds=6.0, seconds_per_iteration=1.0) for spec in specs]

    monkeypatch.setattr(cost, "run_stack", run)
    spec = ONCE.tasks[0].spec
    data = data_room.load(spec.data)
    # A trial's steps of a second, before which as much less was spent as no time passed.
    expected = spec.budget.iterations - 6.0
    for trials, size in ((3, 3), (40, 10)):
        assert cost.trial_seconds(spec, ONCE.arms[0].spec, data, trials) == pytest.approx(expected, abs=1)
        assert sizes.pop() == size
    patient = dataclasses.replace(spec, budget=dataclasses.replace(spec.budget, patience=3, iterations=50))
    assert 0 < cost.trial_seconds(patient, ONCE.arms[0].spec, data, 40) < 50
    assert not sizes


def test_time_that_comes_back_is_used(tmp_path):
    slow_at_first, _, _ = conducted(tmp_path, ONCE, LOADS["slow at first"], 60.0)
    assert len(slow_at_first.protocol.seeds) >= 1


@pytest.mark.parametrize("study", [ONCE, REPLICATED], ids=["seeds", "replicates"])
def test_every_smaller_study_has_trials_of_the_larger_alone(study):
    sizes = list(smaller(study))
    assert sizes[0] == study
    assert sizes[-1].protocol.units == 1
    counts = [one.most_trials for one in sizes]
    assert counts == sorted(counts, reverse=True)
    for larger, less in itertools.pairwise(sizes):
        assert less.arms == larger.arms
        known: dict[TrialSpec, TrialResult] = {}
        while not (current := plan(less, known.get)).finished:
            known.update({spec: made_up(spec) for spec in current.next})
        rest = dict(known)
        while not (current := plan(larger, rest.get)).finished:
            rest.update({spec: made_up(spec) for spec in current.next})
        assert plan(larger, rest.get).done >= len([spec for spec in known if spec in rest])


def test_an_executor_that_waits_looks_at_the_clock():
    from agileact.study.running.executors.local import LocalExecutor
    from tests.study.builders import make_spec

    def over():
        raise TimeoutError

    executor = LocalExecutor(jobs=1)
    executor.tick = over
    with pytest.raises(TimeoutError):
        list(executor.run([make_spec()]))
