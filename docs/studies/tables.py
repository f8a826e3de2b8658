"""The tables of the pages in this folder, from what ``agileact study show`` and ``agileact study export`` wrote.

python docs/studies/tables.py where-relu                             # one study: agile against plain, and every arm
python docs/studies/tables.py recipe                                 # the summary of the page about the recipe
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from agileact.study import paired_difference

HERE = Path(__file__).resolve().parent
RECIPE = ("three-layers", "batch-8", "ten-layers", "ten-layers-sigmoid")
"""The tasks of the page about the recipe, each a study of its own."""
RATES = (0.001, 0.003, 0.01)
"""The learning rates of its specs; each replicate moves them together, by up to half a step."""
WORDS = {"better": "**lower**", "worse": "**higher**", "same": "no difference found", "undecided": "undecided"}


def agile_against_plain(documents: list[dict[str, Any]]) -> str:
    """Return one table over studies: each agile arm against the plain one that is its study's baseline."""
    lines = [
        "| network | plain | agile | agile minus plain [interval] | | agile is lower in |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for document in documents:
        losses = {(row["task"], row["arm"]): row for row in document["rows"]}
        compared = {(one["task"], one["arm"]) for one in document["contrasts"]}
        for one in document["contrasts"]:
            task, base = one["task"], one["arm"].removeprefix("agile-")
            if (task, base) in losses.keys() - compared:
                name = f"{base}, {task}" if len({task for task, _ in losses}) > 1 else base
                lines.append(
                    f"| {name} | {loss(losses[task, base])} | {loss(losses[task, one['arm']])} "
                    f"| {' | '.join(difference(one))} | {one['seeds_lower']} of {len(one['differences'])} |"
                )
    return "\n".join(lines)


def details(document: dict[str, Any]) -> str:
    """Return a table of every arm: the rates that tuning chose, the test loss, its difference to the baseline's."""
    contrasts = {(one["task"], one["arm"]): one for one in document["contrasts"]}
    lines = [
        "| task | arm | rates chosen | of a and b, or the rival's parameters | test loss | accuracy, % "
        "| minus the baseline's [interval] | | lower in | p |",
        "| --- " * 10 + "|",
    ]
    for row in document["rows"]:
        cells = ["baseline", "", "", ""]
        if (one := contrasts.get((row["task"], row["arm"]))) is not None:
            cells = [*difference(one), f"{one['seeds_lower']} of {len(one['differences'])}", f"{one['p']:.2g}"]
        first = (row["task"], f"`{row['arm']}`", row["lr"], row["activation lr"], loss(row), row["accuracy, %"])
        lines.append(f"| {' | '.join((*first, *cells))} |")
    return "\n".join(lines)


def loss(row: dict[str, str]) -> str:
    """Return the test loss of an arm, and how many of its networks did not learn."""
    return row["test loss"] + (f" ({row['seeds'].partition('(')[2]}" if "(" in row["seeds"] else "")


def difference(contrast: dict[str, Any]) -> tuple[str, str]:
    """Return a difference with its interval, and what the study makes of it."""
    low, high = contrast["student"] or (None, None)
    return interval(contrast["mean"], low, high), WORDS.get(contrast["decision"], contrast["decision"])


def interval(mean: float | None, low: float | None, high: float | None) -> str:
    """Return a difference with its interval in words.

    >>> interval(-0.25, -0.5, -0.0001)
    '-0.250 [-0.500, +0.000]'
    """
    if mean is None or low is None or high is None:
        return "none: a run diverged"
    # Zero is added, or a rounded -0.0 would keep its sign.
    first, *ends = (f"{round(one, 3) + 0.0:+.3f}" for one in (mean, low, high))
    return f"{first} [{', '.join(ends)}]"


def untuned(studies: dict[str, list[dict[str, str]]]) -> str:
    """Return one table over studies: agile against plain at random points of the space, as if nobody could tune.

    The mean validation loss of a replicate's points is its value; the intervals hold for all rows together.

    Args:
        studies: The trials of each study, by its base function.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for base, rows in studies.items():
        tried: dict[tuple[str, str, str], list[float]] = {}
        for row in rows:
            if row["phase"] == "tuning":
                place = (row["task"], row["arm"], row["replicate"])
                tried.setdefault(place, []).append(float(row["validation_loss"] or "inf"))
        for (task, arm, _), losses in tried.items():
            found.setdefault(f"{base}, {task}", {}).setdefault(arm, []).append(statistics.fmean(losses))
    lines = [
        "| network | plain | agile | agile minus plain [interval] | agile is lower in |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, arms in found.items():
        base = name.partition(",")[0]
        plain, agile = arms[base], arms[f"agile-{base}"]
        one = paired_difference(agile, plain, comparisons=len(found))
        lower = sum(ours < theirs for ours, theirs in zip(agile, plain, strict=True))
        lines.append(
            f"| {name} | {statistics.fmean(plain):.4f} | {statistics.fmean(agile):.4f} "
            f"| {interval(one.mean, one.low, one.high)} | {lower} of {len(plain)} |"
        )
    return "\n".join(lines)


def general(arm: str) -> str:
    """Return the name of an arm for any f.

    >>> general("agile-relu+standardized")
    'agile-f+standardized'
    """
    return arm.replace("sigmoid", "f").replace("relu", "f")


def recipe_summary() -> str:
    """Return a Markdown table of an arm a row: its test loss on each task, and its difference to the recipe's."""
    cells: dict[str, dict[str, str]] = {}
    for task in RECIPE:
        path = HERE / "results" / f"recipe-{task}-against-standardized.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        contrasts = {one["arm"]: one for one in document["contrasts"]}
        for row in document["rows"]:
            text = row["test loss"] + (f" ({row['seeds'].partition('(')[2]}" if "(" in row["seeds"] else "")
            if (one := contrasts.get(row["arm"])) is not None:
                low, high = one["student"]
                word = WORDS.get(one["decision"], one["decision"])
                text += f"<br>{one['mean']:+.3f} [{low:+.3f}, {high:+.3f}] {word}"
            cells.setdefault(general(row["arm"]), {})[task] = text
    lines = ["| arm | " + " | ".join(RECIPE) + " |", "| --- |" + " --- |" * len(RECIPE)]
    for arm, found in cells.items():
        lines.append(f"| `{arm}` | {' | '.join(found.get(task, '–') for task in RECIPE)} |")
    return "\n".join(lines)


def by_rate(rows: list[dict[str, str]]) -> str:
    """Return a Markdown table of the mean validation loss at the three learning rates that every arm began with."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row["phase"] == "tuning":
            tried = found.setdefault(row["arm"], {}).setdefault(row["replicate"], [])
            if len(tried) < len(RATES):
                tried.append((float(row["lr"]), float(row["validation_loss"] or "inf")))
    text = ["| arm | " + " | ".join(f"about {rate:g}" for rate in RATES) + " | largest over smallest |"]
    text.append("| --- |" + " --- |" * (len(RATES) + 1))
    for arm, replicates in found.items():
        columns = zip(*(sorted(tried) for tried in replicates.values()), strict=True)
        means = [statistics.fmean(loss for _, loss in column) for column in columns]
        text.append(f"| `{arm}` | {' | '.join(f'{mean:.3f}' for mean in means)} | {max(means) / min(means):.2f} |")
    return "\n".join(text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if name == "recipe":
            print(recipe_summary())
            for task in RECIPE:
                with (HERE / "results" / f"recipe-{task}.csv").open(encoding="utf-8") as file:
                    print(f"\n**{task}**\n\n{by_rate(list(csv.DictReader(file)))}")
            continue
        document = json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))
        print(agile_against_plain([document]), details(document), sep="\n\n")
