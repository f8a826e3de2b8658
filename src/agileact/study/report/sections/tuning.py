"""What was tried while learning rates were tuned, what was chosen, and what an arm is worth to who cannot tune it."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from statistics import fmean, geometric_mean
from typing import Any

from agileact.study.report import blocks
from agileact.study.report.blocks import Block
from agileact.study.results.outcome import Outcome
from agileact.study.results.sensitivity import DRAWS, Sensitivity, score
from agileact.study.running.planner import Choice, Point
from agileact.study.spec.space import FACTORS, OPTION, Dimension

_SENSITIVITY = "Sensitivity to the learning rate"
_PLACES = 2
"""Of a line over the rates of several replicates, for each point that an arm could try."""
_BESIDE = 3.0
"""A logarithmic axis has no zero: it is drawn so many times below the smallest number, with a tick of its own."""


def tuning(outcome: Outcome) -> Block:
    """Return the section."""
    title, protocol = "Tuning", outcome.study.protocol
    if not protocol.tune:
        text = "Learning rates were not tuned: every arm was trained with its own, which the table shows."
        return blocks.section("tuning", title, [blocks.paragraph(text)])

    def pick(task: str) -> Block | None:
        if outcome.unit == "seed":
            return next(iter(_charts(outcome, task, 0, task)), None)
        charts = {str(n): _charts(outcome, task, n, f"{task}-{n}") for n in range(protocol.replicates)}
        return blocks.choice(f"tuning-{task}", f"{task}: replicate", {n: found for n, found in charts.items() if found})

    content = blocks.of_tasks(outcome, pick)
    if not content:
        return blocks.section("tuning", title, [blocks.paragraph("No arm's tuning is over yet.")])
    count = len(protocol.tuning_seeds)
    text = (
        f"Every arm could try {protocol.trials} points on each task, each with {count} seed{'s' * (count > 1)}; the "
        "score is the mean of their lowest validation losses. The ringed point was chosen. "
    )
    if outcome.study.searches:
        text += (
            "Where several numbers were searched together, a chart for each shows all points. A cross at the top is a "
            "point of which a run diverged."
        )
    else:
        text += (
            "Points of an arm that differ in the learning rate of the activations alone share their place on the axis; "
            "a cross at the top, in a row for each such arm, is a point of which a run diverged."
        )
    if outcome.unit == "replicate":
        text += " Every replicate was tuned by itself, with other rates to begin with, seeds and validation samples."
    if protocol.chooses_within_noise:
        text += " Of points whose score is within the noise of the lowest, that of the smallest rate was chosen."
    fields = json.dumps(dataclasses.asdict(protocol), indent=1, ensure_ascii=False, default=str)
    space = blocks.details("Search space and protocol", [blocks.code(fields, "Search space and protocol")])
    parallel = blocks.of_tasks(outcome, lambda task: _parallel(outcome, task))
    return blocks.section("tuning", title, [blocks.paragraph(text), space, *content, *parallel])


def _dimensions(outcome: Outcome) -> dict[str, list[Dimension]]:
    """Return what the arms' spaces vary, by name, the learning rate first."""
    found: dict[str, list[Dimension]] = {}
    for one in (one for arm in outcome.study.arms for one in outcome.study.space(arm) if one.free):
        found.setdefault(one.name, []).append(one)
    return dict(sorted(found.items(), key=lambda pair: pair[0] != "lr"))


def _charts(outcome: Outcome, task: str, replicate: int, key: str) -> list[Block]:
    """Return a chart over the learning rate or, of a space of several numbers, one block with a small chart of each."""
    choices = [(arm, one) for arm, found in outcome.of_task(task) for one in found.choices]
    chosen = {arm: one for arm, one in choices if one.replicate == replicate}
    if not chosen:
        return []
    names = outcome.arm_names
    dimensions = _dimensions(outcome)
    title = f"{task}: mean lowest validation loss over "
    label = f"Tuning on {task}: {'; '.join(f'{names[arm]} chose {c.point.describe()}' for arm, c in chosen.items())}."
    columns = list(dimensions) or ["learning rate", "activations"]
    rows = [
        [
            blocks.arm_cell(outcome, names[arm]),
            *(_searched(point, columns) if dimensions else _rates(point)),
            blocks.measured(reached),
            blocks.cell("chosen" if point == found.point else ""),
        ]
        for arm, found in chosen.items()
        for point, reached in _sorted(found)
    ]
    told = (f"Points that were tried on {task}.", ["arm", *columns, "score", ""], rows)
    positive = all(reached > 0 for found in chosen.values() for _, reached in found.scores)
    if len(dimensions) < 2:
        series = [_series(arm, names[arm], found, lambda point: point.lr) for arm, found in chosen.items()]
        axes: dict[str, Any] = {"x": "learning rate of the weights", "log_x": True, "log_y": positive, "points": True}
        title += "the learning rate"
        return [
            blocks.chart(
                "tuning", key, title, label, form="lines", series=series, y="validation loss", **axes, numbers=told
            )
        ]
    small = []
    for name, of_arms in dimensions.items():
        axis = _Axis(name, of_arms)
        searched = [
            arm for arm in chosen if any(one.name == name for one in outcome.study.space(outcome.study.arms[arm]))
        ]
        series = [{**_series(arm, names[arm], chosen[arm], axis.place), "factor": None} for arm in searched]
        words = name.removeprefix(OPTION).replace("_", " ") + ", as a factor of lr" * (name in FACTORS)
        small.append(
            blocks.chart(
                "tuning",
                f"{key}-{name}",
                words,
                f"{title}{words}.",
                form="lines",
                series=series,
                x=words,
                y="validation loss",
                **axis.options,
                log_y=positive,
                points=True,
                small=True,
                numbers=("", (), ()),
            )
        )
    caption, heads, lines = told
    listed = blocks.table(f"tuning-numbers-{key}", caption, heads, lines, numeric=range(1, len(heads) - 1))
    content = [blocks.grid(small), blocks.details("Numbers", [listed])]
    return [{"kind": "group", "title": f"{title}what was searched", "blocks": content}]


def _sorted(found: Choice) -> list[tuple[Point, float]]:
    return sorted(found.scores, key=lambda one: (one[0].factor != 1.0, one[0].lr, one[0].factor))


def _series(arm: int, name: str, found: Choice, place: Callable[[Point], float]) -> Block:
    points = _sorted(found)
    return {
        "arm": arm,
        "name": name,
        "x": blocks.numbers([place(point) for point, _ in points]),
        "y": [blocks.number(reached) for _, reached in points],
        "text": [point.describe() for point, _ in points],
        "factor": [blocks.number(point.factor) for point, _ in points],
        "chosen": next(n for n, (point, _) in enumerate(points) if point == found.point),
    }


def _value(point: Point, name: str) -> Any:
    return {"lr": point.lr, "activation_lr": point.factor, **dict(point.rest)}.get(name)


class _Axis:
    """Where the values of a dimension are on its axis: names one after the other, numbers where they belong."""

    def __init__(self, name: str, dimensions: list[Dimension]) -> None:
        self.name = name
        self.named = any(one.choices for one in dimensions)
        self.log = not self.named and any(one.log for one in dimensions)
        self._zero = blocks.number(min(one.low for one in dimensions) / _BESIDE) or 0.0
        self.ticks: dict[str, float] = {}

    @property
    def options(self) -> dict[str, Any]:
        """What the script must know of the axis, once the points are placed."""
        ticks = [[at, text] for text, at in self.ticks.items()]
        return {"x_ticks": ticks, "log_x": True} if self.log else {"x_ticks": ticks}

    def place(self, point: Point) -> float:
        value = _value(point, self.name)
        if self.named:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            return self.ticks.setdefault(text, float(len(self.ticks)))
        return self.ticks.setdefault("0", self._zero) if self.log and value == 0 else float(value)


def _searched(point: Point, names: list[str]) -> list[Any]:
    found = [_value(point, name) for name in names]
    return [
        blocks.measured(one) if isinstance(one, float) else blocks.cell("–" if one is None else str(one))
        for one in found
    ]


def _rates(point: Point) -> list[Any]:
    activations = "as the weights" if point.activation_lr is None else f"{point.activation_lr:g}"
    return [blocks.measured(point.lr, "g"), blocks.cell(activations, point.factor)]


def _parallel(outcome: Outcome, task: str) -> Block | None:
    """Return every tuning trial as a line over what was varied, and its loss: parallel coordinates."""
    trials = [one for one in outcome.trials if one.phase == "tuning" and one.task == task]
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
        low, high = min(known, default=0), max(known, default=1)
        ends = {"low": blocks.number(low), "high": blocks.number(high)}
        axes.append({"title": name.replace("_", " "), "log": bool(known and low > 0), **ends})
    series, rows = [], []
    for place, one in enumerate(trials):
        line = [blocks.number(values[place]) for values in varied.values()]
        name = f"{one.arm}, seed {one.result.spec.seed}"
        series.append({"arm": outcome.arm_names.index(one.arm), "name": name, "values": line})
        rows.append([blocks.arm_cell(outcome, one.arm), *map(blocks.measured, line)])
    return blocks.chart(
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


def sensitivity(outcome: Outcome) -> Block:
    """Return the section on how much an arm's loss depends on the learning rate."""
    content = blocks.of_tasks(outcome, lambda task: _over_rates(outcome, task))
    if not content:
        return blocks.section(
            "sensitivity", _SENSITIVITY, [blocks.paragraph("There is no tuning trial, so no learning rate was varied.")]
        )
    text = (
        "The line is the mean lowest validation loss of the tuning trials. The band reaches from the lowest to the "
        "highest run. Where more than the rate was searched, a rate shows its best point. Tuning picked the points, so "
        "the expected best of n draws is over these points. A diverged run counts there as an untrained network."
    )
    if outcome.unit == "replicate":
        text += " Where replicates tried different rates, a point of the line is the mean over rates close together."
    return blocks.section("sensitivity", _SENSITIVITY, [blocks.paragraph(text), *content])


def _line(one: Sensitivity, most: int | None) -> tuple[Sequence[float], ...]:
    """Return rates with mean, lowest and highest loss, at ``most`` places at most.

    Each replicate draws other rates: joined one by one, their noise would look like a dependence on the rate.
    """
    if most is None or len(one.rates) <= most:
        return one.rates, one.mean, one.low, one.high
    width = (math.log(one.rates[-1]) - math.log(one.rates[0])) / most
    groups: dict[int, list[int]] = {}
    for place, rate in enumerate(one.rates):
        groups.setdefault(min(int((math.log(rate) - math.log(one.rates[0])) / width), most - 1), []).append(place)

    def each(take: Callable[[list[float]], float], values: Sequence[float]) -> list[float]:
        return [take([values[place] for place in places]) for places in groups.values()]

    return each(geometric_mean, one.rates), each(fmean, one.mean), each(min, one.low), each(max, one.high)


def _over_rates(outcome: Outcome, task: str) -> Block | None:
    found = [one for (of, _), one in outcome.sensitivities.items() if of == task]
    if not found:
        return None
    most = _PLACES * outcome.study.protocol.trials if outcome.unit == "replicate" else None
    series = [
        {
            **{"arm": outcome.arm_names.index(one.arm), "name": one.arm},
            **{name: blocks.numbers(values) for name, values in zip(["x", "y", "low", "high"], line, strict=True)},
        }
        for one in found
        for line in [_line(one, most)]
    ]
    rows = [
        [
            blocks.arm_cell(outcome, one.arm),
            blocks.cell(one.describe_range(), one.mean_decades),
            *map(blocks.measured, one.expected),
        ]
        for one in found
    ]
    return blocks.chart(
        "sensitivity",
        task,
        f"{task}: validation loss over the learning rate",
        f"Validation loss over the learning rate on {task}, for {len(found)} arms.",
        form="lines",
        series=series,
        x="learning rate",
        y="validation loss",
        log_x=True,
        log_y=all(value > 0 for one in found for value in one.low),
        numbers=(
            f"Rates within 10 % of the best on {task}, and the expected lowest loss of n random draws.",
            ["arm", "rates within 10 %", *(f"best of {n}" for n in DRAWS)],
            rows,
        ),
    )
