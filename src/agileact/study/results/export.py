"""A study's trials as a table for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from agileact._common.optional import require

Rows = Sequence[Mapping[str, Any]]


COLUMNS = (
    *("study", "task", "arm", "phase", "seed", "lr", "activation_lr", "optimizer", "status"),
    *("untrained_loss", "validation_loss", "iteration", "test_loss", "test_accuracy", "lowest_test_loss"),
    *("parameters", "saved_bytes", "seconds_per_iteration", "seconds", "description", "trial"),
)
"""What every row has (:func:`agileact.study.results.outcome.trial_rows`); a table without rows has these columns."""


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
