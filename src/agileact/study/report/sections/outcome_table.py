"""The table: every arm on every task, sortable."""

from __future__ import annotations

import math

from agileact.study.report import blocks
from agileact.study.report.blocks import Block, cell, details, paragraph, section, table
from agileact.study.results.contrasts import Cell
from agileact.study.results.outcome import Outcome
from agileact.study.results.printing import HEADER, row
from agileact.study.statistics import Summary, summarise

_NOTES = 4
"""More of them are folded away."""
_TEXT = ("task", "arm")
_NONE = "–"
_OPTIONAL = ("activation lr", "accuracy, %", "kB for backward")
"""Columns that are left out where no row has anything in them: a regression has no accuracy, for instance."""
_LOWEST = ("at iteration", "test loss, chosen on validation")
"""Stand behind the lowest test loss over iterations: where that was, and what an honest choice would have had."""


def outcome_table(outcome: Outcome) -> Block:
    """Return the section."""
    lowest = outcome.study.protocol.select == "test"
    place = HEADER.index("test loss") + 1
    titles = [*HEADER[:place], *(_LOWEST if lowest else ()), *HEADER[place:]]
    found = [(place % len(outcome.study.arms), one) for place, one in enumerate(outcome.cells)]
    texts = [{**dict(zip(HEADER, row(one), strict=True)), **_lowest_in_words(one)} for _, one in found]
    empty = [title for title in _OPTIONAL if all(one[title] == _NONE for one in texts)]
    titles = [title for title in titles if title not in empty and (title != "task" or len(outcome.study.tasks) > 1)]
    rows = []
    for (arm, one), text in zip(found, texts, strict=True):
        values = _values(one)
        rows.append(
            [cell(_whole(text[title]), values.get(title), arm=arm if title == "arm" else None) for title in titles]
        )
    loss = (
        "lowest test loss over all evaluations, and the iteration where it was; the accuracy is that of the iteration "
        "that validation chose"
        if lowest
        else "test loss at the iteration that validation chose"
    )
    content = [
        table(
            "outcome",
            f"Final trials: {loss}. Mean ± standard deviation over seeds, without diverged ones.",
            titles,
            rows,
            numeric=[n for n, title in enumerate(titles) if title not in _TEXT],
        )
    ]
    notes = [paragraph(f"{task}, {arm}: {note}.", tone="note") for task, arm, note in outcome.flags]
    content += notes if len(notes) <= _NOTES else [details(f"{len(notes)} notes on tuning and runs", notes)]
    if outcome.relative:
        content.append(_over_tasks(outcome))
    return section("table", "Table", content)


def _over_tasks(outcome: Outcome) -> Block:
    rows = []
    for number, name in enumerate(outcome.arm_names):
        if name not in outcome.relative:
            continue
        one = outcome.relative[name]
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
        f"Over all tasks: interquartile mean of the test loss in units of the mean loss of {outcome.baseline.name} on "
        "each task, with its bootstrap interval over seeds. Below 1 is better.",
        ["arm", "relative loss", "95 % interval"],
        rows,
        numeric=[1, 2],
    )


def _whole(text: str) -> str:
    """Return a cell's text such that a mean is not parted from its deviation, on paper for instance."""
    return text.replace(" ± ", "\u00a0±\u00a0")


def _lowest(found: Cell) -> dict[str, Summary | None]:
    """Return the columns of ``_LOWEST``."""
    whole = [result for result in found.results if result.status != "diverged"]
    at = [float(result.best_iteration) for result in whole if result.best_iteration is not None]
    chosen = [result.selected_test_loss for result in whole if result.selected_test_loss is not None]
    return dict(zip(_LOWEST, (summarise(at), summarise(chosen)), strict=True))


def _lowest_in_words(found: Cell) -> dict[str, str]:
    digits = dict(zip(_LOWEST, (0, 4), strict=True))
    return {title: _NONE if one is None else one.format(digits[title]) for title, one in _lowest(found).items()}


def _values(found: Cell) -> dict[str, float]:
    """Return what the columns that hold numbers are sorted by; a number that does not exist is left out."""
    values = {"seeds": float(len(found.results))}
    if not found.results:
        return values
    first = found.results[0]
    summary = found.summary()
    values["lr"] = first.spec.arm.lr
    if first.spec.arm.activation_lr is not None:
        values["activation lr"] = first.spec.arm.activation_lr
    if summary is not None:
        values["test loss"] = summary.mean
    if found.accuracies:
        values["accuracy, %"] = sum(found.accuracies) / len(found.accuracies)
    values |= {title: one.mean for title, one in _lowest(found).items() if one is not None}
    if found.times is not None and (middle := found.times.median()) is not None:
        values["iterations to the baseline's best"] = middle
    values["ms per iteration"] = sum(r.seconds_per_iteration for r in found.results) / len(found.results)
    values["parameters"] = float(first.parameters)
    if first.saved_bytes is not None:
        values["kB for backward"] = first.saved_bytes / 1000
    return {name: value for name, value in values.items() if blocks.number(value) is not None}
