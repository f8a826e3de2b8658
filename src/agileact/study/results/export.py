"""A study's trials as a table for other programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from agileact._common.optional import require
from agileact.study.results.idle import untrained_loss
from agileact.study.results.outcome import Outcome
from agileact.study.running.naming import trial_name

Rows = Sequence[Mapping[str, Any]]

COLUMNS = (
    *("study", "task", "arm", "phase", "replicate", "seed", "lr", "activation_lr", "optimizer", "status"),
    *("weight_decay", "schedule", "warmup", "optimizer_options", "space"),
    *("untrained_loss", "validation_loss", "iteration", "test_loss", "test_accuracy", "lowest_test_loss"),
    *("parameters", "saved_bytes", "seconds_per_iteration", "seconds", "description", "trial"),
)
"""What every row has; a table without rows has these columns."""


def trial_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Return one flat row for every finished trial of the study, tuning and final ones.

    A number that does not exist is None; an infinite one is None too, with the status saying why.
    """
    rows: list[dict[str, Any]] = []
    spaces = {one: space for arms, space in outcome.study.searches for one in arms}
    for one in outcome.trials:
        result, spec = one.result, one.result.spec
        lowest = min((value for value in result.curve.validation_loss if math.isfinite(value)), default=None)
        given = "; ".join(f"{name}={value}" for name, value in spec.arm.optimizer_options) or None
        values = (
            *(outcome.study.name, one.task, one.arm, one.phase),
            *(spec.task.data.split, spec.seed, spec.arm.lr, spec.arm.activation_lr, spec.arm.optimizer, result.status),
            *(spec.arm.weight_decay, spec.arm.schedule, spec.arm.warmup, given, spaces.get(one.arm)),
            *(untrained_loss(result), lowest, result.selected_iteration, result.selected_test_loss),
            *(result.selected_test_accuracy, result.best_test_loss, result.parameters, result.saved_bytes),
            *(result.seconds_per_iteration, result.seconds, trial_name(spec), spec.key),
        )
        row = {
            **dict(zip(COLUMNS, values, strict=True)),
            **{f"version_{name}": number for name, number in result.versions.items()},
        }
        rows.append({k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()})
    return rows


def to_csv(rows: Rows) -> str:
    r"""Return rows as CSV, with a line of names first; what a row lacks is empty.

    Example:
        >>> to_csv([{"arm": "relu", "seed": 0}, {"arm": "agile-relu", "loss": 0.5}])
        'arm,seed,loss\nrelu,0,\nagile-relu,,0.5\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _names(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_parquet(rows: Rows) -> bytes:
    """Return rows as Parquet; what a row lacks is null.

    Raises:
        MissingExtraError: If pyarrow is not installed.
    """
    arrow, parquet = require("pyarrow", "study"), require("pyarrow.parquet", "study")
    buffer = io.BytesIO()
    parquet.write_table(arrow.table({name: [row.get(name) for row in rows] for name in _names(rows)}), buffer)
    return buffer.getvalue()


def _names(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row)) or list(COLUMNS)
