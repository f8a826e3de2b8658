"""The tables of the pages in this folder, from what ``agileact study show`` and ``agileact study export`` wrote.

python docs/studies/tables.py where-relu                             # one study: agile against plain, and every arm
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

from agileact.study import Difference, paired_difference

HERE = Path(__file__).resolve().parent
RECIPE = {
    "paper-mlp": "the paper's fully connected network, ReLU",
    "three-layers": "three layers, ReLU",
    "three-layers-gelu": "three layers, GELU",
    "three-layers-tanh": "three layers, tanh",
    "ten-layers": "ten layers, ReLU",
    "ten-layers-gelu": "ten layers, GELU",
    "ten-layers-tanh": "ten layers, tanh",
    "ten-layers-sigmoid": "ten layers, sigmoid",
    "cnn": "the paper's CNN, ReLU",
    "residual": "residual CNN of 19 layers, ReLU",
    "transformer": "character transformer, GELU",
    "mnist1d": "MNIST-1D, two layers of 100, ReLU",
    "batch-8": "three layers, ReLU, batches of 8",
    "batch-8-cosine": "the same, cosine schedule",
    "batch-2": "three layers, ReLU, batches of 2",
    "cnn-batch-8": "the paper's CNN, ReLU, batches of 8",
    "cnn-batch-2": "the paper's CNN, ReLU, batches of 2",
    "residual-batch-8": "residual CNN of 19 layers, ReLU, batches of 8",
    "diabetes": "table: diabetes, batches of 32",
    "friedman1": "table: Friedman's formula, batches of 50",
}
"""The tasks of the page about the recipe, each a study of its own, with what the tables call them."""
THE_RECIPE = "agile-f+hidden-standardized"
VARIANTS = {
    "agile-f+standardized": "mean 0 in all layers",
    "agile-f+centred-start": "mean 0 in all layers, at the start alone",
    "agile-f+length-one": "mean 0 nowhere",
    "agile-f+hidden-standardized+weight-decay=0.1": "the last layer decays",
}
"""The arms that differ from the recipe in which rows get mean 0, or in the decay of the last layer."""
PARTS = {
    **VARIANTS,
    **{
        f"{arm}+{part}": f"{of}{words}"
        for arm, of in ((THE_RECIPE, ""), ("agile-f+standardized", "mean 0 in all layers, "))
        for part, words in {
            "scale-only": "no b",
            "size-one": "no a",
            "location-only": "a stays at its start",
            "start-one": "a starts at 1",
        }.items()
    },
    "agile-f+weight-standardized": "weight standardisation: in the forward pass, weights free beneath",
    "agile-f+nf": "normaliser-free: the same, a stays at its start",
    "f+weight-norm": "torch's weight normalisation, plain",
}
"""The arms of the study recipe-parts, with what they do to the recipe or instead of it."""
TRIED = (
    ("batch-8", "batch-8-turn", f"{THE_RECIPE}+direction-turn=3", "a step turns a row by at most 3 rates"),
    ("batch-8", "batch-8-cosine", THE_RECIPE, "cosine schedule"),
)
"""Changes to the recipe: the task, the study of the change, its arm there, and what it is."""
TUNED = {
    "three-layers": "three layers, ReLU",
    "ten-layers": "ten layers, ReLU",
    "friedman1": "table: Friedman's formula",
}
"""The tasks of the study recipe-tuned, where decay, schedule and the activations' rate are searched too."""
RIVALS = ("f", "f+weight-decay=0.1", "f+batchnorm", "f+layernorm")
"""The arms of its first table."""
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
    """Return the name of an arm for any f, and for any network: skip-init is for residual ones.

    >>> general("agile-relu+standardized+skip-init")
    'agile-f+standardized'
    """
    return re.sub(r"\b(relu|sigmoid|gelu|tanh)\b", "f", arm).removesuffix("+skip-init")


Losses = dict[str, list[float]]
"""The test loss of each replicate, by arm; infinity for a run that diverged."""


def losses_of(study: str, task: str = "") -> Losses:
    """Return the final test losses of a task (by default the only one), replicates in one order for all arms."""
    found: dict[str, dict[str, float]] = {}
    for row in rows_of(study):
        if row["phase"] == "final" and task in ("", row["task"]):
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
    for task in (*RECIPE, "parts"):
        losses = losses_of(f"recipe-{task}")
        base = of_arm(task, THE_RECIPE)
        found.update({(task, arm): (own, base) for arm, own in losses.items() if general(arm) != THE_RECIPE})
    for task in TUNED:
        tuned = {general(arm): losses for arm, losses in losses_of("recipe-tuned", task).items()}
        base = tuned.pop(THE_RECIPE)
        found.update({(f"tuned {task}", arm): (own, base) for arm, own in tuned.items()})
    for task, study, arm, _ in TRIED:
        # Under its own arm's name it would be the recipe of that study.
        found[study, f"{arm} for {task}"] = of_arm(study, arm), of_arm(task, THE_RECIPE)
    return found


def of_arm(study: str, arm: str) -> list[float]:
    """Return the test losses of an arm, named for any f, in a study of the page."""
    (losses,) = (losses for name, losses in losses_of(f"recipe-{study}").items() if general(name) == arm)
    return losses


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
        cells = {general(arm): against(one) for (of, arm), one in found.items() if of == task}
        row = (RECIPE[task], spread(of_arm(task, THE_RECIPE)), *(cells.get(arm, "–") for arm in RIVALS))
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def recipe_others() -> str:
    """Return a Markdown table of what the summary leaves out: the other arms, and every arm's own loss."""
    found = recipe_comparisons()
    lines = ["| task | arm | test loss | minus the recipe |", "| --- | --- | --- | --- |"]
    for task in RECIPE:
        for arm, losses in losses_of(f"recipe-{task}").items():
            difference = against(found[task, arm]) if (task, arm) in found else "the recipe"
            lines.append(f"| {RECIPE[task]} | `{arm}` | {spread(losses)} | {difference} |")
    return "\n".join(lines)


def recipe_parts() -> str:
    """Return a Markdown table of the recipe with a part taken away, and of its rivals by name, on three layers."""
    found, losses = recipe_comparisons(), losses_of("recipe-parts")
    lines = ["| instead of the recipe | arm | test loss | minus the recipe |", "| --- | --- | --- | --- |"]
    for arm, values in losses.items():
        what = PARTS.get(general(arm), "the recipe")
        difference = against(found["parts", arm]) if ("parts", arm) in found else ""
        lines.append(f"| {what} | `{arm}` | {spread(values)} | {difference} |")
    return "\n".join(lines)


def recipe_variants() -> str:
    """Return a Markdown table of the recipe's variants: test loss, and minus the recipe's, wherever they were run."""
    found = recipe_comparisons()
    lines = [
        "| task | the recipe | " + " | ".join(f"`{arm}`: {words}" for arm, words in VARIANTS.items()) + " |",
        "| --- |" + " --- |" * (1 + len(VARIANTS)),
    ]
    for task in (*RECIPE, "parts"):
        cells = {general(arm): against(one) for (of, arm), one in found.items() if of == task}
        if cells.keys() & VARIANTS:
            name = RECIPE.get(task, f"{RECIPE['three-layers']}, three points of tuning")
            row = (name, spread(of_arm(task, THE_RECIPE)), *(cells.get(arm, "–") for arm in VARIANTS))
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def recipe_tuned() -> str:
    """Return a Markdown table of the recipe beside its rivals where every arm's decay and schedule are searched too."""
    found = recipe_comparisons()
    rivals = [arm for arm in RIVALS if ("tuned three-layers", arm) in found]
    lines = [
        "| task | the recipe | " + " | ".join(f"`{arm}`" for arm in rivals) + " |",
        "| --- |" + " --- |" * (1 + len(rivals)),
    ]
    for task, name in TUNED.items():
        _, base = recipe_pairs()[f"tuned {task}", rivals[0]]
        lines.append(
            f"| {name} | {spread(base)} | {' | '.join(against(found[f'tuned {task}', arm]) for arm in rivals)} |"
        )
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
    for study in dict.fromkeys((*RECIPE, "parts", *(study for _, study, *_ in TRIED))):
        rows = rows_of(f"recipe-{study}")
        near = within_ten_percent(rows)
        for arm, means in mean_by_rate(rows).items():
            cells = " | ".join(f"{mean:.3f}" for mean in means)
            lines.append(f"| {RECIPE.get(study, study)} | `{arm}` | {cells} | {near[arm]} of {len(means)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if name == "recipe":
            tables = (
                *(recipe_summary, recipe_tuned, recipe_parts, recipe_variants),
                *(recipe_tried, recipe_others, recipe_rates),
            )
            print("\n\n".join(table() for table in tables))
            continue
        document = json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))
        print(agile_against_plain([document]), details(document), sep="\n\n")
