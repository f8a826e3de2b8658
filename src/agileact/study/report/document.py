"""The report as plain JSON types, of one study or of several side by side, and as a file."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from agileact._common.files import write_atomically
from agileact._common.version import __version__
from agileact.study.report.blocks import Block, Cell, cell, grid, paragraph, section, table
from agileact.study.report.page import page
from agileact.study.report.sections.cost import cost
from agileact.study.report.sections.curves import curves
from agileact.study.report.sections.differences import differences
from agileact.study.report.sections.leaderboard import leaderboard
from agileact.study.report.sections.outcome_table import outcome_table
from agileact.study.report.sections.repeat import repeat
from agileact.study.report.sections.shapes import parameters, shapes
from agileact.study.report.sections.times import times
from agileact.study.report.sections.tuning import sensitivity, tuning
from agileact.study.report.sections.verdict import headline, verdict
from agileact.study.results.outcome import Outcome

Document = dict[str, Any]

_SECTIONS = (
    *(leaderboard, verdict, outcome_table, differences, curves, times, tuning, sensitivity),
    *(shapes, parameters, cost, repeat),
)
_SHOWN_AT_FIRST = 6
"""Of more than ``_FEW`` arms, so many are drawn until the reader asks for others."""
_FEW = 8


def report_document(outcome: Outcome) -> Document:
    """Return the report of a study: its sections in order, and what the page needs to know of arms and tasks."""
    return {
        "name": outcome.study.name,
        "made": f"Made by agileact {__version__} on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "summary": headline(outcome),
        "finished": outcome.current.finished,
        "done": outcome.current.done,
        "most": outcome.study.most_trials,
        "arms": outcome.arm_names,
        "shown": _shown_at_first(outcome),
        "tasks": [task.name for task in outcome.study.tasks],
        "sections": [make(outcome) for make in _SECTIONS],
    }


def waiting_document(name: str, why: str) -> Document:
    """Return the page of a study called ``name`` of which nothing is known yet; ``why`` says what is waited for."""
    return {
        **{"name": name, "made": f"Made by agileact {__version__}", "summary": why},
        **{"finished": False, "done": 0, "most": 0, "arms": [], "shown": [], "tasks": []},
        "sections": [section("verdict", "Verdict", [paragraph(why, tone="lead")])],
    }


def _shown_at_first(outcome: Outcome) -> list[int]:
    """Return the numbers of the arms that are drawn at first: all of a few, else the baseline and the best."""
    count = len(outcome.study.arms)
    if count <= _FEW:
        return list(range(count))

    def place(number: int) -> float:
        """Return the arm's mean loss over the baseline's, averaged over the tasks where both are known."""
        ratios = []
        for task in outcome.study.tasks:
            found = outcome.of_task(task.name)
            own, base = found[number][1].losses, found[0][1].losses
            if own and base and 0 < sum(base) < math.inf:
                ratios.append((sum(own) / len(own)) / (sum(base) / len(base)))
        return sum(ratios) / len(ratios) if ratios else math.inf

    order = sorted(range(1, count), key=lambda number: (place(number), number))
    return sorted([0, *order[: _SHOWN_AT_FIRST - 1]])


_WIDE = ("leaderboard", "table", "differences", "cost", "repeat")
"""Sections whose tables need the page's width: the studies are below each other there."""


def write_report(outcome: Outcome, path: Path, *others: Outcome) -> None:
    """Write the report to ``path``, whole or not at all: one HTML file that needs nothing else."""
    write_atomically(path, page(side_by_side([outcome, *others]) if others else report_document(outcome)))


def side_by_side(outcomes: Sequence[Outcome]) -> Document:
    """Return one document of several studies; an arm has the same colour in all of them."""
    documents = [report_document(outcome) for outcome in outcomes]
    names = [one["name"] for one in documents]
    labels = [name if names.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(names, 1)]
    arms, tasks = (list(dict.fromkeys(name for one in documents for name in one[key])) for key in ("arms", "tasks"))
    places = [{n: arms.index(name) for n, name in enumerate(one["arms"])} for one in documents]
    sections = [_overview(outcomes, labels, arms, tasks)]
    for same in zip(*(one["sections"] for one in documents), strict=True):
        groups = [
            {"kind": "group", "title": label, "blocks": _moved(one["blocks"], place, f"study{n}-")}
            for n, (label, one, place) in enumerate(zip(labels, same, places, strict=True))
        ]
        sections.append(
            section(same[0]["id"], same[0]["title"], groups if same[0]["id"] in _WIDE else [grid(groups, wide=True)])
        )
    return {
        **documents[0],
        "name": " and ".join(labels),
        "summary": " ".join(f"{label}: {one['summary']}" for label, one in zip(labels, documents, strict=True)),
        "finished": all(one["finished"] for one in documents),
        "done": sum(one["done"] for one in documents),
        "most": sum(one["most"] for one in documents),
        "arms": arms,
        "shown": sorted({place[n] for one, place in zip(documents, places, strict=True) for n in one["shown"]}),
        "tasks": tasks,
        "sections": sections,
    }


def _overview(outcomes: Sequence[Outcome], labels: Sequence[str], arms: Sequence[str], tasks: Sequence[str]) -> Block:
    found = [{(one.task, one.arm): one.summary() for one in outcome.cells} for outcome in outcomes]

    def mean(study: int, key: tuple[str, str]) -> Cell:
        known = found[study].get(key)
        return "–" if known is None else cell(known.format(4), known.mean)

    rows = [
        [task, cell(arm, arm=place), *(mean(n, (task, arm)) for n in range(len(outcomes)))]
        for task in tasks
        for place, arm in enumerate(arms)
        if any((task, arm) in one for one in found)
    ]
    caption = (
        "Test loss in each study, mean ± standard deviation. No test compares studies: seeds and tuning may differ."
    )
    columns = ("task", "arm", *labels)
    made = table("studies", caption, columns, rows, numeric=range(2, len(columns)))
    return section("studies", "Studies side by side", [made])


def _moved(found: Any, arms: Mapping[int, int], prefix: str) -> Any:
    """Return blocks with the arms' new numbers, and names that no other study's blocks have."""
    if isinstance(found, list):
        return [_moved(one, arms, prefix) for one in found]
    if not isinstance(found, dict):
        return found
    made = {key: _moved(value, arms, prefix) for key, value in found.items()}
    if isinstance(found.get("arm"), int):
        made["arm"] = arms[found["arm"]]
    if isinstance(found.get("id"), str):
        made["id"] = prefix + found["id"]
    return made
