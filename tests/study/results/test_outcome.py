"""What a reader of a study must know beside its numbers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

import pytest

from agileact.study.data.objective import metric_name
from agileact.study.results.export import trial_rows
from agileact.study.results.outcome import Outcome
from agileact.study.results.printing import row, show
from agileact.study.running.planner import Lookup, final_trials
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.result import Curve, TrialResult
from agileact.study.spec.tasks import Task, task
from agileact.study.spec.trial import ModelSpec
from tests.study.builders import make_result

SEEDS = 8
PROTOCOL = Protocol(tune=False, seeds=tuple(range(SEEDS)))
DEAD, LEARNED = (2.31, 2.30, 2.305), (2.31, 0.4, 0.3)


def study_of(curves: Mapping[str, Sequence[Sequence[float]]], of: Task | None = None) -> tuple[Study, Lookup]:
    """A study whose trials have these validation losses, by arm and seed, and as test loss the lowest of them."""
    of = of or task("paper-mlp")
    study = Study("s", tuple(map(arm, curves)), (of,), PROTOCOL)
    results: dict[object, TrialResult] = {}
    for one in study.arms:
        for spec, losses in zip(final_trials(PROTOCOL, one, of, None), curves[one.name], strict=True):
            curve = Curve(list(range(0, 50 * len(losses), 50)), list(losses), list(losses))
            results[spec] = make_result(spec, curve=curve, selected_test_loss=min(losses))
    return study, results.get


def test_runs_that_have_not_learned_are_told():
    outcome = Outcome(*study_of({"relu": [DEAD] + [LEARNED] * 7, "agile-relu": [LEARNED] * 8}))
    found = outcome.cells
    assert outcome.flags == [
        (
            "paper-mlp",
            "relu",
            "1 of 8 final runs did not learn: the validation loss never came 5 % below an untrained network's",
        )
    ]
    assert [cell.idle for cell in found] == [(0,), ()]
    assert row(found[0])[-1] == "8 (1 did not learn)"
    assert row(found[1])[-1] == "8"


def test_a_bad_start_is_no_excuse():
    # From 5.0 to 2.30 is more than 5 %, and still no better than the same answer for every input.
    bad = (5.0, 2.30, 2.31)
    study, lookup = study_of({"relu": [LEARNED] * 8, "agile-relu": [bad] + [LEARNED] * 7})
    assert [cell.idle for cell in Outcome(study, lookup).cells] == [(), (0,)]
    # A network of the user's own may come trained; what another arm makes of it may begin far above, and learn.
    custom = task("paper-mlp")
    model = ModelSpec("custom", custom.spec.model.options)
    custom = dataclasses.replace(custom, spec=dataclasses.replace(custom.spec, model=model))
    trained, changed = (0.30, 0.28, 0.27), (1.5, 0.5, 0.29)
    study, lookup = study_of({"relu": [trained] * 8, "gelu": [changed] * 7 + [(1.5, 1.48, 1.49)]}, custom)
    assert [cell.idle for cell in Outcome(study, lookup).cells] == [(), (7,)]


def test_a_run_that_diverged_is_not_counted_twice():
    study, lookup = study_of({"relu": [DEAD] + [LEARNED] * 7, "agile-relu": [LEARNED] * 8})

    def one_diverged(spec):
        result = lookup(spec)
        assert result is not None
        return dataclasses.replace(result, status="diverged") if min(result.curve.validation_loss) > 2 else result

    found = Outcome(study, one_diverged).cells
    assert found[0].idle == ()
    assert row(found[0])[-1] == "8 (1 diverged)"


def test_what_all_seeds_show_is_told_beside_a_mean_that_a_dead_run_moved(capsys):
    plain = [(2.31, 0.5, 0.30 + 0.01 * seed) for seed in range(7)]
    agile = [(2.31, 0.5, 0.20 + 0.011 * seed) for seed in range(8)]
    study, lookup = study_of({"relu": [*plain, DEAD], "agile-relu": agile})
    outcome = Outcome(study, lookup)
    compared = outcome.comparisons
    assert compared[0].verdict.decision == "undecided"
    assert "1 of 8 runs of relu did not learn), but seed by seed agile-relu is lower in 8 of 8" in (
        compared[0].verdict.sentence
    )
    record = compared[0].to_dict()
    assert (record["seeds_lower"], record["seeds_higher"], record["did_not_learn"]) == (8, 0, [0, 1])
    assert record["signed_rank_p"] == 2 / 2**8
    assert -0.11 < record["typical"] < -0.09
    low, high = record["typical_interval"]
    assert low < record["typical"] < high < 0
    show(outcome)
    printed = " ".join(capsys.readouterr().out.split())
    assert "Seed by seed agile-relu is lower than relu in 8 of 8; typical difference (Hodges-Lehmann): -0.09" in printed
    assert trial_rows(outcome)[0]["untrained_loss"] == 2.31


def test_signed_ranks_of_a_study_are_corrected_together():
    plain = [(2.31, 0.5, 0.30 + 0.01 * seed) for seed in range(8)]
    arms = {f"agile-{base}": [(2.31, 0.5, 0.25 + 0.011 * s) for s in range(8)] for base in ("relu", "gelu", "silu")}
    study, lookup = study_of({"relu": plain, **arms})
    compared = Outcome(study, lookup).comparisons
    assert [one.verdict.rank_p for one in compared] == [3 * 2 / 2**8] * 3


def test_a_validation_loss_far_below_the_test_loss_is_told_with_the_remedy():
    study, lookup = study_of({"relu": [LEARNED] * 8, "agile-relu": [LEARNED] * 8})

    def easy(spec):
        result = lookup(spec)
        assert result is not None
        return dataclasses.replace(result, selected_test_loss=1.0 if spec.arm.activation("fc") == "relu" else 0.5)

    (note,) = Outcome(study, easy).flags
    assert note[:2] == ("paper-mlp", "relu")
    assert note[2].startswith("the validation loss, 0.3, is far below the test loss, 1: ")
    assert "set more samples aside" in note[2]


def test_the_accuracy_stands_beside_the_loss(capsys):
    study, lookup = study_of({"relu": [LEARNED] * 8, "agile-relu": [LEARNED] * 8})

    def known(spec):
        result = lookup(spec)
        assert result is not None
        right = 0.75 if spec.arm.activation("fc") == "relu" else 0.8125
        return dataclasses.replace(result, selected_test_accuracy=right)

    outcome = Outcome(study, known)
    assert outcome.comparisons[0].to_dict()["accuracy"] == [0.8125, 0.75]
    show(outcome)
    assert "Accuracy 81.25 % against 75.00 %." in " ".join(capsys.readouterr().out.split())
    # Another metric has its own name and is no percentage.
    of = task("paper-mlp")
    data = dataclasses.replace(of.spec.data, options=(("metric", "auc"),))
    study, lookup = study_of(
        {"relu": [LEARNED] * 8, "agile-relu": [LEARNED] * 8}, Task("t", dataclasses.replace(of.spec, data=data))
    )
    assert "Metric AUC: 0.8125 against 0.75." in Outcome(study, known).comparisons[0].beside
    assert Outcome(study, known).comparisons[0].to_dict()["metric"] == "AUC"


METRICS = {
    "accuracy": (("accuracy",), "accuracy, %", "81.25 ± 0.00"),
    "written otherwise": (("auc",), "AUC", "0.8125 ± 0.0000"),
    "of the user's": (("my.module:score",), "my.module:score", "0.8125 ± 0.0000"),
    "alike": (("auc", "AUC"), "AUC", "0.8125 ± 0.0000"),
    "of two": (("accuracy", "balanced_accuracy"), "metric", "81.25 ± 0.00 % (accuracy)"),
}


@pytest.mark.parametrize("case", METRICS)
def test_tables_and_export_name_the_metric_of_each_task(case, capsys):
    names, title, text = METRICS[case]
    of = task("paper-mlp").spec
    tasks = tuple(
        Task(f"t{n}", dataclasses.replace(of, data=dataclasses.replace(of.data, options=(("metric", name), ("n", n)))))
        for n, name in enumerate(names)
    )
    study = Study("s", (arm("relu"), arm("agile-relu")), tasks, PROTOCOL)
    curve = Curve([0, 50, 100], list(LEARNED), list(LEARNED))
    outcome = Outcome(study, lambda spec: make_result(spec, curve=curve, selected_test_accuracy=0.8125))
    show(outcome, as_json=True)
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0][title] == text
    assert title in ("accuracy, %", "metric") or "ccuracy" not in "".join(rows[0])
    if title == "metric":
        assert rows[-1][title] == "0.8125 ± 0.0000 (balanced accuracy)"
    exported = [row for row in trial_rows(outcome) if row["phase"] == "final"]
    assert {(row["metric"], row["test_accuracy"]) for row in exported} == {
        (metric_name(name), 0.8125) for name in names
    }
    lost = Outcome(study, lambda spec: make_result(spec, curve=curve, selected_test_accuracy=None))
    assert {row["metric"] for row in trial_rows(lost)} == {None}
