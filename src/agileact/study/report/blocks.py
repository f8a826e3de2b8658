"""What a section is made of: plain JSON types that the page's script turns into elements and charts.

Text is text throughout: nothing in a block is markup, and the script puts it on the page as text alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agileact.study.results.outcome import Outcome

Block = dict[str, Any]
Cell = str | dict[str, Any]

POINTS = 200
"""A curve is drawn with so many points at most."""


def number(value: float | None) -> float | None:
    """Return a value with five digits, or None where it is none: what a chart can show and JSON can hold.

    Example:
        >>> number(0.123456789), number(math.inf)
        (0.12346, None)
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")


def numbers(values: Sequence[float]) -> list[float | None]:
    """Return several values by :func:`number`."""
    return [number(value) for value in values]


def thin(count: int, most: int = POINTS) -> list[int]:
    """Return evenly spaced places among ``count``, the first and the last among them, ``most`` of them at most.

    Example:
        >>> thin(5, 3), thin(2, 3)
        ([0, 2, 4], [0, 1])
    """
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / max(1, most - 1)) for place in range(most)]


def section(name: str, title: str, blocks: Sequence[Block]) -> Block:
    """Return a section of the page."""
    return {"id": name, "title": title, "blocks": list(blocks)}


def task_section(
    name: str, title: str, text: str, content: Sequence[Block], outcome: Outcome, otherwise: str = ""
) -> Block:
    """Return a section of a text and a block a task; without any a sentence why there is nothing, or ``otherwise``."""
    return section(name, title, [paragraph(text), *content] if content else [paragraph(nothing(outcome) or otherwise)])


def nothing(outcome: Outcome) -> str:
    """Return a sentence that says why no final trial has anything to show; empty if one may have."""
    results = [result for found in outcome.cells for result in found.results]
    if not results:
        return "No final trial is finished yet."
    if all(result.status == "diverged" for result in results):
        return "Every final trial that is finished diverged."
    return ""


def of_tasks(outcome: Outcome, make: Callable[[str], Block | None]) -> list[Block]:
    """Return the block that ``make`` makes of each task, marked as that task's."""
    made = ((task.name, make(task.name)) for task in outcome.study.tasks)
    return [{**block, "task": name} for name, block in made if block is not None]


def paragraph(text: str, *, tone: str = "") -> Block:
    """Return a paragraph; ``tone`` "note" sets it apart, "lead" makes it large."""
    return {"kind": "paragraph", "text": text, "tone": tone}


def claim(text: str, decision: str, *, more: str = "") -> Block:
    """Return a sentence with the decision that it tells of, and a second, smaller one."""
    return {"kind": "claim", "text": text, "decision": decision, "more": more}


def details(summary: str, blocks: Sequence[Block]) -> Block:
    """Return blocks that are folded away until the reader asks."""
    return {"kind": "details", "summary": summary, "blocks": list(blocks)}


def grid(blocks: Sequence[Block], *, wide: bool = False) -> Block:
    """Return blocks side by side, as many in a row as fit; two at most if they are wide."""
    return {"kind": "grid", "blocks": list(blocks), "wide": wide}


def code(text: str, label: str) -> Block:
    """Return text that is shown as it is, such as a command; ``label`` names it for those who do not see it."""
    return {"kind": "code", "text": text, "label": label}


def cell(text: str, value: float | None = None, *, arm: int | None = None) -> Block:
    """Return a table's cell that is sorted by ``value``; with an arm's number it bears that arm's sign."""
    found: Block = {"text": text, "value": number(value)}
    return found if arm is None else {**found, "arm": arm}


def arm_cell(outcome: Outcome, name: str) -> Block:
    """Return the cell that names an arm, with its sign."""
    return cell(name, arm=outcome.arm_names.index(name))


def measured(value: float | None, form: str = ".4g") -> Block:
    """Return the cell of a number; infinite is diverged."""
    return cell("–" if value is None else format(value, form) if math.isfinite(value) else "diverged", value)


def table(
    name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, numeric: Sequence[int] = ()
) -> Block:
    """Return a table that can be sorted by every column; ``name`` is unique, ``numeric`` are the columns of numbers."""
    return {
        "kind": "table",
        "id": name,
        "caption": caption,
        "columns": [{"title": title, "numeric": place in numeric} for place, title in enumerate(columns)],
        "rows": [list(row) for row in rows],
    }


def choice(name: str, label: str, blocks: Mapping[str, list[Block]]) -> Block | None:
    """Return blocks of which the reader chooses one group, the first at first; None without any."""
    options = [{"text": option, "blocks": content} for option, content in blocks.items()]
    return {"kind": "choice", "id": name, "label": label, "options": options} if options else None


def chart(
    kind: str,
    key: str,
    title: str,
    label: str,
    *,
    form: str,
    series: Sequence[dict[str, Any]],
    x: str,
    y: str = "",
    legend: Sequence[dict[str, Any]] | None = None,
    numbers: tuple[str, Sequence[str], Sequence[Sequence[Cell]]],
    **options: Any,
) -> Block:
    """Return a chart with the table of its numbers folded away below it.

    ``key`` is unique in the section ``kind``; ``label`` says what is to be seen, for those who do not see it.
    ``form``: "lines" (curves with bands), "intervals" (a row each, with a point and an interval), "bars" or
    "parallel"; the script says which fields a series of each has. ``legend``: names and numbers of lines that are not
    arms. ``numbers``: caption, columns and rows of the table; no table without rows. ``options`` are passed on.
    """
    caption, columns, rows = numbers
    return {
        "kind": "chart",
        "id": f"{kind}-{key}",
        "title": title,
        "label": label,
        "form": form,
        "series": list(series),
        "x": x,
        "y": y,
        "legend": None if legend is None else list(legend),
        "table": table(f"{kind}-numbers-{key}", caption, columns, rows, numeric=range(1, len(columns)))
        if rows
        else None,
        **options,
    }
