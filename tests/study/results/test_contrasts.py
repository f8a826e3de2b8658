"""The numbers behind the verdicts, against formulas of their own, and what happened over training."""

from __future__ import annotations

import dataclasses
import json
import statistics

import numpy as np
import pytest

from agileact.study.results.outcome import Outcome
from agileact.study.results.printing import show
from agileact.study.results.trajectories import loss_band, trace_bands
from agileact.study.spec.result import Curve, LayerTrace
from tests.study.builders import make_result, make_spec
from tests.study.report.builders import lookup_of, made_up, small_study

STUDY = small_study()


@pytest.fixture(scope="module")
def found():
    return Outcome(STUDY, lookup_of(STUDY))


def test_contrasts_hold_what_the_losses_say(found):
    one = next(c for c in found.comparisons if c.arm == "agile-relu")
    by_name = {(cell.arm, cell.task): cell for cell in found.cells}
    first, second = (by_name[name, "digits-mlp"].losses for name in ("agile-relu", "relu"))
    differences = np.array(first) - np.array(second)
    assert one.units == STUDY.protocol.seeds
    assert one.differences == pytest.approx(differences.tolist())
    assert one.effect is not None
    assert one.effect.d == pytest.approx(statistics.fmean(differences) / statistics.stdev(differences))
    assert one.improvement.value == np.mean([a < b for a in first for b in second])
    assert one.bootstrap is not None
    assert one.bootstrap.low is not None
    assert one.bootstrap.low < differences.mean() < one.bootstrap.high
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False))["mean"] == pytest.approx(differences.mean())


def test_an_arm_that_diverged_has_no_mean_and_is_the_worst(found):
    one = next(c for c in found.comparisons if c.verdict.decision == "unstable")
    assert one.bootstrap is None
    assert one.effect is None
    assert one.differences.count(None) == 1
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False))["student"] is None


def test_relative_losses_are_in_units_of_the_baseline(found):
    estimates = found.over_tasks.relative
    by_name = {(cell.arm, cell.task): cell for cell in found.cells}
    ratios = np.concatenate(
        [
            np.array(by_name["agile-relu", task.name].losses) / np.mean(by_name["relu", task.name].losses)
            for task in STUDY.tasks
        ]
    )
    middle = np.sort(ratios)[4:-4]
    assert estimates["agile-relu"].value == pytest.approx(middle.mean())
    assert set(estimates) == {"relu", "agile-relu", "gelu"}
    one = small_study(tasks=STUDY.tasks[:1])
    assert Outcome(one, lookup_of(one)).over_tasks is None


def test_bands_are_mean_lowest_and_highest_of_the_runs_that_did_not_diverge():
    specs = [make_spec(seed) for seed in range(4)]
    runs = [
        make_result(
            spec,
            curve=Curve([0, 5], [1.0, 1.0], [3.0 + seed, 2.0 * seed], [], []),
            layers={"fc": LayerTrace([seed, 0.0], [1.0, 1.0], [0.0, -seed], [0.0, 2.0])},
        )
        for seed, spec in enumerate(specs)
    ]
    runs[3] = dataclasses.replace(runs[3], status="diverged", curve=Curve([0], [1.0], [float("inf")], [], []))
    band = loss_band(runs, "validation")
    assert band is not None
    assert (band.iterations, band.mean, band.low, band.high) == ((0, 5), (4.0, 2.0), (3.0, 0.0), (5.0, 4.0))
    assert (band.runs, band.diverged) == (3, 1)
    assert loss_band(runs, "test") is None
    assert loss_band(runs[3:], "validation") is None
    assert loss_band([], "train") is None
    layer = trace_bands(runs, "layers")["fc"]
    assert [layer.ends[name] for name in ("scale_min", "location_min", "location_max")] == [(1, 0), (0, -1), (0, 2)]
    assert layer.runs == 3
    assert trace_bands([], "layers") == {}


def test_json_has_no_infinity_for_an_arm_that_diverged_often(capsys):
    study = small_study()
    lookup = lookup_of(
        study, lambda spec: dataclasses.replace(made_up(spec), status="diverged" if spec.seed else "finished")
    )
    show(Outcome(study, lookup), as_json=True)
    assert json.loads(capsys.readouterr().out)["relative_loss"]["gelu"]["value"] is None


def test_over_tasks_every_pair_and_every_profile_is_that_of_the_losses(found, capsys):
    by_name = {(cell.arm, cell.task): cell for cell in found.cells}
    losses = {
        name: np.array([by_name[name, task.name].losses for task in STUDY.tasks]).T
        / [np.mean(by_name["relu", task.name].losses) for task in STUDY.tasks]
        for name in found.arm_names
    }
    over = found.over_tasks
    assert set(over.improvement) == {(a, b) for a in losses for b in losses if a != b}
    for (one, other), estimate in over.improvement.items():
        first, second = losses[one][:, None], losses[other][None]
        assert estimate.value == pytest.approx(np.mean((first < second) + 0.5 * (first == second)))
        assert estimate.low <= estimate.value <= estimate.high
    for name, profile in over.profiles.items():
        expected = [np.mean(losses[name] <= threshold) for threshold in profile.thresholds]
        assert profile.shares == pytest.approx(expected)
        assert all(
            low <= share <= high for low, share, high in zip(profile.low, profile.shares, profile.high, strict=True)
        )
    document = json.loads(json.dumps(over.to_dict(), allow_nan=False))
    assert set(document) == {"relative_loss", "improvement", "profiles"}
    show(found)
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        f"agile-relu: {over.relative['agile-relu'].describe(3)}; {over.improvement['agile-relu', 'relu'].describe(2)}"
        in printed
    )
