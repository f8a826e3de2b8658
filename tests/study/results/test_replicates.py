"""Studies whose tuning is a part of the noise: the replicate is the unit of every interval and test."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from agileact import ArgumentError, cli
from agileact.study.commands.context import Context, visible
from agileact.study.commands.yaml_file import study_from
from agileact.study.data.dataset import load
from agileact.study.report.document import report_document
from agileact.study.report.page import page
from agileact.study.results.export import trial_rows
from agileact.study.results.outcome import Outcome
from agileact.study.results.printing import row, show
from agileact.study.running.planner import plan
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.record import study_from_record, study_record
from agileact.study.spec.result import Curve, TrialResult
from agileact.study.spec.tasks import task
from agileact.study.spec.trial import TrialSpec
from tests.study.builders import make_result
from tests.study.report.builders import walk

REPLICATES, SEEDS = 8, 3
PROTOCOL = Protocol(trials=4, lr=(0.001, 0.01), tuning_seeds=(50, 51), seeds=tuple(range(SEEDS)), replicates=REPLICATES)
STUDY = Study("replicated", (arm("relu"), arm("agile-relu")), (task("digits-mlp"),), PROTOCOL)


def lookup_of(study, loss):
    """Every trial as if it had been run, with a test loss by arm, replicate and seed within it."""
    found: dict[TrialSpec, TrialResult] = {}

    def lookup(spec):
        name, replicate = str(spec.arm.activation("fc")), spec.task.data.split
        low = loss(name, replicate, spec.seed % 1_000_000)
        result = make_result(spec, curve=Curve([0, 10], [2.0, low], [2.0, low]), selected_test_loss=low)
        return found.setdefault(spec, result if math.isfinite(low) else dataclasses.replace(result, status="diverged"))

    assert plan(study, lookup).finished
    return lookup


def noisy(effect, *, between, within):
    """A loss whose noise between replicates is the arm's own, as that of a tuning is."""
    draws = np.random.default_rng(3).standard_normal((2, REPLICATES))

    def loss(name, replicate, seed):
        agile = name.startswith("agile")
        return 1 - effect * agile + between * draws[int(agile), replicate] + within * math.sin(7 * seed + replicate)

    return loss


def test_the_replicate_is_the_unit_and_its_seeds_average():
    loss = noisy(0.5, between=0.05, within=0.2)
    outcome = Outcome(STUDY, lookup_of(STUDY, loss))
    (one,) = outcome.comparisons
    assert one.units == tuple(range(REPLICATES))
    means = {
        name: [np.mean([loss(name, r, s) for s in range(SEEDS)]) for r in range(REPLICATES)]
        for name in ("relu", "agile-relu")
    }
    expected = np.subtract(means["agile-relu"], means["relu"])
    assert one.differences == pytest.approx(expected.tolist())
    assert one.verdict.decision == "better"
    assert one.verdict.p_value == 2 / 2**REPLICATES
    assert "8 replicates)" in one.verdict.sentence
    assert "Replicate by replicate agile-relu is lower than relu in 8 of 8" in one.verdict.by_seed
    assert one.to_dict()["replicates"] == list(range(REPLICATES))
    assert one.common is None or one.common.p_value >= 2 / 2**REPLICATES
    assert outcome.notes == []


def test_noise_of_the_tuning_is_no_effect_though_every_seed_shows_it():
    # With one tuning all seeds agree that an arm is worse; over replicates the tuning's luck averages out.
    loss = noisy(0.0, between=0.1, within=0.001)
    once = dataclasses.replace(STUDY, protocol=dataclasses.replace(PROTOCOL, replicates=1, seeds=tuple(range(10))))
    lucky = Outcome(once, lookup_of(once, loss))
    assert lucky.comparisons[0].verdict.decision in ("better", "worse")
    assert lucky.notes == [once.caveat()]
    assert "verdicts hold for the learning rates that it chose" in lucky.notes[0]
    assert Outcome(STUDY, lookup_of(STUDY, loss)).comparisons[0].verdict.decision == "same"


def test_a_replicate_counts_when_all_its_seeds_are_there():
    lookup = lookup_of(STUDY, noisy(0.1, between=0.05, within=0.01))
    outcome = Outcome(STUDY, lambda spec: None if spec.seed == 2_000_001 else lookup(spec))
    assert outcome.comparisons[0].units == (0, 1, 3, 4, 5, 6, 7)
    assert not outcome.current.finished
    assert row(outcome.cells[0])[-1] == "23 in 7 replicates"


def test_a_run_that_diverged_takes_its_replicate_with_it():
    loss = noisy(0.1, between=0.05, within=0.01)
    worst = lookup_of(STUDY, lambda name, r, s: math.inf if (name, r, s) == ("agile-relu", 2, 1) else loss(name, r, s))
    (one,) = Outcome(STUDY, worst).comparisons
    assert one.verdict.decision == "unstable"
    assert "agile-relu diverged in 1 of 8 replicates" in one.verdict.sentence
    assert one.differences.count(None) == 1


def test_a_study_of_replicates_is_printed_and_reported(capsys):
    outcome = Outcome(STUDY, lookup_of(STUDY, noisy(0.5, between=0.05, within=0.2)))
    show(outcome)
    assert "24 in 8 replicates" in capsys.readouterr().out
    show(outcome, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["contrasts"][0]["replicates"] == list(range(REPLICATES))
    report = report_document(outcome)
    json.dumps(report, allow_nan=False)
    page(report)
    (tuned,) = [one for one in walk(report["sections"]) if one.get("id") == "tuning-digits-mlp"]
    assert [option["text"] for option in tuned["options"]] == [str(n) for n in range(REPLICATES)]
    rates = [{rate for line in option["blocks"][0]["series"] for rate in line["x"][:2]} for option in tuned["options"]]
    assert len(set.union(*rates)) > len(rates[0])


def test_rows_name_their_replicate_and_the_record_keeps_the_protocol():
    outcome = Outcome(STUDY, lookup_of(STUDY, noisy(0.5, between=0.05, within=0.2)))
    rows = trial_rows(outcome)
    assert len(rows) == STUDY.most_trials == 2 * REPLICATES * (4 * 2 + SEEDS)
    assert {(one["replicate"], one["seed"] // 1_000_000) for one in rows} == {(n, n) for n in range(REPLICATES)}
    assert study_from_record(json.loads(json.dumps(study_record(STUDY)))) == STUDY
    raw = {"name": "x", "arms": ["relu", "gelu"], "tasks": ["digits-mlp"]}
    found = study_from({**raw, "protocol": {"replicates": 6, "seeds": 1, "choose": "lowest"}}).protocol
    assert (found.replicates, found.seeds, found.choose, found.unit, found.units) == (6, (0,), "lowest", "replicate", 6)
    with pytest.raises(ArgumentError, match=r"protocol: .*replicates must be from 1 to 1,000, not 0"):
        study_from({**raw, "protocol": {"replicates": 0}})


YAML = """
arms: [relu, agile-relu]
tasks: [{name: d, task: diabetes-mlp, budget: {iterations: 20, evaluate_every: 10}}]
protocol: {replicates: 6, seeds: 1, trials: 2, lr: [0.003, 0.03], tuning_seeds: 1}
"""


@pytest.mark.slow
def test_a_study_of_replicates_as_a_user_types_it(tmp_path, capsys):
    spec, out = tmp_path / "often.yaml", tmp_path / "out"
    spec.write_text(YAML)

    def agileact(*arguments):
        assert cli.main(["study", *map(str, arguments)]) == 0, capsys.readouterr().err
        return capsys.readouterr()

    planned = agileact("plan", spec, "--out", out).out
    assert "stay divided" not in planned
    assert "At most 36 trials, 0 of them done" in planned
    assert "6 replicates show a difference of" in planned
    assert "standard deviations of the paired differences in 80 % of such studies" in " ".join(planned.split())
    ran = agileact("run", spec, "--out", out, "--jobs", 1)
    assert "tuning was done once" not in ran.err
    assert "6 replicates" in ran.out
    again = agileact("run", out)
    assert "next:" not in again.err
    assert again.out == ran.out == agileact("show", spec, "--out", out).out
    assert "12 of 12 pairs of arm and task, in each replicate, are tuned; finished." in agileact("status", out).out
    assert (out / "report.html").read_text(encoding="utf-8").count("Tuning") > 0
    rows = json.loads(agileact("export", out, "--json").out)["trials"]
    assert {one["replicate"] for one in rows} == set(range(6))
    assert len({one["lr"] for one in rows if one["phase"] == "tuning"}) > 2


def test_data_that_keeps_its_division_is_named_before_anything_is_run(tmp_path):
    data = load(task("digits-mlp").spec.data)
    whole, divided = data, dataclasses.replace(data, mixable=False)
    assert Context(STUDY, {"digits-mlp": whole}, tmp_path).notes() == []
    (note,) = Context(STUDY, {"digits-mlp": divided}, tmp_path).notes()
    assert note.startswith("the samples of digits-mlp stay divided into training and validation")
    assert "8 replicates show a difference of" in visible(STUDY)
    once = dataclasses.replace(STUDY, protocol=dataclasses.replace(PROTOCOL, replicates=1))
    assert Context(once, {"digits-mlp": divided}, tmp_path).notes() == [once.warning(), once.caveat()]
    assert visible(once) == ""
