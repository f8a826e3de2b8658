"""How much each arm needs its tuning."""

from __future__ import annotations

import math

from agileact.study.report.blocks import Block, cell, chart, numbers, paragraph, section, table
from agileact.study.results.outcome import Outcome
from agileact.study.results.sensitivity import DRAWS

_TEXT = (
    "From the tuning trials. Range: the learning rates around the best whose validation loss is at most 10 % above the "
    "lowest, in decades; between two rates that were tried the loss is a line. Best of n: the expected lowest "
    "validation loss of n random draws of the points that tuning began with. A point that diverged counts as untrained."
)


def sensitivity(outcome: Outcome) -> Block:
    """Return the section."""
    title = "Sensitivity to the learning rate"
    if not outcome.sensitivity:
        why = "No arm's tuning is over yet." if outcome.study.protocol.tune else "Learning rates were not tuned."
        return section("sensitivity", title, [paragraph(why)])
    text = _TEXT + " Mean ± standard deviation over replicates." * (outcome.unit == "replicate")
    if outcome.study.searches:
        text += " Tuning looked through more than the rate: each rate has the best of the points tried with it."
    return section(
        "sensitivity",
        title,
        [paragraph(text), *(block for one in outcome.study.tasks for block in _of(outcome, one.name))],
    )


def _of(outcome: Outcome, task: str) -> list[Block]:
    names = outcome.arm_names
    found = {names.index(one.arm): one for one in outcome.sensitivity if one.task == task}
    if not found:
        return []
    rows, series = [], []
    for arm, one in found.items():
        width = one.decades
        best = [one.best_of.get(n) for n in DRAWS]
        rows.append(
            [
                cell(names[arm], arm=arm),
                cell(f"{one.rates[0]:g} to {one.rates[-1]:g}", one.rates[-1]),
                cell(one.width(), None if width is None else width.mean),
                *(cell("–") if b is None else cell(b.format(4), b.mean) for b in best),
            ]
        )
        ends = {"y": one.mean, "low": one.low, "high": one.high}
        drawn = {end: numbers(values) for end, values in ends.items()}
        series.append({"arm": arm, "name": names[arm], "x": numbers(one.rates), **drawn})
    titles = ["arm", "rates tried", "range, decades", *(f"best of {n}" for n in DRAWS)]
    caption = f"Sensitivity on {task}."
    picture = chart(
        "sensitivity",
        task,
        f"{task}: lowest validation loss over the learning rate, with the range over tuning seeds",
        f"Lowest validation loss on {task} over the learning rate, for {len(found)} arms.",
        form="lines",
        series=series,
        x="learning rate of the weights",
        y="validation loss",
        log_x=True,
        log_y=all(value > 0 for one in found.values() for value in one.low if math.isfinite(value)),
        points=True,
        numbers=(
            f"Points on {task}.",
            ["arm", "learning rate", "mean", "lowest seed", "highest seed"],
            [
                [cell(names[arm], arm=arm), *(cell(f"{value:.4g}", value) for value in point)]
                for arm, one in found.items()
                for point in zip(one.rates, one.mean, one.low, one.high, strict=True)
            ],
        ),
    )
    block = table(f"tolerance-{task}", caption, titles, rows, numeric=range(1, len(titles)))
    return [{**block, "task": task}, {**picture, "task": task}]
