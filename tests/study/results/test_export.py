"""The tables of curves and of tuning points: every number that the trials hold, once."""

from __future__ import annotations

import csv
import io
import math

import pytest

from agileact.study.results.export import (
    CURVE_COLUMNS,
    TUNING_COLUMNS,
    curve_rows,
    to_csv,
    to_parquet,
    trial_rows,
    tuning_rows,
)
from agileact.study.results.outcome import Outcome
from tests.study.report.builders import outcome_of, small_study


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return outcome_of(small_study())


def test_every_evaluation_of_every_trial_is_a_row(outcome: Outcome):
    rows = curve_rows(outcome)
    assert len(rows) == sum(len(one.result.curve.iteration) for one in outcome.trials)
    trials = {row["trial"]: row for row in trial_rows(outcome)}
    lowest: dict[str, float] = {}
    for row in rows:
        assert (row["arm"], row["task"], row["phase"]) == tuple(
            trials[row["trial"]][k] for k in ("arm", "task", "phase")
        )
        lowest[row["trial"]] = min(row["validation_loss"], lowest.get(row["trial"], math.inf))
    assert lowest == {key: trial["validation_loss"] for key, trial in trials.items()}
    assert {row["test_loss"] for row in rows} == {None}  # the test set was evaluated once


def test_every_point_is_a_row_and_each_arm_chose_one(outcome: Outcome):
    rows = tuning_rows(outcome)
    assert len(rows) == sum(len(choice.scores) for choice in outcome.current.choices.values())
    chosen = {(row["task"], row["arm"]): row["lr"] for row in rows if row["chosen"]}
    assert chosen == {(task, arm): one.point.lr for (arm, task, _), one in outcome.current.choices.items()}
    assert sum(row["chosen"] for row in rows) == len(chosen)


def test_both_forms_hold_the_same_numbers(outcome: Outcome):
    parquet = pytest.importorskip("pyarrow.parquet")
    for rows, columns in ((curve_rows(outcome), CURVE_COLUMNS), (tuning_rows(outcome), TUNING_COLUMNS)):
        assert parquet.read_table(io.BytesIO(to_parquet(rows, columns))).to_pylist() == rows
        read = list(csv.DictReader(io.StringIO(to_csv(rows, columns))))
        assert [one["lr" if "lr" in columns else "validation_loss"] for one in read] == [
            str(one["lr" if "lr" in columns else "validation_loss"]) for one in rows
        ]
    assert to_csv([], TUNING_COLUMNS) == ",".join(TUNING_COLUMNS) + "\n"
