"""Sensitivity and its export, from tuning trials of a made-up study; the oracle is a formula over their specs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import statistics
from typing import Any

import pytest

from agileact.study.results.export import TABLES, to_csv, to_parquet
from agileact.study.results.printing import show
from agileact.study.results.sensitivity import sensitivity
from agileact.study.spec.protocol import Protocol
from tests.study.builders import make_result, make_spec
from tests.study.report.builders import outcome_of, small_study


@pytest.fixture(scope="module")
def outcome():
    return outcome_of(small_study())


def _trial(lr, loss, *, seed=0, split=0, activation_lr=None, status="finished"):
    spec = make_spec(seed)
    data = dataclasses.replace(spec.task.data, split=split)
    spec = dataclasses.replace(
        spec,
        task=dataclasses.replace(spec.task, data=data),
        arm=dataclasses.replace(spec.arm, lr=lr, activation_lr=activation_lr),
    )
    result = make_result(spec, status=status)
    return dataclasses.replace(result, curve=dataclasses.replace(result.curve, validation_loss=[5.0, loss]))


def test_each_rate_has_its_best_point_and_the_band_of_its_seeds():
    tried = [
        *(_trial(0.01, loss, seed=seed) for seed, loss in enumerate((1.0, 1.2))),
        *(_trial(0.01, loss, seed=seed, activation_lr=0.1) for seed, loss in enumerate((0.5, 0.7))),
        *(_trial(0.1, loss, seed=seed) for seed, loss in enumerate((3.0, 1.0))),
    ]
    found: Any = sensitivity("arm", "task", tried)
    assert found.rates == (0.01, 0.1)
    assert found.mean == pytest.approx((0.6, 2.0))
    assert (found.low, found.high) == ((0.5, 1.0), (0.7, 3.0))
    assert found.expected[0] == pytest.approx(statistics.fmean([1.1, 0.6, 2.0]))
    assert found.width is None


def test_the_width_has_an_interval_over_replicates_and_divergence_counts_as_untrained():
    tried = [_trial(lr, loss, split=split) for split in range(3) for lr, loss in ((0.01, 1.0), (0.1, 1.2 + split))]
    tried.append(_trial(1.0, math.nan, status="diverged"))
    found: Any = sensitivity("arm", "task", tried)
    widths = [0.1 / (0.2 + split) for split in range(3)]
    assert [one.decades for one in found.ranges] == pytest.approx(widths)
    # Student's 97.5 % quantile of two degrees of freedom.
    half = 4.302652729911275 * statistics.stdev(widths) / math.sqrt(3)
    assert found.width.low == pytest.approx(statistics.fmean(widths) - half)
    assert found.mean[-1] == math.inf
    firsts = [statistics.fmean([1.0, 1.2, 5.0]), 1.6, 2.1]
    assert found.expected[0] == pytest.approx(statistics.fmean(firsts))
    assert json.dumps(found.to_dict(), allow_nan=False)
    assert sensitivity("arm", "task", []) is None


def test_show_tells_the_sensitivity(outcome, capsys):
    show(outcome)
    assert "Sensitivity to the learning rate" in capsys.readouterr().out
    show(outcome, as_json=True)
    found = json.loads(capsys.readouterr().out)["sensitivity"]
    assert len(found) == 6
    assert set(found[0]["expected_best"]) == {"1", "2", "4", "8"}


def test_every_table_is_tidy_in_csv_and_parquet(outcome):
    parquet = pytest.importorskip("pyarrow.parquet")
    trials = TABLES["trials"](outcome)
    counts = {
        "trials": len(trials),
        "curves": sum(len(one.result.curve.iteration) for one in outcome.trials),
        "tuning": sum(one.phase == "tuning" for one in outcome.trials),
        "sensitivity": sum(len(one.rates) for one in outcome.sensitivities.values()),
    }
    for name, make in TABLES.items():
        rows = make(outcome)
        assert len(rows) == counts[name] > 0
        assert len(list(csv.DictReader(io.StringIO(to_csv(rows))))) == len(rows)
        table = parquet.read_table(io.BytesIO(to_parquet(rows)))
        assert table.num_rows == len(rows)
        assert set(table.column_names) == {key for row in rows for key in row}


def test_curves_and_tuning_say_which_trial_and_what_was_chosen(outcome):
    curves, tuning = (TABLES[name](outcome) for name in ("curves", "tuning"))
    first = outcome.trials[0].result
    mine = [row for row in curves if row["trial"] == first.spec.key]
    assert [row["validation_loss"] for row in mine] == first.curve.validation_loss
    chosen = {(row["task"], row["arm"]): row["lr"] for row in tuning if row["chosen"]}
    assert chosen == {(one.task, one.arm): one.point.lr for one in outcome.current.choices.values()}


def test_replicates_have_one_range_each():
    protocol = Protocol(trials=3, lr=(0.001, 0.01), tuning_seeds=(50,), seeds=(0, 1), replicates=3)
    found = outcome_of(small_study(protocol=protocol)).sensitivities
    assert {len(one.ranges) for one in found.values()} == {3}
    assert "[0.0, " in found["digits-mlp", "relu"].describe_range()
