"""The whole report as plain JSON types; what the page shows, and what it asks for while a study runs."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from agileact._common.version import __version__
from agileact.study.report.facts import Facts
from agileact.study.report.sections.cost import cost
from agileact.study.report.sections.curves import curves
from agileact.study.report.sections.differences import differences
from agileact.study.report.sections.outcome_table import outcome_table
from agileact.study.report.sections.parameters import parameters
from agileact.study.report.sections.repeat import repeat
from agileact.study.report.sections.shapes import shapes
from agileact.study.report.sections.times import times
from agileact.study.report.sections.tuning import tuning
from agileact.study.report.sections.verdict import headline, verdict

Document = dict[str, Any]

_SECTIONS = (verdict, outcome_table, differences, curves, times, tuning, shapes, parameters, cost, repeat)


def report_document(facts: Facts) -> Document:
    """Return the report of a study: its sections in order, and what the page needs to know of arms and tasks.

    Example:
        >>> from agileact.study.spec.arms import arm
        >>> from agileact.study.spec.protocol import Study
        >>> from agileact.study.report.facts import gather
        >>> from agileact.study.spec.tasks import task
        >>> study = Study("small", (arm("relu"), arm("agile-relu")), (task("digits-mlp"),))
        >>> [section["id"] for section in report_document(gather(study, lambda spec: None))["sections"]][:3]
        ['verdict', 'table', 'differences']
    """
    return {
        "name": facts.study.name,
        "made": f"Made by agileact {__version__} on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "summary": headline(facts),
        "finished": facts.current.finished,
        "done": facts.current.done,
        "most": facts.study.most_trials,
        "arms": facts.arm_names,
        "shown": facts.shown_at_first,
        "tasks": [task.name for task in facts.study.tasks],
        "sections": [make(facts) for make in _SECTIONS],
    }


def waiting_document(name: str, why: str) -> Document:
    """Return the page of a study of which nothing is known yet.

    Args:
        name: What to call it.
        why: A sentence that says what is waited for.
    """
    verdict_section = {
        "id": "verdict",
        "title": "Verdict",
        "blocks": [{"kind": "paragraph", "text": why, "tone": "lead"}],
    }
    return {
        "name": name,
        "made": f"Made by agileact {__version__}",
        "summary": why,
        "finished": False,
        "done": 0,
        "most": 0,
        "arms": [],
        "shown": [],
        "tasks": [],
        "sections": [verdict_section],
    }
