"""Progress by a clock that the test turns: one counter for a run, a time left to believe, few lines off a terminal."""

from __future__ import annotations

import dataclasses
import io
import itertools
import re

import pytest

from agileact.study.running import progress
from agileact.study.running.executors import Advanced, Failed, Finished, Started
from agileact.study.running.planner import Point, final_trials, tuning_trials
from agileact.study.running.progress import display
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.result import Curve, Probe, TrialResult
from agileact.study.spec.tasks import task
from agileact.study.spec.trial import TrialSpec

QUICK, SLOW = task("digits-mlp"), task("paper-cnn")
STUDY = Study("s", (arm("relu"), arm("agile-relu")), (QUICK, SLOW), Protocol(seeds=(0, 1, 2)))
SECONDS = {QUICK.name: 20.0, SLOW.name: 300.0}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def trials(rates=(0.01, 0.03)):
    return [
        spec
        for one, rate, what in itertools.product(STUDY.arms, rates, STUDY.tasks)
        for spec in tuning_trials(STUDY.protocol, one, what, Point(rate))
    ]


def finals():
    return [
        spec
        for one, what in itertools.product(STUDY.arms, STUDY.tasks)
        for spec in final_trials(STUDY.protocol, one, what, Point(0.01))
    ]


def result(spec, stacked=1):
    end = spec.task.budget.iterations
    return TrialResult(
        spec=spec, status="finished", curve=Curve([0, end], [1.0, 0.5], [1.0, 0.5]), probe=Probe(), layers={},
        best_test_loss=None, best_iteration=None, selected_iteration=end, selected_test_loss=None,
        selected_test_accuracy=None, parameters=1, seconds_per_iteration=0.1, seconds=takes(spec) / stacked,
        versions={},
    )  # fmt: skip


def takes(spec):
    return SECONDS[next(one.name for one in STUDY.tasks if one.spec.model == spec.task.model)]


def run(show, clock, specs, jobs=2, step=5.0, start=0.0, stacked=1):
    """Run trials side by side, in their order, and yield after each event; a stack's seconds are shared among it."""
    waiting, begun = list(specs), clock.now
    running: dict[TrialSpec, float] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            spec = waiting.pop(0)
            running[spec] = clock.now
            show(Started(spec))
        clock.now += step
        for spec, since in list(running.items()):
            share = (clock.now - max(since, begun + start)) / takes(spec)
            if share <= 0:
                continue
            event: Finished | Advanced
            if share >= 1:
                del running[spec]
                event = Finished(spec, result(spec, stacked))
            else:
                event = Advanced(spec, int(share * spec.task.budget.iterations), 0.5)
            show(event)
            yield event


def left(text):
    found = re.search(r"about (?:(\d+) h )?(?:(\d+) min)?(?: ?(\d+) s)? left", text)
    assert found, text
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds


def test_off_a_terminal_at_most_a_line_a_minute_each_with_the_whole_runs_count(clock):
    stream = io.StringIO()
    rounds = [trials(), finals()]
    total = sum(map(len, rounds))
    said: list[float] = []
    with display(STUDY, stream) as show:
        done = 0
        for specs in rounds:
            show.plan(specs, done, total - done - len(specs))
            for _ in run(show, clock, specs):
                lines = stream.getvalue().splitlines()
                said += [clock.now] * (len(lines) - len(said))
            done += len(specs)
    lines = stream.getvalue().splitlines()
    assert len(lines) > 5
    assert all(later - earlier >= 60 for earlier, later in itertools.pairwise(said[:-1]))
    counts = [int(line.partition(" of ")[0]) for line in lines]
    assert counts == sorted(counts)
    assert all(f" of {total} trials" in line for line in lines)
    assert lines[-1].startswith(f"{total} of {total} trials, in ")
    assert all(re.search(r"; (agile-)?relu; (digits-mlp|paper-cnn); rate 0\.0[13]; seed \d+: ", line) for line in lines)


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_time_left_is_to_be_believed_from_the_first_trial_of_each_kind_on(clock, jobs):
    specs = trials()
    truth = sum(map(takes, specs)) / jobs
    known = 0
    with display(STUDY, io.StringIO()) as show:
        show.plan(specs)
        begun = clock.now
        for _ in run(show, clock, specs, jobs):
            if len(show._remaining._rates()) == 2:
                known += 1
                assert show._remaining.seconds == pytest.approx(begun + truth - clock.now, abs=0.15 * truth)
        assert known > len(specs)
        # What is left at the end is nothing.
        assert show._remaining.seconds == pytest.approx(0, abs=1)


def test_what_a_worker_begins_with_is_not_taken_for_a_part_of_each_trial(clock):
    specs = [spec for spec in trials((0.01, 0.02, 0.03)) if takes(spec) == SECONDS[QUICK.name]]
    stream = io.StringIO()
    with display(STUDY, stream) as show:
        show.plan(specs)
        first = next(event for event in run(show, clock, specs, jobs=2, start=30.0) if isinstance(event, Finished))
    (line,) = stream.getvalue().splitlines()
    assert line.startswith(f"1 of {len(specs)} trials")
    assert left(line) == pytest.approx((len(specs) - 2) * takes(first.spec) / 2, rel=0.3, abs=15)


def test_the_time_left_of_stacks_is_to_be_believed_from_the_first_trial_on(clock):
    rates = [0.001 * rate for rate in range(1, 13)]
    specs = [spec for spec in trials(rates) if takes(spec) == SECONDS[QUICK.name]]
    assert len(specs) == 48
    stream = io.StringIO()
    with display(STUDY, stream) as show:
        show.plan(specs)
        next(event for event in run(show, clock, specs, jobs=12, stacked=12) if isinstance(event, Finished))
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("1 of 48 trials")
    assert left(line) == pytest.approx(3 * SECONDS[QUICK.name], rel=0.3)


def test_trials_that_were_done_before_count_but_do_not_make_it_faster(clock):
    specs = trials()
    stream = io.StringIO()
    with display(STUDY, stream) as show:
        show.plan(specs[8:], done=8)
        events = run(show, clock, specs[8:], jobs=1)
        first = next(event for event in events if isinstance(event, Finished))
    line = stream.getvalue().splitlines()[0]
    assert line.startswith(f"9 of {len(specs)} trials, about ")
    # Only trials of one task have been seen: iteration for iteration, the other's take as long.
    rate = takes(first.spec) / first.spec.task.budget.iterations
    assert left(line) == pytest.approx(sum(rate * s.task.budget.iterations for s in specs[9:]), rel=0.35)


def test_the_first_failure_is_said_at_once_and_all_are_counted(clock):
    stream = io.StringIO()
    specs = trials()[:4]
    with display(STUDY, stream) as show:
        show.plan(specs)
        for spec in specs:
            show(Started(spec))
            clock.now += 1
            show(Failed(spec, "out of memory\x1b[2J") if spec is not specs[2] else Finished(spec, result(spec)))
    first, last = stream.getvalue().splitlines()
    assert "0 of 4 trials, 1 failed" in first
    assert "FAILED, out of memory\ufffd[2J" in first
    assert last.startswith("1 of 4 trials, 3 failed")
    assert "\x1b" not in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_bars_by_name_and_what_ended(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    study = dataclasses.replace(STUDY, arms=(dataclasses.replace(STUDY.arms[0], name="[red]x[/]"), STUDY.arms[1]))
    stream = Terminal()
    specs = trials((0.01,))
    with display(study, stream) as show:
        show.plan(specs, later=4)
        for _ in run(show, clock, specs):
            pass
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    ended = re.findall(r"^(.*): lowest validation loss 0\.5000 at iteration \d+$", text, re.M)
    assert len(ended) == len(specs)
    assert ended[0].startswith("[red]x[/]; digits-mlp; rate 0.01; seed ")
    assert f"{len(specs)} of {len(specs) + 4} trials" in text
