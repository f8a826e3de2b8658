"""Loss over iterations: the mean over seeds, and a band from the lowest to the highest."""

from __future__ import annotations

import math

from agileact.study.report.blocks import (
    POINTS,
    Block,
    cell,
    chart,
    choice,
    numbers,
    paragraph,
    section,
    table,
    thin,
)
from agileact.study.report.facts import Facts
from agileact.study.results.trajectories import Band, Part, loss_band

_PARTS: tuple[Part, ...] = ("validation", "train", "test")
_MEANING = {
    "validation": "loss on the validation set",
    "train": "training loss, a mean over the batches since the last evaluation",
    "test": "loss on the test set at every evaluation",
}


def curves(facts: Facts) -> Block:
    """Return the section: for each task a choice of validation, training and, where there is one, test curve."""
    content: list[Block] = []
    shortened = False
    for task in facts.study.tasks:
        options: dict[str, list[Block]] = {}
        for part in _PARTS:
            bands = {arm: band for arm, found in facts.of_task(task.name) if (band := loss_band(found.results, part))}
            if bands:
                options[part] = [_chart(facts, task.name, part, bands)]
                shortened = shortened or any(len(band.iterations) > POINTS for band in bands.values())
        if options:
            content.append(
                {**choice(f"curves-{task.name}", f"{task.name}: loss on", list(options), options), "task": task.name}
            )
    if not content:
        return section(
            "curves", "Loss curves", [paragraph(facts.why_nothing or "No finished trial holds a loss curve.")]
        )
    once = facts.study.protocol.test == "once"
    text = (
        "The line is the mean over seeds, the band reaches from the lowest to the highest seed. Diverged runs are left "
        "out. The buttons below a chart show and hide arms, everywhere on the page."
        + " The test set was evaluated once per trial, so there is no test curve." * once
        + f" Long curves are drawn with {POINTS} of their points; the numbers below the charts come from all."
        * shortened
    )
    return section("curves", "Loss curves", [paragraph(text), *content])


def _chart(facts: Facts, task: str, part: Part, bands: dict[int, Band]) -> Block:
    names = facts.arm_names
    series, rows = [], []
    for arm, band in bands.items():
        places = thin(len(band.iterations))
        series.append(
            {
                "arm": arm,
                "name": names[arm],
                "x": [band.iterations[place] for place in places],
                "y": numbers([band.mean[place] for place in places]),
                "low": numbers([band.low[place] for place in places]),
                "high": numbers([band.high[place] for place in places]),
            }
        )
        lowest = min(range(len(band.mean)), key=band.mean.__getitem__)
        rows.append(
            [
                cell(names[arm], arm=arm),
                cell(f"{band.mean[0]:.4g}", band.mean[0]),
                cell(f"{band.mean[lowest]:.4g}", band.mean[lowest]),
                cell(str(band.iterations[lowest]), band.iterations[lowest]),
                cell(f"{band.mean[-1]:.4g}", band.mean[-1]),
                cell(f"{band.runs}" + f" ({band.diverged} diverged)" * bool(band.diverged), band.runs),
            ]
        )
    best = min(bands, key=lambda arm: min(bands[arm].mean))
    return chart(
        f"curves-{task}-{part}",
        f"{task}: {_MEANING[part]}",
        f"{part} loss on {task} over iterations for {len(bands)} arms; the lowest mean, {min(bands[best].mean):.4g}, "
        f"is that of {names[best]}.",
        form="lines",
        series=series,
        x="iteration",
        y=f"{part} loss",
        log_y=all(value > 0 and math.isfinite(value) for band in bands.values() for value in band.low),
        table=table(
            f"curves-numbers-{task}-{part}",
            f"Mean {part} loss over seeds on {task}.",
            ["arm", "first", "lowest", "at iteration", "last", "runs"],
            rows,
            numeric=range(1, 6),
        ),
    )
