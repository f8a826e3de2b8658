"""A report as a file."""

from __future__ import annotations

from pathlib import Path

from agileact._common.files import write_atomically
from agileact.study.report.document import report_document
from agileact.study.report.page import page
from agileact.study.report.side_by_side import side_by_side
from agileact.study.results.outcome import Outcome


def write_report(outcome: Outcome, path: Path, *others: Outcome) -> None:
    """Write the report to ``path``, whole or not at all: one HTML file that needs nothing else.

    Args:
        outcome: The study's.
        path: The file.
        *others: Further studies, which are shown side by side with it.
    """
    write_atomically(path, page(side_by_side([outcome, *others]) if others else report_document(outcome)))
