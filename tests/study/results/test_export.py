"""The tables of curves and of tuning points: every number that the trials hold, once."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import pytest

from agileact.study.results.export import (
    CURVE_COLUMNS,
    TABLE_COLUMNS,
    TABLES,
    curve_rows,
    to_csv,
    to_parquet,
    trial_rows,
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


def test_both_forms_hold_the_same_numbers(outcome: Outcome):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = curve_rows(outcome)
    assert parquet.read_table(io.BytesIO(to_parquet(rows, CURVE_COLUMNS))).to_pylist() == rows
    read = list(csv.DictReader(io.StringIO(to_csv(rows, CURVE_COLUMNS))))
    assert [one["validation_loss"] for one in read] == [str(one["validation_loss"]) for one in rows]
    assert to_csv([], CURVE_COLUMNS) == ",".join(CURVE_COLUMNS) + "\n"


def test_a_table_without_rows_has_the_columns_that_it_has_with_some(outcome: Outcome):
    nothing = Outcome(outcome.study, lambda spec: None)
    for name, make in TABLES.items():
        assert make(nothing) == []
        own = TABLE_COLUMNS[name]
        # Trials tell the versions too, which only results know.
        assert [key for key in make(outcome)[0] if not key.startswith("version_")] == list(own), name
        assert to_csv([], own) == ",".join(own) + "\n"


def test_a_column_without_a_value_has_the_type_that_it_has_with_one(outcome: Outcome):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def written(rows: list[dict[str, object]], columns: tuple[str, ...]) -> Any:
        return parquet.read_table(io.BytesIO(to_parquet(rows, columns)))

    for name, make in TABLES.items():
        rows, columns = make(outcome), TABLE_COLUMNS[name]
        bare = [{key: None if key in OPTIONAL else value for key, value in row.items()} for row in rows]
        full = [{key: OPTIONAL.get(key, value) for key, value in row.items()} for row in rows]
        arrow.concat_tables([written(bare, columns), written(full, columns)])  # an error if types differ


OPTIONAL: dict[str, object] = {
    **{"space": "lr 0.0001..0.1 log", "optimizer_options": "eps=1e-06", "metric": "AUC"},
    **dict.fromkeys(("activation_lr", "test_loss", "test_accuracy", "lowest_test_loss", "scale_lr", "clip_norm"), 0.5),
}
"""Columns that have no value in some studies, and one of theirs in others."""
