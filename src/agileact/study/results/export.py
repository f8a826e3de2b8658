"""A study's trials, curves and tuning as tidy tables for other programs."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from agileact._common.optional import require
from agileact.study.data.objective import metric_of
from agileact.study.results.idle import untrained_loss
from agileact.study.results.outcome import Outcome
from agileact.study.results.sensitivity import score
from agileact.study.running.naming import trial_name
from agileact.study.spec.trial import ArmSpec
from agileact.study.statistics.summary import finite

Rows = Sequence[Mapping[str, Any]]

COLUMNS = (
    *("study", "task", "arm", "phase", "replicate", "seed", "lr", "activation_lr", "optimizer", "status"),
    *("weight_decay", "schedule", "warmup", "optimizer_options", "space"),
    *("untrained_loss", "validation_loss", "iteration", "test_loss", "metric", "test_accuracy", "lowest_test_loss"),
    *("parameters", "saved_bytes", "seconds_per_iteration", "seconds", "description", "trial"),
)
"""What every row has; a table without rows has these columns."""


_CURVES = ("train_loss", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy")
CURVE_COLUMNS = ("study", "task", "arm", "phase", "replicate", "seed", "iteration", *_CURVES, "trial")


def trial_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Return one flat row for every finished trial of the study, tuning and final ones.

    A number that does not exist is None; an infinite one is None too, with the status saying why. ``test_accuracy`` is
    the value of the metric that ``metric`` names: the column keeps the name of the first metric.
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
            None if result.selected_test_accuracy is None else metric_of(spec.task.data),
            *(result.selected_test_accuracy, result.best_test_loss, result.parameters, result.saved_bytes),
            *(result.seconds_per_iteration, result.seconds, trial_name(spec), spec.key),
        )
        row = dict(zip(COLUMNS, values, strict=True))
        row |= {f"version_{name}": number for name, number in result.versions.items()}
        rows.append({k: finite(v) if isinstance(v, float) else v for k, v in row.items()})
    return rows


def curve_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Return one row for every evaluation of every finished trial: the losses and accuracies over iterations.

    A curve that a trial does not have, such as that of a test set evaluated once, is None; ``trial`` names the row of
    :func:`trial_rows`.
    """
    rows = []
    for one in outcome.trials:
        curve, spec = one.result.curve, one.result.spec
        for place, iteration in enumerate(curve.iteration):
            values = (getattr(curve, name) for name in _CURVES)
            found = [finite(each[place]) if place < len(each) else None for each in values]
            own = (outcome.study.name, one.task, one.arm, one.phase, spec.task.data.split, spec.seed, iteration)
            rows.append(dict(zip(CURVE_COLUMNS, (*own, *found, spec.key), strict=True)))
    return rows


def tuning_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Return one row for every finished tuning trial: every field that an arm has, its score, and if it was chosen."""
    places = {(part.task, part.arm, part.replicate): part.final[0].arm for part in outcome.current.parts if part.final}
    rows: list[dict[str, Any]] = []
    for one in outcome.trials:
        if one.phase != "tuning":
            continue
        spec, key = one.result.spec, (one.task, one.arm, one.result.spec.task.data.split)
        which = (one.task, one.arm, one.phase, spec.task.data.split, spec.seed, one.result.status, spec.key)
        # What no column can hold, pairs of names and values, is text there.
        plain = (bool, int, float, str, type(None))
        fields = [value if isinstance(value, plain) else str(value) for value in vars(spec.arm).values()]
        won = places[key] == spec.arm if key in places else None
        values = (*which, *fields, finite(score(one.result)), won)
        rows.append(dict(zip(TABLE_COLUMNS["tuning"], values, strict=True)))
    return rows


def sensitivity_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Return one row for every learning rate that an arm tried on a task, with its mean, lowest and highest loss."""
    found = [
        (outcome.study.name, task, arm, rate, *map(finite, ends))
        for (task, arm), one in outcome.sensitivities.items()
        for rate, *ends in zip(one.rates, one.mean, one.low, one.high, strict=True)
    ]
    return [dict(zip(TABLE_COLUMNS["sensitivity"], values, strict=True)) for values in found]


TABLES = {"trials": trial_rows, "curves": curve_rows, "tuning": tuning_rows, "sensitivity": sensitivity_rows}
"""What can be exported, by name."""
TABLE_COLUMNS: dict[str, tuple[str, ...]] = {
    "trials": COLUMNS,
    "curves": CURVE_COLUMNS,
    "tuning": (
        *("task", "arm", "phase", "replicate", "seed", "status", "trial"),
        *(field.name for field in dataclasses.fields(ArmSpec)),
        *("score", "chosen"),
    ),
    "sensitivity": ("study", "task", "arm", "lr", "mean", "low", "high"),
}
"""What each has, also without rows."""


_TEXTS = frozenset({"space", "optimizer_options", "metric"})
"""Columns of texts that may have no value."""


def to_csv(rows: Rows, columns: Sequence[str] = COLUMNS) -> str:
    r"""Return rows as CSV, with a line of names first; what a row lacks is empty.

    Example:
        >>> to_csv([{"arm": "relu", "seed": 0}, {"arm": "agile-relu", "loss": 0.5}])
        'arm,seed,loss\nrelu,0,\nagile-relu,,0.5\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _names(rows, columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_parquet(rows: Rows, columns: Sequence[str] = COLUMNS) -> bytes:
    """Return rows as Parquet, by pyarrow; what a row lacks is null."""
    arrow, parquet = require("pyarrow", "study"), require("pyarrow.parquet", "study")
    buffer, found = io.BytesIO(), {}
    for name in _names(rows, columns):
        values = [row.get(name) for row in rows]
        # A column without a value has the type that it has elsewhere, so that tables of several studies fit together.
        empty = all(value is None for value in values)
        found[name] = arrow.array(values, (arrow.string() if name in _TEXTS else arrow.float64()) if empty else None)
    parquet.write_table(arrow.table(found), buffer)
    return buffer.getvalue()


def _names(rows: Rows, columns: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row)) or list(columns)
