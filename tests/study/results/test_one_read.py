"""A study's trials are read once: whatever is shown of them comes from one outcome."""

from __future__ import annotations

from collections import Counter

import pytest

from agileact import cli
from agileact.study.results.outcome import Outcome
from agileact.study.running import store as store_room
from agileact.study.running.conduct import Results, conduct
from agileact.study.running.executors import Finished, Started
from agileact.study.running.store import Store
from agileact.study.spec.record import write_record
from agileact.study.spec.result import TrialResult
from tests.study.report.builders import lookup_of, made_up, small_study

STUDY = small_study(tasks=small_study().tasks[1:])


class MadeUp:
    def run(self, specs):
        for spec in specs:
            yield Started(spec)
            yield Finished(spec, made_up(spec))


@pytest.fixture
def folder(tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        conduct(STUDY, store, MadeUp())
    write_record(tmp_path, STUDY)
    return tmp_path


@pytest.fixture
def counted(monkeypatch):
    """How often each row was checked against its hash, by the trial's key, and how often each result was parsed."""
    checked: Counter[str] = Counter()
    parsed: Counter[str] = Counter()
    from_json, whole = TrialResult.from_json, store_room.whole

    def parse(text):
        parsed[text] += 1
        return from_json(text)

    def check(key, *row):
        checked[key] += 1
        return whole(key, *row)

    monkeypatch.setattr(TrialResult, "from_json", staticmethod(parse))
    monkeypatch.setattr(store_room, "whole", check)
    return checked, parsed


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["show", "--json"], ["status"], ["export", "--csv", "-"], ["report", "-o", "r.html"]],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_command_reads_and_hashes_every_stored_trial_once(folder, counted, arguments, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert cli.main(["study", arguments[0], ".", *arguments[1:]]) == 0, capsys.readouterr().err
    for counts in counted:
        assert len(counts) == STUDY.most_trials
        assert set(counts.values()) == {1}


def test_what_was_run_a_moment_ago_is_not_read_again(tmp_path, counted):
    with Store(tmp_path / "store.sqlite") as store:
        results = Results(store)
        conduct(STUDY, store, MadeUp(), results=results)
        outcome = Outcome(STUDY, results)
    assert outcome.current.finished
    assert counted == ({}, {})


def test_parts_of_an_outcome_are_derived_once_and_ask_for_no_trial_again():
    lookup, open_ = lookup_of(STUDY), True

    def until_closed(spec):
        assert open_
        return lookup(spec)

    outcome = Outcome(STUDY, until_closed)
    open_ = False
    for part in ("comparisons", "ranking", "over_tasks", "flags"):
        assert getattr(outcome, part) is getattr(outcome, part)
    one = outcome.comparisons[0]
    assert one.bootstrap is one.bootstrap
    assert one.improvement is one.improvement
