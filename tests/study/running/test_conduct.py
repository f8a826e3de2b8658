"""A study from its plan to its outcome, with made-up results and with real ones."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
import sys

import pytest

from agileact import StoreError, cli
from agileact.study.results.export import COLUMNS, to_csv, trial_rows
from agileact.study.results.outcome import Outcome, loss
from agileact.study.results.printing import HEADER, row
from agileact.study.running.conduct import conduct, identified
from agileact.study.running.executors import Finished, Started
from agileact.study.running.planner import plan
from agileact.study.running.store import Store
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.result import Curve
from agileact.study.spec.tasks import task
from tests.study.builders import make_result

PROTOCOL = Protocol(trials=3, lr=(0.001, 0.01), tuning_seeds=(50,), seeds=tuple(range(8)))
STUDY = Study(
    "made-up", (arm("relu"), arm("agile-relu"), arm("gelu")), (task("digits-mlp"), task("diabetes-mlp")), PROTOCOL
)


class MadeUp:
    """Results without training: agile is better and faster, gelu diverges with seed 3 on one task."""

    def __init__(self, stop_after=None):
        self.ran = []
        self.stop_after = stop_after

    def run(self, specs):
        for spec in specs:
            if self.stop_after is not None and len(self.ran) >= self.stop_after:
                raise KeyboardInterrupt
            self.ran.append(spec)
            yield Started(spec)
            yield Finished(spec, self.result(spec))

    def result(self, spec):
        name = spec.arm.activation("fc")
        better = 0.1 if name == "agile-relu" else 0.0
        noise = 0.01 * math.sin(17 * spec.seed + len(str(name)))
        low = 1 - better + abs(math.log(spec.arm.lr / 0.01)) + noise
        diverged = name == "gelu" and spec.seed == 3 and spec.task.data.name == "digits"
        curve = Curve([0, 500, 1000], [3.0] * 3, [3.0, low if better else 2.0, low], [], [], [])
        return make_result(
            spec,
            status="diverged" if diverged else "finished",
            curve=curve,
            selected_test_loss=low,
            best_test_loss=None,
        )


@pytest.fixture(scope="module")
def done():
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.sqlite") as store:
        current = conduct(STUDY, store, MadeUp())
        yield current, store


def test_a_study_runs_to_its_end_and_a_second_time_runs_nothing(done):
    current, store = done
    assert current.finished
    assert current.done == len(store) == STUDY.most_trials
    again = MadeUp()
    conduct(STUDY, store, again)
    assert again.ran == []


@pytest.mark.parametrize("stop", [0, 1, 7, 20, 40])
def test_a_study_that_was_stopped_goes_on_and_runs_no_trial_twice(tmp_path, done, stop):
    with Store(tmp_path / "store.sqlite") as store:
        first = MadeUp(stop_after=stop)
        with pytest.raises(KeyboardInterrupt):
            conduct(STUDY, store, first)
        second = MadeUp()
        conduct(STUDY, store, second)
        assert not set(first.ran) & set(second.ran)
        assert {*first.ran, *second.ran} == {spec for spec in first.ran + second.ran if spec in done[1]}
        assert len(store) == STUDY.most_trials


@pytest.mark.parametrize("stop", [0, 3, 13, 15, 40])
def test_every_finished_trial_is_exported_also_while_arms_are_being_tuned(tmp_path, stop):
    with Store(tmp_path / "store.sqlite") as store:
        ran = MadeUp(stop_after=stop)
        with pytest.raises(KeyboardInterrupt):
            conduct(STUDY, store, ran)
        rows = trial_rows(Outcome(STUDY, store.get))
    assert sorted(row["trial"] for row in rows) == sorted(spec.key for spec in ran.ran)
    assert all(tuple(row)[: len(COLUMNS)] == COLUMNS for row in rows)
    assert to_csv(rows).startswith(",".join(COLUMNS))  # without rows, too


def test_the_outcome_says_what_the_results_hold(done):
    outcome = Outcome(STUDY, done[1].get)
    found = outcome.cells
    agile = next(cell for cell in found if (cell.arm, cell.task) == ("agile-relu", "digits-mlp"))
    base = next(cell for cell in found if (cell.arm, cell.task) == ("relu", "digits-mlp"))
    assert len(agile.results) == 8
    assert agile.times is not None
    assert agile.times.median() == 500
    assert base.times is not None
    assert base.times.median() == 1000
    compared = {(one.task, one.arm): one for one in outcome.comparisons}
    one = compared["digits-mlp", "agile-relu"]
    assert one.verdict.decision == "better"
    assert "agile-relu 8 of 8 runs got there, in the median after 500 iterations" in one.times
    assert one.common is not None
    assert (one.common.arm.median(), one.common.base.median()) == (500, 1000)
    assert one.common.p_value < 0.05
    assert "both reach: in the median agile-relu after 500 iterations" in one.common.describe("agile-relu", "relu")
    assert compared["digits-mlp", "gelu"].common is None
    lost = compared["digits-mlp", "gelu"]
    assert lost.verdict.decision == "unstable"
    assert compared["diabetes-mlp", "gelu"].verdict.decision in ("same", "undecided")
    cell = next(cell for cell in found if (cell.arm, cell.task) == ("gelu", "digits-mlp"))
    assert cell.diverged == 1
    assert row(cell)[-1] == "8 (1 diverged)"
    assert all(len(row(cell)) == len(HEADER) for cell in found)


def test_ranks_put_an_arm_that_diverged_behind(done):
    ranks = Outcome(STUDY, done[1].get).ranking
    assert ranks is not None
    assert ranks.ranks[1] == 1.0
    assert ranks.ranks[2] >= 2.0


def test_an_unfinished_study_shows_what_there_is():
    outcome = Outcome(STUDY, lambda spec: None)
    assert outcome.comparisons == ()
    assert outcome.ranking is None
    assert row(outcome.cells[0])[2:] == (*["–"] * 8, "0")


def test_a_diverged_trial_has_no_finite_loss():
    result = make_result(plan(STUDY, lambda spec: None).next[0])
    assert loss(result) == 1.1
    assert loss(result, "test") == 1.1
    assert loss(dataclasses.replace(result, status="diverged")) == math.inf
    assert loss(dataclasses.replace(result, selected_test_loss=None)) == math.inf


def test_fingerprints_of_the_data_are_part_of_every_trial():
    study, data = identified(STUDY)
    assert [t.spec.data.fingerprint for t in study.tasks] == [data[t.name].fingerprint for t in STUDY.tasks]
    assert not set(plan(study, lambda spec: None).next) & set(plan(STUDY, lambda spec: None).next)


def test_a_store_can_be_read_while_it_is_written(tmp_path, done):
    _, store = done
    with Store(store.path, read_only=True) as reader:
        assert len(reader) == len(store)
        with pytest.raises(StoreError, match="cannot write"):
            reader.put(make_result(plan(STUDY, lambda spec: None).next[0], seconds=2.0))
    with pytest.raises(StoreError, match="no store of trials at"):
        Store(tmp_path / "none.sqlite", read_only=True)
    (tmp_path / "text.sqlite").write_text("not a database at all" * 100)
    with pytest.raises(StoreError, match="cannot be read"):
        Store(tmp_path / "text.sqlite", read_only=True)


YAML = """
name: tiny
arms: [relu, agile-relu]
tasks: [{name: d, task: diabetes-mlp, budget: {iterations: 20, evaluate_every: 10}}]
protocol: {seeds: 6, trials: 2, lr: [0.003, 0.03], tuning_seeds: 1}
"""


def agileact(capsys, *arguments):
    code = cli.main(["study", *map(str, arguments)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out, captured.err


def undated(page: str) -> str:
    """Return a report without the minute at which it was made."""
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", page)


@pytest.mark.slow
def test_the_commands_as_a_user_types_them(tmp_path, capsys):
    spec, out = tmp_path / "tiny.yaml", tmp_path / "out"
    spec.write_text(YAML)
    text, _ = agileact(capsys, "plan", spec, "--out", out)
    assert "At most 16 trials, 0 of them done" in text
    assert not out.exists()
    assert json.loads(agileact(capsys, "plan", spec, "--out", out, "--json")[0])["trials"] == 16
    text, errors = agileact(capsys, "run", spec, "--out", out, "--jobs", 1)
    assert "0 of at most 16 trials done; next: 4 tuning." in errors
    assert "4 of at most 16 trials done; next: 12 final." in errors
    assert ": lowest validation loss " in errors
    assert f"Report: {out / 'report.html'}" in errors
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    record = json.loads((out / "study.json").read_text())
    assert record["circumstances"]["command"].startswith("agileact study run")
    assert record["protocol"]["seeds"] == list(range(6))
    assert record["tasks"][0]["data"]["fingerprint"]
    assert "d: " in text
    assert "with these 6 seeds" in text or "than relu" in text or "Undecided" in text
    assert "Time to the best validation loss of relu: agile-relu" in text
    again, errors = agileact(capsys, "run", spec, "--out", out)
    assert "next:" not in errors
    assert again == text
    assert agileact(capsys, "show", spec, "--out", out)[0] == text
    document = json.loads(agileact(capsys, "show", spec, "--out", out, "--json")[0])
    assert document["finished"]
    assert [one["arm"] for one in document["verdicts"]] == ["agile-relu"]
    other = json.loads(agileact(capsys, "show", spec, "--out", out, "--baseline", "agile-relu", "--json")[0])
    assert [one["arm"] for one in other["verdicts"]] == ["relu"]
    assert (
        "16 of at most 16 trials done; 2 of 2 pairs of arm and task are tuned; finished."
        in agileact(capsys, "status", spec, "--out", out)[0]
    )
    agileact(capsys, "export", spec, "--out", out, "--csv", tmp_path / "t.csv")
    with (tmp_path / "t.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 16
    assert [r["phase"] for r in rows].count("final") == 12
    assert all((r["test_loss"] == "") == (r["phase"] == "tuning") for r in rows)
    piped = agileact(capsys, "export", spec, "--out", out, "--csv", "-")[0]
    assert piped == (tmp_path / "t.csv").read_text()
    # The report of the YAML file finds the same folder, and the folder knows its own study.
    before = undated((out / "report.html").read_text(encoding="utf-8"))
    agileact(capsys, "report", spec, "--out", out)
    assert undated((out / "report.html").read_text(encoding="utf-8")) == before
    spec.unlink()
    for place in (out, out / "store.sqlite"):
        assert agileact(capsys, "show", place)[0] == text
    assert agileact(capsys, "export", out, "--csv", "-")[0] == piped
    assert "16 of at most 16 trials done" in agileact(capsys, "status", out)[0]
    again, errors = agileact(capsys, "run", out)
    assert "next:" not in errors
    assert again == text


@pytest.mark.slow
def test_a_folder_goes_on_with_the_data_that_it_began_with_alone(tmp_path, capsys):
    spec, out = tmp_path / "tiny.yaml", tmp_path / "out"
    spec.write_text(YAML)
    agileact(capsys, "run", spec, "--out", out, "--jobs", 1)
    record = json.loads((out / "study.json").read_text())
    record["tasks"][0]["data"]["fingerprint"] = "0" * 16
    (out / "study.json").write_text(json.dumps(record))
    assert cli.main(["study", "run", str(out)]) == 1
    assert "the data of the task 'd' differs from that of the results" in capsys.readouterr().err
    assert cli.main(["study", "show", str(out), "--out", "x"]) == 1
    assert "--out is for a study's YAML file" in capsys.readouterr().err


def test_parquet_needs_its_package(tmp_path, capsys, monkeypatch):
    spec = tmp_path / "tiny.yaml"
    spec.write_text(YAML)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert (
        cli.main(["study", "export", str(spec), "--out", str(tmp_path), "--parquet", str(tmp_path / "t.parquet")]) == 1
    )
    assert 'pip install "agileact[study]"' in capsys.readouterr().err


def test_a_wrong_spec_is_one_line(tmp_path, capsys):
    spec = tmp_path / "tiny.yaml"
    spec.write_text(YAML.replace("arms:", "arm:"))
    assert cli.main(["study", "plan", str(spec)]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "tiny.yaml: arm: unknown key; did you mean 'arms'?" in errors


def test_a_store_that_was_not_yet_made_holds_nothing(tmp_path, capsys):
    spec = tmp_path / "tiny.yaml"
    spec.write_text(YAML)
    (tmp_path / "store.sqlite").touch()
    for action in ("status", "show", "export"):
        document = json.loads(agileact(capsys, action, spec, "--out", tmp_path, "--json")[0])
        assert document["study"] == "tiny"
    assert document["trials"] == []
