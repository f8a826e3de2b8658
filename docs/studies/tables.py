"""The tables of the pages in this folder, from what ``agileact study show`` and ``agileact study export`` wrote.

python docs/studies/tables.py where-relu                             # one study: agile against plain, and every arm
python docs/studies/tables.py recipe                                 # the summary of the page about the recipe
"""

from __future__ import annotations

import csv
import functools
import gzip
import json
import math
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agileact.study import Difference, paired_difference

HERE = Path(__file__).resolve().parent
RECIPE = {
    "paper-mlp": "the paper's fully connected network",
    "three-layers": "three layers",
    "ten-layers": "ten layers",
    "ten-layers-gelu": "ten layers, GELU",
    "ten-layers-tanh": "ten layers, tanh",
    "ten-layers-sigmoid": "ten layers, sigmoid",
    "mnist1d": "MNIST-1D, two layers",
    "diabetes": "table: diabetes",
    "friedman1": "table: Friedman's formula",
    "cnn": "the paper's CNN",
    "residual": "residual CNN of 19 layers",
    "transformer": "character transformer, GELU",
    "paper-mlp-8": "the paper's fully connected network, batches of 8",
    "three-layers-8": "three layers, batches of 8",
    "ten-layers-8": "ten layers, batches of 8",
    "mnist1d-8": "MNIST-1D, batches of 8",
    "diabetes-8": "diabetes, batches of 8",
    "friedman1-8": "Friedman's formula, batches of 8",
    "cnn-8": "the paper's CNN, batches of 8",
    "residual-8": "residual CNN, batches of 8",
    "paper-mlp-2": "the paper's fully connected network, batches of 2",
    "three-layers-2": "three layers, batches of 2",
    "ten-layers-2": "ten layers, batches of 2",
    "mnist1d-2": "MNIST-1D, batches of 2",
    "diabetes-2": "diabetes, batches of 2",
    "friedman1-2": "Friedman's formula, batches of 2",
    "cnn-2": "the paper's CNN, batches of 2",
}
"""The tasks of the page about the recipe, with what its tables call them; f is ReLU unless another one is named."""
SEARCHED = (
    *("tuned", "tuned-gelu", "tuned-tanh", "tuned-sigmoid", "tuned-batches", "tuned-cnn", "tuned-residual"),
    *("tuned-transformer", "rivals", "parts", "parts-batches", "parts-sigmoid"),
)
"""Its studies, recipe-NAME: a task's arms may lie in several, whose replicates are the same by their number."""
RATES = ("rates", "rates-batches")
"""Its studies of the learning rate alone."""
THE_RECIPE = "agile-f+hidden-standardized"
RIVALS = ("f", "f+batchnorm", "f+layernorm")
"""The arms of its first table."""
OTHERS = {
    "agile-f": "agile, free weights",
    "f+weight-norm": "weight normalisation, plain",
    "agile-f+weight-standardized": "weight standardisation: in the forward pass, weights free beneath",
    "agile-f+nf": "normaliser-free: the same, a stays at its start",
    "prelu": "PReLU",
    "plain GELU": "GELU",
    "plain ReLU": "ReLU",
}
"""Its other rivals, with what they are."""
PARTS = {
    "agile-f+standardized": "mean 0 in all layers",
    "agile-f+length-one": "mean 0 nowhere",
    f"{THE_RECIPE}+scale-only": "no b",
    f"{THE_RECIPE}+size-one": "no a",
    f"{THE_RECIPE}+location-only": "a stays at its start",
    f"{THE_RECIPE}+start-one": "a starts at 1",
    f"{THE_RECIPE}+gain-frozen": "no g",
    f"{THE_RECIPE}+activation-decay=0.1": "a, b and g decay to their start",
    f"{THE_RECIPE}+direction-turn=3": "a step turns a row by at most 3 rates",
}
"""The recipe with one thing changed, and what that is."""
NEAR = 1.1
"""A loss up to so many times the lowest one is near it."""
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


Losses = dict[str, dict[int, float]]
"""The test loss of each replicate, by arm; infinity for a run that diverged."""


@functools.cache
def rows_of(study: str) -> list[dict[str, str]]:
    """Return every trial of a study about the recipe."""
    with gzip.open(HERE / "results" / f"recipe-{study}.csv.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@functools.cache
def recipe_losses() -> dict[str, Losses]:
    """Return the final test losses by task and arm, the arms named for any f."""
    found: dict[str, Losses] = {task: {} for task in RECIPE}
    for study in SEARCHED:
        for row in rows_of(study):
            if row["phase"] == "final":
                arm = found[row["task"]].setdefault(general(row["arm"]), {})
                arm[int(row["replicate"])] = float(row["test_loss"] or "inf")
    return found


@functools.cache
def recipe_pairs() -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """Return the losses of each arm of each task, and the recipe's in the same replicates."""
    return {
        (task, arm): (list(own.values()), [arms[THE_RECIPE][replicate] for replicate in own])
        for task, arms in recipe_losses().items()
        for arm, own in arms.items()
        if arm != THE_RECIPE
    }


@functools.cache
def recipe_comparisons() -> dict[tuple[str, str], Difference | None]:
    """Return each arm of each task minus the recipe; None where a run diverged.

    The intervals hold for all comparisons of the page together (Bonferroni), so each is one of a much higher level.
    """
    pairs = recipe_pairs()
    return {
        key: paired_difference(own, base, comparisons=len(pairs)) if all(map(math.isfinite, (*own, *base))) else None
        for key, (own, base) in pairs.items()
    }


def spread(losses: Iterable[float]) -> str:
    """Return mean and deviation of the replicates that did not diverge, and how many of them did or learned nothing."""
    losses = list(losses)
    finite = [loss for loss in losses if math.isfinite(loss)]
    idle = sum(abs(loss - math.log(10)) < 1e-3 for loss in finite)
    words = [f"{count} {what}" for count, what in ((len(losses) - len(finite), "diverged"), (idle, "idle")) if count]
    return f"{statistics.fmean(finite):.3f} ± {statistics.stdev(finite):.3f}" + (
        f" ({', '.join(words)})" if words else ""
    )


def against(one: Difference | None) -> str:
    """Return a difference to the recipe with its interval; a word says which way, if the interval leaves out 0."""
    if one is None:
        return "runs diverged"
    word = {1: " **higher**", -1: " **lower**", 0: ""}[one.sign]
    return f"{one.mean:+.3f} [{one.low or 0:+.3f}, {one.high or 0:+.3f}]{word}"  # ten replicates have an interval


def beside_the_recipe(arms: Mapping[str, str]) -> str:
    """Return a Markdown table of a task a row: the recipe's test loss, and what other arms have more.

    Args:
        arms: What stands above the column of each arm.
    """
    found = recipe_comparisons()
    tasks = [task for task in RECIPE if any((task, arm) in found for arm in arms)]
    columns = [arm for arm in arms if any((task, arm) in found for task in tasks)]
    lines = [
        "| task | the recipe | " + " | ".join(arms[arm] for arm in columns) + " |",
        "| --- |" + " --- |" * (1 + len(columns)),
    ]
    for task in tasks:
        cells = [against(found[task, arm]) if (task, arm) in found else "–" for arm in columns]
        lines.append(f"| {RECIPE[task]} | {spread(recipe_losses()[task][THE_RECIPE].values())} | {' | '.join(cells)} |")
    return "\n".join(lines)


def recipe_summary() -> str:
    """Return the table of the recipe beside plain networks and normalisations."""
    return beside_the_recipe({arm: f"`{arm}`" for arm in RIVALS})


def recipe_others() -> str:
    """Return the table of the recipe beside its other rivals."""
    return beside_the_recipe({arm: f"`{arm}`: {words}" for arm, words in OTHERS.items()})


def recipe_parts() -> str:
    """Return the table of the recipe with one thing changed."""
    return beside_the_recipe({arm: f"`{arm.removeprefix(THE_RECIPE)}`: {words}" for arm, words in PARTS.items()})


def recipe_arms() -> str:
    """Return a Markdown table of every arm of every task: its test loss, and what tuning chose."""
    chosen: dict[tuple[str, str], list[tuple[float, bool]]] = {}
    for study in SEARCHED:
        for row in rows_of(study):
            if row["phase"] == "final":
                of = chosen.setdefault((row["task"], general(row["arm"])), [])
                of.append((float(row["lr"]), row["schedule"] == "cosine"))
    lines = ["| task | arm | test loss | median rate chosen | with cosine |", "| --- | --- | --- | --- | --- |"]
    for task, arms in recipe_losses().items():
        for arm, own in arms.items():
            rates, cosines = zip(*chosen[task, arm], strict=True)
            how = f"{statistics.median(rates):.2g} | {sum(cosines)} of {len(own)}"
            lines.append(f"| {RECIPE[task]} | `{arm}` | {spread(own.values())} | {how} |")
    return "\n".join(lines)


def recipe_failures() -> str:
    """Return a Markdown table of how many trials of the searches diverged or learned nothing."""
    count: dict[str, list[int]] = {arm: [0, 0, 0, 0] for arm in (THE_RECIPE, *RIVALS)}
    for study in SEARCHED:
        for row in rows_of(study):
            if (found := count.get(general(row["arm"]))) is not None:
                failed = row["status"] == "diverged" or float(row["validation_loss"]) >= float(row["untrained_loss"])
                place = 2 * (row["phase"] == "final")
                found[place] += 1
                found[place + 1] += failed
    lines = ["| arm | tuning trials that failed | final trials that failed |", "| --- | --- | --- |"]
    lines += [f"| `{arm}` | {bad} of {all_} | {last} of {final} |" for arm, (all_, bad, final, last) in count.items()]
    return "\n".join(lines)


Curve = list[tuple[float, float]]
"""Learning rate and validation loss."""


def curves_of(study: str) -> dict[tuple[str, str], list[Curve]]:
    """Return the curves of a study of the learning rate, a replicate each, by task and arm."""
    found: dict[tuple[str, str], dict[str, Curve]] = {}
    for row in rows_of(study):
        if row["phase"] == "tuning":
            loss = math.inf if row["status"] == "diverged" else float(row["validation_loss"])
            of = found.setdefault((row["task"], general(row["arm"])), {})
            of.setdefault(row["replicate"], []).append((float(row["lr"]), loss))
    return {key: [sorted(curve) for curve in curves.values()] for key, curves in found.items()}


def mean_curve(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Return learning rates and the mean loss of all curves there; between its points a curve is a line of log rate."""
    low, high = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    logs = np.linspace(math.log10(low), math.log10(high), 501)
    lines = []
    for curve in curves:
        rates, losses = np.array(curve).T
        # A point that diverged is far above all others, so that no line from it comes near.
        lines.append(np.interp(logs, np.log10(rates), np.minimum(losses, 1e3)))
    return 10**logs, np.mean(lines, axis=0)


def near_its_best(curves: Sequence[Curve]) -> tuple[float, bool]:
    """Return over how many decades of learning rates the mean loss is near its lowest, and whether an end cuts them.

    >>> near_its_best([[(0.001, 2.0), (0.01, 1.0), (0.1, 2.0)]])
    (0.2, False)
    """
    rates, losses = mean_curve(curves)
    near = losses <= NEAR * losses.min()
    width = math.log10(rates[-1] / rates[0])
    return round(float(near.mean()) * width, 2), bool(near[0] or near[-1])


def recipe_rates() -> str:
    """Return a Markdown table of :func:`near_its_best` by task and arm, and how the recipe's compares with plain's.

    The last column is over how many decades the recipe's mean loss is below the lowest one of plain.
    """
    curves = {key: found for study in RATES for key, found in curves_of(study).items()}
    arms = (THE_RECIPE, f"{THE_RECIPE}+direction-turn=3", *RIVALS)
    heads = [*(f"`{arm}`" for arm in arms), "the recipe's over plain's", "the recipe below plain's lowest"]
    lines = [f"| task | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    ratios, columns = [], []
    for task in (task for task in RECIPE if (task, THE_RECIPE) in curves):
        cells = []
        for arm in arms:
            width, cut = near_its_best(curves[task, arm]) if (task, arm) in curves else (math.nan, False)
            cells.append("–" if math.isnan(width) else f"{'≥ ' * cut}{width:.2f}")
        ratios.append(near_its_best(curves[task, THE_RECIPE])[0] / near_its_best(curves[task, "f"])[0])
        (rates, ours), (_, plain) = mean_curve(curves[task, THE_RECIPE]), mean_curve(curves[task, "f"])
        columns.append(float((ours < plain.min()).mean()) * math.log10(rates[-1] / rates[0]))
        lines.append(f"| {RECIPE[task]} | {' | '.join(cells)} | {ratios[-1]:.1f} | {columns[-1]:.2f} |")
    medians = f"**{statistics.median(ratios):.1f}** | **{statistics.median(columns):.2f}**"
    lines.append(f"| **median** |{' |' * len(arms)} {medians} |")
    return "\n".join(lines)


RECIPE_TABLES = (recipe_summary, recipe_others, recipe_parts, recipe_rates, recipe_failures, recipe_arms)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if name == "recipe":
            print("\n\n".join(table() for table in RECIPE_TABLES))
            continue
        document = json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))
        print(agile_against_plain([document]), details(document), sep="\n\n")
