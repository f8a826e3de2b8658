"""What a study found, printed: tables and verdicts for people, one JSON document for programs."""

from collections.abc import Sequence
from typing import Any

from agileact._common.terminal import print_json, print_table
from agileact.study.results.contrasts import Cell
from agileact.study.results.outcome import Outcome
from agileact.study.statistics import summarise

HEADER = (
    *("task", "arm", "lr", "activation lr", "test loss", "accuracy, %", "iterations to the baseline's best"),
    *("ms per iteration", "parameters", "kB for backward", "seeds"),
)


MIXED = "metric"
"""The column's title where tasks have different metrics, and each number has the name of its own."""


def entries(cell: Cell, *, named: bool = False) -> list[tuple[str, float | None]]:
    """Return a cell as text and, where it is a number, that number: an entry for each name in ``HEADER``.

    ``named``: with the metric's name behind it.
    """
    results = cell.results
    if not results:
        return [(cell.task, None), (cell.arm, None), *[("–", None)] * (len(HEADER) - 3), ("0", 0.0)]
    first, summary = results[0], cell.summary()
    percent = cell.metric == "accuracy"
    metric = summarise([value * (100 if percent else 1) for value in cell.accuracies])
    lost = [f"{n} {what}" for n, what in ((cell.diverged, "diverged"), (len(cell.idle), "did not learn")) if n]
    time, middle = "–", None
    if cell.times is not None:
        middle = cell.times.median()
        whole = [one.horizon for one, r in zip(cell.times.times, results, strict=True) if r.status != "diverged"]
        beyond = f"> {min(whole)}" if whole else "never"
        time = (beyond if middle is None else f"{middle:g}") + f" ({cell.times.reached} of {len(cell.times.times)})"
    milliseconds = sum(result.seconds_per_iteration * 1000 for result in results) / len(results)
    kept = None if first.saved_bytes is None else first.saved_bytes / 1000
    unit = f" {'%' * percent} ({cell.metric})".replace("  ", " ") * named
    seeds = f"{len(results)}" if cell.unit == "seed" else f"{len(results)} in {len(cell.units)} replicates"
    return [
        (cell.task, None),
        (cell.arm, None),
        (_range([result.spec.arm.lr for result in results]), first.spec.arm.lr),
        (_range([result.spec.arm.activation_lr for result in results]), first.spec.arm.activation_lr),
        ("–", None) if summary is None else (summary.format(4), summary.mean),
        ("–", None)
        if metric is None
        else (metric.format(2 if percent else 4) + unit, metric.mean / (100 if percent else 1)),
        (time, middle),
        (f"{milliseconds:.2f}", milliseconds),
        (f"{first.parameters:,}", first.parameters),
        ("–" if kept is None else f"{kept:,.0f}", kept),
        (seeds + (f" ({', '.join(lost)})" if lost else ""), len(results)),
    ]


def row(cell: Cell, *, named: bool = False) -> tuple[str, ...]:
    """Return the texts of :func:`entries`."""
    return tuple(text for text, _ in entries(cell, named=named))


def titles(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return ``HEADER`` for some cells: the metric's column is named after it, or ``MIXED``."""
    found = {cell.metric for cell in cells if cell.accuracies} or {cell.metric for cell in cells if cell.results}
    name = found.pop() if len(found) == 1 else MIXED if found else "accuracy"
    own = "accuracy, %" if name == "accuracy" else name
    return tuple(own if title == "accuracy, %" else title for title in HEADER)


def rows(cells: Sequence[Cell]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the titles of a table of cells, and its rows."""
    found = titles(cells)
    return found, [row(cell, named=MIXED in found) for cell in cells]


def _range(rates: Sequence[float | None]) -> str:
    """Return the rate that was chosen, or the smallest and largest of several; None is the learning rate itself."""
    known = sorted({rate for rate in rates if rate is not None})
    if not known:
        return "–"
    return f"{known[0]:g}" if len(known) == 1 else f"{known[0]:.3g} to {known[-1]:.3g}"


def show(outcome: Outcome, *, as_json: bool = False) -> None:
    """Print what is known of a study, finished or not.

    Args:
        outcome: From the study and its trials.
        as_json: Print one JSON document, and no table.
    """
    if as_json:
        print_json(_document(outcome))
        return
    study, current, ranks = outcome.study, outcome.current, outcome.ranking
    print_table(study.name, *rows(outcome.cells), keys=2)
    print()
    for arms, space in study.searches:
        print(f"Search space of {', '.join(arms)} ({study.protocol.trials} points, {study.protocol.sampler}): {space}.")
    for choice in current.choices.values() if study.searches else ():
        where = f", replicate {choice.replicate}" * (outcome.unit == "replicate")
        print(f"{choice.task}, {choice.arm}{where}: tuning chose {choice.point.describe()}.")
    for one in outcome.comparisons:
        print(f"{one.task}: {one.verdict.sentence}")
        for sentence in one.beside:
            print(f"  {sentence}")
    if outcome.sensitivities:
        print_table(
            "Sensitivity to the learning rate, from the tuning trials (validation loss)",
            ("task", "arm", "rates within 10 % of the best", "expected best of n random points, n: loss"),
            [(*key, one.describe_range(), one.describe_expected()) for key, one in outcome.sensitivities.items()],
            keys=2,
        )
    for note in outcome.notes:
        print(f"Note: {note}.")
    for task, arm, note in outcome.flags:
        print(f"Note, {task}, {arm}: {note}.")
    if outcome.over_tasks is not None:
        base = outcome.baseline.name
        print(f"Over {len(study.tasks)} tasks, interquartile mean of the loss in units of {base}, and the probability")
        print(f"that a run is better than one of {base}, with 95 % bootstrap intervals:")
        for name, relative in outcome.over_tasks.relative.items():
            better = outcome.over_tasks.improvement.get((name, base))
            print(f"  {name}: {relative.describe(3)}" + (f"; {better.describe(2)}" if better else ""))
    if ranks is not None:
        print(f"{ranks.describe(outcome.arm_names, len(study.tasks))}.")
    if not current.finished:
        print(f"Not finished: {current.done} of at most {study.most_trials} trials are done.")


def _document(outcome: Outcome) -> dict[str, Any]:
    ranks = outcome.ranking
    study = outcome.study
    named, cells = rows(outcome.cells)
    return {
        "study": study.name,
        "finished": outcome.current.finished,
        "rows": [dict(zip(named, texts, strict=True)) for texts in cells],
        "verdicts": [
            {
                "task": one.task,
                "arm": one.arm,
                "decision": one.verdict.decision,
                "sentence": one.verdict.sentence,
                "p": one.verdict.p_value,
                "by_seed": one.verdict.by_seed,
                "time": one.times,
                "common_time": None if one.common is None else one.common.to_dict(),
            }
            for one in outcome.comparisons
        ],
        "spaces": {one: space for arms, space in study.searches for one in arms},
        "notes": outcome.notes,
        "flags": [list(flag) for flag in outcome.flags],
        "sensitivity": [one.to_dict() for one in outcome.sensitivities.values()],
        "contrasts": [one.to_dict() for one in outcome.comparisons],
        **({"relative_loss": {}} if outcome.over_tasks is None else outcome.over_tasks.to_dict()),
        "ranks": None if ranks is None else dict(zip(outcome.arm_names, ranks.ranks, strict=True)),
        "rank_tests": None
        if ranks is None
        else {"friedman_p": ranks.friedman_p, "critical_difference": ranks.critical_difference},
    }
