"""The table: every arm on every task, sortable."""

from __future__ import annotations

import math

from agileact.study.outcome import HEADER, Cell, flags, row
from agileact.study.report import blocks
from agileact.study.report.blocks import Block, cell, details, paragraph, section, table
from agileact.study.report.facts import Facts

_NOTES = 4
"""More of them are folded away."""
_TEXT = ("task", "arm")


def outcome_table(facts: Facts) -> Block:
    """Return the section."""
    several = len(facts.study.tasks) > 1
    columns = [place for place, title in enumerate(HEADER) if several or title != "task"]
    rows = []
    for task in facts.study.tasks:
        for arm, found in facts.of_task(task.name):
            values, texts = _values(found), row(found)
            rows.append(
                [
                    cell(texts[place], values.get(HEADER[place]), arm=arm if HEADER[place] == "arm" else None)
                    for place in columns
                ]
            )
    loss = (
        "lowest test loss over all evaluations"
        if facts.study.protocol.select == "test"
        else "test loss at the iteration that validation chose"
    )
    content = [
        table(
            "outcome",
            f"Final trials: {loss}. Mean ± standard deviation over seeds, without diverged ones.",
            [HEADER[place] for place in columns],
            rows,
            numeric=[n for n, place in enumerate(columns) if HEADER[place] not in _TEXT],
        )
    ]
    notes = [paragraph(f"{task}, {arm}: {note}.", tone="note") for task, arm, note in flags(facts.current, facts.cells)]
    content += notes if len(notes) <= _NOTES else [details(f"{len(notes)} notes on tuning and runs", notes)]
    if facts.relative:
        content.append(_over_tasks(facts))
    return section("table", "Table", content)


def _over_tasks(facts: Facts) -> Block:
    rows = []
    for number, name in enumerate(facts.arm_names):
        if name not in facts.relative:
            continue
        one = facts.relative[name]
        finite = one.low is not None and one.high is not None and math.isfinite(one.high)
        rows.append(
            [
                cell(name, arm=number),
                cell(f"{one.value:.3f}" if math.isfinite(one.value) else "infinite", one.value),
                cell(f"{one.low:.3f} to {one.high:.3f}" if finite else "–", one.low),
            ]
        )
    return table(
        "relative",
        f"Over all tasks: interquartile mean of the test loss in units of the mean loss of {facts.baseline.name} on "
        "each task, with its bootstrap interval over seeds. Below 1 is better.",
        ["arm", "relative loss", "95 % interval"],
        rows,
        numeric=[1, 2],
    )


def _values(found: Cell) -> dict[str, float]:
    """Return what the columns that hold numbers are sorted by; a number that does not exist is left out."""
    values = {"seeds": float(len(found.results))}
    if not found.results:
        return values
    first = found.results[0]
    summary = found.summary()
    accuracies = [
        r.selected_test_accuracy for r in found.results if r.status != "diverged" and r.selected_test_accuracy
    ]
    values["lr"] = first.spec.arm.lr
    if first.spec.arm.activation_lr is not None:
        values["activation lr"] = first.spec.arm.activation_lr
    if summary is not None:
        values["test loss"] = summary.mean
    if accuracies:
        values["accuracy, %"] = sum(accuracies) / len(accuracies)
    if found.times is not None and (middle := found.times.median()) is not None:
        values["iterations to the baseline's best"] = middle
    values["ms per iteration"] = sum(r.seconds_per_iteration for r in found.results) / len(found.results)
    values["parameters"] = float(first.parameters)
    if first.saved_bytes is not None:
        values["kB for backward"] = first.saved_bytes / 1000
    return {name: value for name, value in values.items() if blocks.number(value) is not None}
