"""What was tried while learning rates were tuned, and what was chosen."""

from __future__ import annotations

import dataclasses
import json
import math

from agileact.study.report.blocks import Block, cell, chart, choice, code, details, number, of_tasks, paragraph, section
from agileact.study.results.outcome import Outcome
from agileact.study.results.sensitivity import score


def tuning(outcome: Outcome) -> Block:
    """Return the section."""
    title = "Tuning"
    if not outcome.study.protocol.tune:
        text = "Learning rates were not tuned: every arm was trained with its own, which the table shows."
        return section("tuning", title, [paragraph(text)])

    def pick(task: str) -> Block | None:
        if outcome.unit == "seed":
            return _chart(outcome, task, 0, task)
        charts = {n: _chart(outcome, task, n, f"{task}-{n}") for n in range(outcome.study.protocol.replicates)}
        return choice(f"tuning-{task}", f"{task}: replicate", {str(n): [one] for n, one in charts.items() if one})

    content = of_tasks(outcome, pick)
    if not content:
        return section("tuning", title, [paragraph("No arm's tuning is over yet.")])
    text = (
        f"Every arm could try {outcome.study.protocol.trials} points on each task, each with "
        f"{_seeds(len(outcome.study.protocol.tuning_seeds))}; the score is the mean of their lowest validation losses. "
        "The ringed point was chosen. Points of an arm that differ in the learning rate of the activations alone share "
        "their place on the axis; a cross at the top, in a row for each such arm, is a point of which a run diverged."
    )
    if outcome.unit == "replicate":
        text += " Every replicate was tuned by itself, with other rates to begin with, seeds and validation samples."
    if outcome.study.protocol.chooses_within_noise:
        text += " Of points whose score is within the noise of the lowest, that of the smallest rate was chosen."
    return section(
        "tuning",
        title,
        [paragraph(text), _space(outcome), *content, *of_tasks(outcome, lambda task: _parallel(outcome, task))],
    )


def _space(outcome: Outcome) -> Block:
    """Return the protocol, with the space that was searched, as it was carried out."""
    fields = json.dumps(dataclasses.asdict(outcome.study.protocol), indent=1, ensure_ascii=False, default=str)
    return details("Search space and protocol", [code(fields, "Search space and protocol")])


def _parallel(outcome: Outcome, task: str) -> Block | None:
    """Return every tuning trial as a line over what was varied, and its loss: parallel coordinates."""
    trials = [one for one in outcome.trials if one.phase == "tuning" and one.task == task]
    numbered = {name: place for place, name in enumerate(outcome.arm_names)}
    columns = {
        name: [getattr(one.result.spec.arm, name) for one in trials]
        for name in (vars(trials[0].result.spec.arm) if trials else ())
        if name != "activations"
    }
    varied = {
        name: [None if value is None else float(value) for value in values]
        for name, values in columns.items()
        if len(set(map(str, values))) > 1 and all(value is None or isinstance(value, (int, float)) for value in values)
    }
    if not varied:
        return None
    varied["validation loss"] = [score(one.result) for one in trials]
    axes = []
    for name, values in varied.items():
        known = [value for value in values if value is not None and math.isfinite(value)]
        axes.append(
            {
                "title": name,
                "log": bool(known and min(known) > 0),
                "low": number(min(known, default=0)),
                "high": number(max(known, default=1)),
            }
        )
    series, rows = [], []
    for place, one in enumerate(trials):
        line = [number(values[place]) for values in varied.values()]
        series.append({"arm": numbered[one.arm], "name": f"{one.arm}, seed {one.result.spec.seed}", "values": line})
        texts = ["–" if value is None else f"{value:.4g}" for value in line]
        rows.append([cell(one.arm, arm=numbered[one.arm]), *map(cell, texts, line)])
    return chart(
        "parallel",
        task,
        f"{task}: every tuning trial, over what was varied",
        f"Parallel coordinates of {len(trials)} tuning trials on {task}, over {', '.join(varied)}.",
        form="parallel",
        series=series,
        x="",
        axes=axes,
        numbers=(f"Tuning trials on {task}.", ["arm", *varied], rows),
    )


def _chart(outcome: Outcome, task: str, replicate: int, key: str) -> Block | None:
    names = outcome.arm_names
    choices = [(arm, one) for arm, found in outcome.of_task(task) for one in found.choices]
    chosen = {arm: one for arm, one in choices if one.replicate == replicate}
    if not chosen:
        return None
    series, rows = [], []
    for arm, found in chosen.items():
        points = sorted(found.scores, key=lambda one: (one[0].factor != 1.0, one[0].lr, one[0].factor))
        series.append(
            {
                "arm": arm,
                "name": names[arm],
                "x": [number(point.lr) for point, _ in points],
                "y": [number(reached) for _, reached in points],
                "text": [_describe(point.lr, point.activation_lr) for point, _ in points],
                "factor": [number(point.factor) for point, _ in points],
                "chosen": next(place for place, (point, _) in enumerate(points) if point == found.point),
            }
        )
        for point, reached in points:
            rows.append(
                [
                    cell(names[arm], arm=arm),
                    cell(f"{point.lr:g}", point.lr),
                    cell("as the weights" if point.activation_lr is None else f"{point.activation_lr:g}", point.factor),
                    cell(f"{reached:.4g}" if math.isfinite(reached) else "diverged", reached),
                    cell("chosen" if point == found.point else ""),
                ]
            )
    return chart(
        "tuning",
        key,
        f"{task}: mean lowest validation loss over the learning rate",
        f"Tuning on {task}: "
        + "; ".join(f"{names[arm]} chose {_describe(c.point.lr, c.point.activation_lr)}" for arm, c in chosen.items())
        + ".",
        form="lines",
        series=series,
        x="learning rate of the weights",
        y="validation loss",
        log_x=True,
        log_y=all(reached > 0 for found in chosen.values() for _, reached in found.scores),
        points=True,
        numbers=(
            f"Points that were tried on {task}.",
            ["arm", "learning rate", "activations", "score", ""],
            rows,
        ),
    )


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _describe(lr: float, activation_lr: float | None) -> str:
    return f"learning rate {lr:g}" + ("" if activation_lr is None else f", activations {activation_lr:g}")
