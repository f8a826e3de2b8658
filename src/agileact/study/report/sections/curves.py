"""Loss over iterations: the mean over seeds, and a band from the lowest to the highest."""

import math

from agileact.study.report import blocks
from agileact.study.report.blocks import Block
from agileact.study.results.outcome import Outcome
from agileact.study.results.trajectories import Band, Part, loss_band

_BUDGET = 40_000
"""So many points of single seeds' curves a page may hold, or it grows beyond what a mail takes."""

_PARTS: dict[Part, str] = {
    "validation": "loss on the validation set",
    "train": "training loss, a mean over the batches since the last evaluation",
    "test": "loss on the test set at every evaluation",
}


def curves(outcome: Outcome) -> Block:
    """Return the section: for each task a choice of validation, training and, where there is one, test curve."""
    lengths = [0]

    def pick(task: str) -> Block | None:
        options = {}
        for part in _PARTS:
            bands = {arm: band for arm, found in outcome.of_task(task) if (band := loss_band(found.results, part))}
            if bands:
                options[str(part)] = [_chart(outcome, task, part, bands)]
                lengths.extend(len(band.iterations) for band in bands.values())
        return blocks.choice(f"curves-{task}", f"{task}: loss on", options)

    content = blocks.of_tasks(outcome, pick)
    text = (
        "The line is the mean over seeds. The band is the range of the seeds, or the middle half of them (first to "
        "third quartile), or each seed has a line of its own. Diverged runs are left out. The buttons below a chart "
        "show and hide arms, everywhere on the page."
    )
    if outcome.study.protocol.test == "once":
        text += " The test set was evaluated once per trial, so there is no test curve."
    if max(lengths) > blocks.POINTS:
        text += (
            f" Long curves are drawn with {blocks.POINTS} of their points; the numbers below the charts come from all."
        )
    return blocks.task_section("curves", "Loss curves", text, content, outcome, "No finished trial holds a loss curve.")


def _chart(outcome: Outcome, task: str, part: Part, bands: dict[int, Band]) -> Block:
    names = outcome.arm_names
    lines = len(_PARTS) * sum(len(one.results) for one in outcome.cells)
    series, rows = [], []
    for arm, band in bands.items():
        places = blocks.thin(len(band.iterations))
        few = blocks.thin(len(band.iterations), max(12, min(blocks.POINTS, _BUDGET // (lines or 1))))
        ends = {"y": band.mean, "low": band.low, "high": band.high, "lower": band.lower, "upper": band.upper}
        series.append(
            {
                **{"arm": arm, "name": names[arm], "x": [band.iterations[place] for place in places]},
                **{end: blocks.numbers([values[place] for place in places]) for end, values in ends.items()},
                "runs_x": [band.iterations[place] for place in few],
                "runs": [blocks.numbers([run[place] for place in few]) for run in band.curves],
            }
        )
        lowest = min(range(len(band.mean)), key=band.mean.__getitem__)
        rows.append(
            [
                blocks.cell(names[arm], arm=arm),
                blocks.measured(band.mean[0]),
                blocks.measured(band.mean[lowest]),
                blocks.measured(band.iterations[lowest], "d"),
                blocks.measured(band.mean[-1]),
                blocks.cell(f"{band.runs}" + f" ({band.diverged} diverged)" * bool(band.diverged), band.runs),
            ]
        )
    best = min(bands, key=lambda arm: min(bands[arm].mean))
    return blocks.chart(
        "curves",
        f"{task}-{part}",
        f"{task}: {_PARTS[part]}",
        f"{part} loss on {task} over iterations for {len(bands)} arms; the lowest mean, {min(bands[best].mean):.4g}, "
        f"is that of {names[best]}.",
        form="lines",
        series=series,
        x="iteration",
        y=f"{part} loss",
        log_x=False,
        bands=True,
        log_y=all(value > 0 and math.isfinite(value) for band in bands.values() for value in band.low),
        numbers=(
            f"Mean {part} loss over seeds on {task}.",
            ["arm", "first", "lowest", "at iteration", "last", "runs"],
            rows,
        ),
    )
