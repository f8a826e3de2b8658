"""The tables of the pages in this folder, from what ``agileact study show`` and ``agileact study export`` wrote.

python docs/studies/tables.py docs/studies/results/where-relu.json   # losses, and the time to the baseline's best
python docs/studies/tables.py docs/studies/results/where-relu.csv    # when each arm reached a best loss of its own
python docs/studies/tables.py recipe                                 # the summary of the page about the recipe
"""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from agileact.study import Difference, holm, paired_difference, sign_flip_test

HERE = Path(__file__).resolve().parent
RECIPE = {
    "three-layers": "three layers, ReLU",
    "ten-layers": "ten layers, ReLU",
    "ten-layers-sigmoid": "ten layers, sigmoid",
    "batch-8": "three layers, ReLU, batches of 8",
    "batch-8-cosine": "the same, cosine schedule",
    "diabetes": "table: diabetes, two layers, batches of 32",
}
"""The tasks of the page about the recipe, each a study of its own, with what the tables call them."""
STANDARDIZED = "agile-f+standardized"
TURN = "agile-f+standardized+direction-turn=3"
TRIED = (
    ("batch-8", "batch-8-turn", TURN, "a step turns a row by at most 3 rates"),
    ("batch-8", "batch-8-cosine", STANDARDIZED, "cosine schedule"),
)
"""Changes to the recipe: the task, the study of the change, its arm there, and what it is."""
RIVALS = ("f", "f+weight-decay=0.1", "f+batchnorm", "f+layernorm")
"""The arms of its first table."""
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
    return re.sub("relu|sigmoid|gelu|tanh", "f", arm)


Losses = dict[str, list[float]]
"""The test loss of each replicate, by arm; infinity for a run that diverged."""


def test_losses(study: str) -> Losses:
    """Return the final test losses of a study of one task, the replicates in one order for all arms."""
    found: dict[str, dict[str, float]] = {}
    for row in rows_of(study):
        if row["phase"] == "final":
            found.setdefault(row["arm"], {})[row["replicate"]] = float(row["test_loss"] or "inf")
    order = sorted(next(iter(found.values())), key=int)
    return {arm: [losses[replicate] for replicate in order] for arm, losses in found.items()}


def rows_of(study: str) -> list[dict[str, str]]:
    """Return every trial of a study."""
    with (HERE / "results" / f"{study}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def recipe_pairs() -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """Return the losses of all that the page compares with the recipe, and the recipe's, by study and arm."""
    found = {}
    for task in RECIPE:
        losses = test_losses(f"recipe-{task}")
        base = next(values for arm, values in losses.items() if general(arm) == STANDARDIZED)
        found.update({(task, arm): (own, base) for arm, own in losses.items() if own is not base})
    for task, study, arm, _ in TRIED:
        (base,) = (values for name, values in test_losses(f"recipe-{task}").items() if general(name) == STANDARDIZED)
        (own,) = (values for name, values in test_losses(f"recipe-{study}").items() if general(name) == arm)
        # Under its own arm's name it would be the recipe of that study.
        found[study, f"{arm} for {task}"] = own, base
    return found


def recipe_comparisons() -> dict[tuple[str, str], Difference | None]:
    """Return each arm of each task minus the recipe, by study and arm; None where a run diverged.

    The intervals hold for all comparisons of the page together (Bonferroni), so each is one of a much higher level.
    """
    pairs = recipe_pairs()
    return {
        key: paired_difference(own, base, comparisons=len(pairs)) if all(map(math.isfinite, (*own, *base))) else None
        for key, (own, base) in pairs.items()
    }


def spread(losses: list[float]) -> str:
    """Return mean and deviation of the replicates that did not diverge, and how many of them did or learned nothing."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    idle = sum(abs(loss - math.log(10)) < 1e-3 for loss in finite)
    words = [f"{count} {what}" for count, what in ((len(losses) - len(finite), "diverged"), (idle, "idle")) if count]
    return f"{statistics.fmean(finite):.3f} ± {statistics.stdev(finite):.3f}" + (
        f" ({', '.join(words)})" if words else ""
    )


def against(one: Difference | None) -> str:
    """Return a difference to the recipe in words."""
    if one is None:
        return "runs diverged"
    word = {1: "**higher**", -1: "**lower**", 0: "no difference found"}[one.sign]
    return f"{one.mean:+.3f} [{one.low or 0:+.3f}, {one.high or 0:+.3f}] {word}"  # ten replicates have an interval


def recipe_summary() -> str:
    """Return a Markdown table of a task a row: the recipe's test loss, and what its main rivals have more."""
    found = recipe_comparisons()
    lines = [
        "| task | the recipe | " + " | ".join(f"`{arm}`" for arm in RIVALS) + " |",
        "| --- |" + " --- |" * (1 + len(RIVALS)),
    ]
    for task in RECIPE:
        losses = {general(arm): values for arm, values in test_losses(f"recipe-{task}").items()}
        cells = {general(arm): against(one) for (of, arm), one in found.items() if of == task}
        row = (RECIPE[task], spread(losses[STANDARDIZED]), *(cells.get(arm, "–") for arm in RIVALS))
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def recipe_others() -> str:
    """Return a Markdown table of what the summary leaves out: the other arms, and every arm's own loss."""
    found = recipe_comparisons()
    lines = ["| task | arm | test loss | minus the recipe |", "| --- | --- | --- | --- |"]
    for task in RECIPE:
        for arm, losses in test_losses(f"recipe-{task}").items():
            difference = against(found[task, arm]) if (task, arm) in found else "the recipe"
            lines.append(f"| {RECIPE[task]} | `{arm}` | {spread(losses)} | {difference} |")
    return "\n".join(lines)


def recipe_tried() -> str:
    """Return a Markdown table of changes to the recipe for small batches, beside the recipe with constant rates."""
    found, pairs = recipe_comparisons(), recipe_pairs()
    lines = ["| task | change | test loss | minus the recipe as it is |", "| --- | --- | --- | --- |"]
    for task, study, arm, words in TRIED:
        key = study, f"{arm} for {task}"
        own, _ = pairs[key]
        lines.append(f"| {RECIPE[task]} | {words} | {spread(own)} | {against(found[key])} |")
    return "\n".join(lines)


def within_ten_percent(rows: list[dict[str, str]]) -> dict[str, int]:
    """Return how many of the three learning rates that all began with are within 10 % of an arm's best one."""
    return {arm: sum(mean <= 1.1 * min(means) for mean in means) for arm, means in mean_by_rate(rows).items()}


def mean_by_rate(rows: list[dict[str, str]]) -> dict[str, list[float]]:
    """Return the mean validation loss at each of the three learning rates that every arm began with, by arm."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row["phase"] == "tuning":
            tried = found.setdefault(row["arm"], {}).setdefault(row["replicate"], [])
            if len(tried) < len(RATES):
                tried.append((float(row["lr"]), float(row["validation_loss"] or "inf")))
    return {
        arm: [statistics.fmean(loss for _, loss in column) for column in zip(*map(sorted, tried.values()), strict=True)]
        for arm, tried in found.items()
    }


def recipe_rates() -> str:
    """Return :func:`mean_by_rate` of every arm of the page as one Markdown table."""
    columns = " | ".join(f"about {rate:g}" for rate in RATES)
    lines = [f"| task | arm | {columns} | within 10 % of its best |", "| --- |" + " --- |" * (len(RATES) + 2)]
    for study in dict.fromkeys((*RECIPE, *(study for _, study, *_ in TRIED))):
        rows = rows_of(f"recipe-{study}")
        near = within_ten_percent(rows)
        for arm, means in mean_by_rate(rows).items():
            cells = " | ".join(f"{mean:.3f}" for mean in means)
            lines.append(f"| {RECIPE.get(study, study)} | `{arm}` | {cells} | {near[arm]} of {len(means)} |")
    return "\n".join(lines)


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
            print(f"{recipe_summary()}\n\n{recipe_tried()}\n\n{recipe_others()}\n\n{recipe_rates()}")
            continue
        text = Path(name).read_text(encoding="utf-8")
        if name.endswith(".csv"):
            print(own_best(list(csv.DictReader(text.splitlines()))))
        else:
            print(tables(json.loads(text)))
