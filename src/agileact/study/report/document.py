"""The whole report as plain JSON types; what the page shows, and what it asks for while a study runs."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

from agileact._common.version import __version__
from agileact.study.report.blocks import paragraph, section
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
