"""The table: every arm on every task, sortable."""

from agileact.study.report import blocks
from agileact.study.report.blocks import Block, Cell
from agileact.study.results import contrasts, printing
from agileact.study.results.outcome import Outcome, OverTasks
from agileact.study.results.printing import HEADER, MIXED
from agileact.study.statistics import summarise

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

    named = printing.titles(outcome.cells)
    shown = dict(zip(HEADER, named, strict=True))
    known = [
        {**dict(zip(HEADER, printing.entries(one, named=MIXED in named), strict=True)), **_lowest(one)}
        for one in outcome.cells
    ]
    empty = [title for title in _OPTIONAL if all(one[title][0] == _NONE for one in known)]
    titles = [title for title in titles if title not in empty and (title != "task" or len(outcome.study.tasks) > 1)]
    rows = []
    for place, one in enumerate(known):
        arm = place % len(outcome.study.arms)
        # A mean is not parted from its deviation, on paper for instance.
        entries = [(title, one[title][0].replace(" ± ", "\u00a0±\u00a0"), one[title][1]) for title in titles]
        rows.append([blocks.cell(text, value, arm=arm if title == "arm" else None) for title, text, value in entries])
    loss = (
        "lowest test loss over all evaluations, and the iteration where it was; the metric is that of the iteration "
        "that validation chose"
        if lowest
        else "test loss at the iteration that validation chose"
    )
    content = [
        blocks.table(
            "outcome",
            f"Final trials: {loss}. Mean ± standard deviation over seeds, without diverged ones.",
            [shown.get(title, title) for title in titles],
            rows,
            numeric=[n for n, title in enumerate(titles) if title not in _TEXT],
        )
    ]
    notes = [blocks.paragraph(f"{task}, {arm}: {note}.", tone="note") for task, arm, note in outcome.flags]
    content += notes if len(notes) <= _NOTES else [blocks.details(f"{len(notes)} notes on tuning and runs", notes)]
    if outcome.over_tasks is not None:
        content += _over_tasks(outcome, outcome.over_tasks)
    return blocks.section("table", "Table", content)


def _over_tasks(outcome: Outcome, found: OverTasks) -> list[Block]:
    base = outcome.baseline.name
    rows: list[list[Cell]] = [
        [blocks.arm_cell(outcome, name), blocks.cell(one.describe(3), one.value)]
        for name, one in found.relative.items()
    ]
    relative = blocks.table(
        "relative",
        f"Over all tasks: interquartile mean of the test loss in units of the mean loss of {base} on each task, with "
        "its bootstrap interval (95 %). Below 1 is better.",
        ["arm", "relative loss"],
        rows,
        numeric=[1],
    )
    against = [name for name in found.relative if any(other == name for _, other in found.improvement)]

    def better(one: str, other: str) -> Cell:
        known = found.improvement.get((one, other))
        return "–" if known is None else blocks.cell(known.describe(2), known.value)

    improvement = blocks.table(
        "improvement",
        "Over all tasks: probability that a run of the row's arm has a lower loss than one of the column's.",
        ["arm", *against],
        [[blocks.arm_cell(outcome, one), *(better(one, other) for other in against)] for one in found.relative],
        numeric=range(1, 1 + len(against)),
    )
    series = [
        {
            "arm": outcome.arm_names.index(name),
            "name": name,
            "x": blocks.numbers(one.thresholds),
            "y": blocks.numbers(one.shares),
            **(
                {}
                if one.low is None or one.high is None
                else {"low": blocks.numbers(one.low), "high": blocks.numbers(one.high)}
            ),
        }
        for name, one in found.profiles.items()
    ]
    halves = [
        [blocks.arm_cell(outcome, name), blocks.measured(next((t for t, share in at if share >= 0.5), None), ".3f")]
        for name, one in found.profiles.items()
        for at in [zip(one.thresholds, one.shares, strict=True)]
    ]
    profile = blocks.chart(
        "profiles",
        "all",
        "Performance profiles over all tasks",
        f"Share of runs over all tasks whose test loss is at most so many times that of {base}; higher is better.",
        form="lines",
        series=series,
        x="test loss in units of the baseline's",  # whose name may be long
        y="share of runs",
        unit_y=True,
        numbers=("The loss that half of the runs stay below.", ["arm", "relative loss"], halves),
    )
    pairs = blocks.details("Probability of improvement, over all tasks", [improvement])
    # Hidden, as the charts of other tasks are, while the reader looks at one task.
    return [relative, {**profile, "task": "*"}, {**pairs, "task": "*"}]


def _lowest(found: contrasts.Cell) -> dict[str, tuple[str, float | None]]:
    """Return the entries of the columns of ``_LOWEST``."""
    whole = [result for result in found.results if result.status != "diverged"]
    at = summarise([float(result.best_iteration) for result in whole if result.best_iteration is not None])
    chosen = summarise([result.selected_test_loss for result in whole if result.selected_test_loss is not None])
    pairs = zip((at, chosen), (0, 4), strict=True)
    entries = [(_NONE, None) if one is None else (one.format(digits), one.mean) for one, digits in pairs]
    return dict(zip(_LOWEST, entries, strict=True))
