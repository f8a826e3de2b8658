"""Learned activations by layer: before and after one trial; scale, location and directions over training (Fig. 14)."""

from collections.abc import Mapping

from agileact.study.report import blocks
from agileact.study.report.blocks import Block, Cell
from agileact.study.results.outcome import Outcome
from agileact.study.results.trajectories import TraceBand, trace_bands
from agileact.study.spec.result import Shape

_NUMBERS = 120_000
"""So many values a page holds at most, about a megabyte; with more, fewer channels of each layer are drawn."""
_FEWEST = 4
_DRAWN = {
    "scale": ("scale a", ("scale_min", "scale_max"), ("smallest", "largest")),
    "location": ("location b", ("location_min", "location_max"), ("smallest", "largest")),
    "turn": ("turn of a row, radians a step", ("turn_median", "turn_max"), ("median", "largest")),
}
"""What is drawn over training: its name, the two ends of its band, and what they are."""


def shapes(outcome: Outcome) -> Block:
    """Return the section: a choice of arm for each task, and a chart for each of its layers."""
    whole = {
        (found.task, found.arm): [one for one in found.results if one.status != "diverged" and one.shapes]
        for found in outcome.cells
    }
    trials = {key: results[0] for key, results in whole.items() if results}
    most = _rows_a_layer([shape for trial in trials.values() for shape in trial.shapes.values()])

    def pick(task: str) -> Block | None:
        options = {}
        for (where, arm), trial in trials.items():
            if where == task:
                charts = [_chart(task, arm, layer, shape, most) for layer, shape in trial.shapes.items()]
                options[arm] = [blocks.paragraph(f"Seed {trial.spec.seed}, after the last step."), blocks.grid(charts)]
        return blocks.choice(f"shapes-{task}", f"{task}: arm", options)

    otherwise = (
        "No finished trial holds a learned shape: either no arm has an activation that learns its shape, or the "
        "trials were run by a version that did not keep them."
    )
    text = (
        "Each line is one channel's function after the training; dashed is the function that it started as. The first "
        f"seed that did not diverge is shown, with {most} evenly chosen channels of a layer at most."
    )
    return blocks.task_section("shapes", "Learned shapes", text, blocks.of_tasks(outcome, pick), outcome, otherwise)


def _rows_a_layer(found: list[Shape]) -> int:
    """Return how many channels of each layer can be drawn, so that the page stays small."""
    widest = max((len(shape.after) for shape in found), default=1)
    a_row = sum(len(shape.x) for shape in found)
    return max(1, min(widest, max(_FEWEST, _NUMBERS // max(a_row, 1))))


def _chart(task: str, arm: str, layer: str, shape: Shape, most: int) -> Block:
    name = layer.removesuffix("_activation")
    series: list[Block] = [
        {"name": f"{name}, at the start", "start": True, "y": blocks.numbers(shape.before[n])}
        for n in blocks.thin(len(shape.before), most)
    ]
    places = blocks.thin(len(shape.after), most)
    series += [
        {"name": f"{name}, channel {n + 1} of those sampled", "line": 1, "y": blocks.numbers(shape.after[n])}
        for n in places
    ]
    alike = len(shape.after) == 1
    learned = [(letter, one) for letter, one in (("scale a", shape.scale), ("location b", shape.location)) if one]
    rows: list[list[Cell]] = [
        [letter, *map(blocks.measured, (len(values), min(values), max(values)))] for letter, values in learned
    ]
    told = "; ".join(f"{letter} from {min(values):.3g} to {max(values):.3g}" for letter, values in learned)
    what = "one function for all channels" if alike else f"{len(places)} of its channels"
    return blocks.chart(
        "shapes",
        f"{task}-{arm}-{layer}",
        name,
        f"Learned activation of {arm} on {task}, layer {name}: {what} before and after training"
        + (f"; {told}." if told else "."),
        form="lines",
        series=series,
        shared_x=list(shape.x),
        x="input",
        y="output",
        legend=[{"start": True, "name": "at the start"}, {"line": 1, "name": "after training"}],
        small=True,
        numbers=(f"Final values of {name}.", ["parameter", "how many", "smallest", "largest"], rows),
    )


def parameters(outcome: Outcome) -> Block:
    """Return the section: a choice of arm for each task, a chart for a, one for b, and one for standardised rows."""

    def pick(task: str) -> Block | None:
        options = {}
        for _, found in outcome.of_task(task):
            bands, turns = trace_bands(found.results, "layers"), trace_bands(found.results, "directions")
            charts = [_of_layers(task, found.arm, which, bands) for which in ("scale", "location") if bands]
            charts += [_of_layers(task, found.arm, "turn", turns)] if turns else []
            if charts:
                options[found.arm] = [blocks.grid(charts, wide=True)]
        return blocks.choice(f"parameters-{task}", f"{task}: arm", options)

    title = "Scale a and location b over training"
    otherwise = "No finished trial has an activation with a learned scale and location."
    text = (
        "For each layer the band reaches from its smallest to its largest channel, each a mean over seeds. In "
        "a f(x - b), a starts at 1 and b at 0 unless the arm says otherwise. Where weights are standardised, a third "
        "chart shows by what angle the last step before an evaluation turned rows: the median row's and the largest."
    )
    return blocks.task_section("parameters", title, text, blocks.of_tasks(outcome, pick), outcome, otherwise)


def _of_layers(task: str, arm: str, which: str, bands: Mapping[str, TraceBand]) -> Block:
    what, sides, (lower, upper) = _DRAWN[which]
    series: list[Block] = []
    rows: list[list[Cell]] = []
    ends: list[str] = []
    for place, (layer, band) in enumerate(bands.items()):
        low, high = (band.ends[side] for side in sides)
        places = blocks.thin(len(low))
        series.append(
            {
                "line": place + 1,
                "name": layer,
                "x": [band.iterations[n] for n in places],
                "low": blocks.numbers([low[n] for n in places]),
                "high": blocks.numbers([high[n] for n in places]),
            }
        )
        rows.append([layer, *map(blocks.measured, (low[0], high[0], low[-1], high[-1], band.runs))])
        ends.append(f"{layer} from {low[-1]:.3g} to {high[-1]:.3g}")
    return blocks.chart(
        "parameters",
        f"{task}-{arm}-{which}",
        f"{arm} on {task}: {what}",
        f"{what} of {arm} on {task} over training; at the end: {'; '.join(ends)}.",
        form="lines",
        series=series,
        x="iteration",
        y=what,
        legend=[{"line": place + 1, "name": layer} for place, layer in enumerate(bands)],
        numbers=(
            f"{what} of {arm} on {task}, by layer.",
            ["layer", *(f"{when}, {end}" for when in ("first", "last") for end in (lower, upper)), "runs"],
            rows,
        ),
    )
