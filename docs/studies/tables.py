"""The tables of the pages in this folder, from what ``agileact study show`` and ``agileact study export`` wrote.

python docs/studies/tables.py docs/studies/results/where-relu.json   # losses, and the time to the baseline's best
python docs/studies/tables.py docs/studies/results/where-relu.csv    # when each arm reached a best loss of its own
python docs/studies/tables.py recipe                                 # the summary of the page about the recipe
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from agileact.study import holm, paired_difference, sign_flip_test

HERE = Path(__file__).resolve().parent
RECIPE = ("three-layers", "batch-8", "ten-layers", "ten-layers-sigmoid")
"""The tasks of the page about the recipe, each a study of its own."""
RATES = (0.001, 0.003, 0.01)
"""The learning rates of its specs; each replicate moves them together, by up to half a step."""
WORDS = {"better": "**lower**", "worse": "**higher**", "same": "no difference found", "undecided": "undecided"}


def tables(document: dict[str, Any]) -> str:
    """Return a Markdown table for each task: losses, the difference to the baseline, and times to a loss."""
    verdicts = {(one["task"], one["arm"]): one for one in document["verdicts"]}
    contrasts = {(one["task"], one["arm"]): one for one in document["contrasts"]}
    text = []
    for task in dict.fromkeys(row["task"] for row in document["rows"]):
        text += [
            f"**{task}**",
            "",
            "| arm | rate | of a, b | test loss | minus the baseline's [interval] | iterations to its best "
            "| to the loss that both reach | p |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        # Results that were written before signed ranks were there have none.
        ranked = any("typical" in one for one in document["contrasts"])
        if ranked:
            text[-2] += " seeds with a lower loss | typical difference [interval] | p |"
            text[-1] += " --- | --- | --- |"
        for row in (row for row in document["rows"] if row["task"] == task):
            arm = row["arm"]
            verdict, contrast = verdicts.get((task, arm)), contrasts.get((task, arm))
            difference, common, p = "baseline", "", ""
            if verdict is not None:
                difference = WORDS.get(verdict["decision"], verdict["decision"])
                if (times := verdict["common_time"]) is not None:
                    common = "{:g} against {:g}".format(*times["iterations"])
                    p = f"{times['p']:.2g}"
                if contrast is not None and contrast["mean"] is not None:
                    low, high = contrast["student"]
                    difference = f"{contrast['mean']:+.3f} [{low:+.3f}, {high:+.3f}] {difference}"
            loss = row["test loss"] + (f" ({row['seeds'].partition('(')[2]}" if "(" in row["seeds"] else "")
            cells = (row["lr"], row["activation lr"], loss, difference, row[TIME], common, p)
            text.append(f"| {' | '.join((f'`{arm}`', *cells, *(ranks(contrast) if ranked else ())))} |")
        text.append("")
    return "\n".join(text)


def agile_against_plain(documents: list[dict[str, Any]]) -> str:
    """Return one table over studies: each base function's agile form against the plain one, a row a network."""
    lines = ["| network | plain | agile | agile minus plain [interval] | |", "| --- | --- | --- | --- | --- |"]
    for document in documents:
        losses = {(row["task"], row["arm"]): row["test loss"] for row in document["rows"]}
        for one in document["contrasts"]:
            base = one["arm"].removeprefix("agile-")
            if (one["task"], base) in losses and base != one["arm"]:
                task, (low, high) = one["task"], one["student"]
                lines.append(
                    f"| {base}, {task} | {losses[task, base]} | {losses[task, one['arm']]} "
                    f"| {one['mean']:+.3f} [{low:+.3f}, {high:+.3f}] | {WORDS.get(one['decision'], one['decision'])} |"
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


def ranks(contrast: dict[str, Any] | None) -> tuple[str, str, str]:
    """Return in how many seeds an arm is lower, its typical difference, and the p-value of the signed-rank test."""
    if contrast is None:
        return "", "", ""
    typical, bounds = contrast["typical"], contrast["typical_interval"]
    ends = ("open" if bound is None else f"{bound:+.3f}" for bound in bounds or ())
    interval = "none" if bounds is None else ", ".join(ends)
    size = "–" if typical is None else f"{typical:+.3f}"
    wins = f"{contrast['seeds_lower']} of {len(contrast['seeds'])}"
    return wins, f"{size} [{interval}]", f"{contrast['signed_rank_p']:.2g}"


def own_best(rows: list[dict[str, str]]) -> str:
    """Return a Markdown table of the iteration at which runs had their own lowest validation loss."""
    text = [
        "| task | arm | median | mean | minus the baseline's [95 % interval] | p |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    found: list[tuple[str, str, list[float], list[float]]] = []
    for task in dict.fromkeys(row["task"] for row in rows):
        arms = dict.fromkeys(row["arm"] for row in rows if row["task"] == task)
        iterations = {
            arm: {
                row["seed"]: float(row["iteration"])
                for row in rows
                if (row["task"], row["arm"], row["phase"]) == (task, arm, "final")
            }
            for arm in arms
        }
        base = next(iter(iterations.values()))
        first = list(base.values())
        for arm, own in iterations.items():
            found.append((task, arm, first if own is base else [own[seed] for seed in base], first))
    compared = [one for one in found if one[2] is not one[3] and one[2] != one[3]]
    corrected = dict(
        zip(
            ((task, arm) for task, arm, *_ in compared),
            holm([sign_flip_test(own, first) for _, _, own, first in compared]),
            strict=True,
        )
    )
    for task, arm, own, first in found:
        middle, mean = statistics.median(own), statistics.fmean(own)
        difference, p = "baseline" if own is first else "+0", ""
        if (task, arm) in corrected:
            one = paired_difference(own, first, comparisons=len(compared))
            difference, p = f"{one.mean:+.0f} [{one.low:+.0f}, {one.high:+.0f}]", f"{corrected[task, arm]:.2g}"
        text.append(f"| {task} | `{arm}` | {middle:g} | {mean:.0f} | {difference} | {p} |")
    return "\n".join(text)


TIME = "iterations to the baseline's best"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if name == "recipe":
            print(recipe_summary())
            for task in RECIPE:
                with (HERE / "results" / f"recipe-{task}.csv").open(encoding="utf-8") as file:
                    print(f"\n**{task}**\n\n{by_rate(list(csv.DictReader(file)))}")
            continue
        text = Path(name).read_text(encoding="utf-8")
        if name.endswith(".csv"):
            print(own_best(list(csv.DictReader(text.splitlines()))))
        else:
            print(tables(json.loads(text)))
