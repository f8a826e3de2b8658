"""A report as a file, of one study or of several, section by section side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agileact._common.files import write_atomically
from agileact.study.report.blocks import Block, Cell, cell, grid, section, table
from agileact.study.report.document import Document, report_document
from agileact.study.report.page import page
from agileact.study.results.outcome import Outcome

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
