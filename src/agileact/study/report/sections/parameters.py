"""Scale and location of every layer over training (the paper's Fig. 14)."""

from __future__ import annotations

from agileact.study.report.blocks import Block, cell, chart, choice, grid, numbers, of_tasks, task_section, thin
from agileact.study.results.outcome import Outcome
from agileact.study.results.trajectories import LayerBand, layer_bands

_LETTERS = {"scale": "a", "location": "b"}


def parameters(outcome: Outcome) -> Block:
    """Return the section: a choice of arm for each task, and a chart for a and one for b."""

    def pick(task: str) -> Block | None:
        options = {
            found.arm: [grid([_chart(task, found.arm, which, bands) for which in _LETTERS], wide=True)]
            for _, found in outcome.of_task(task)
            if (bands := layer_bands(found.results))
        }
        return choice(f"parameters-{task}", f"{task}: arm", options)

    title = "Scale a and location b over training"
    otherwise = "No finished trial has an activation with a learned scale and location."
    text = (
        "For each layer the band reaches from its smallest to its largest channel, each a mean over seeds. In "
        "a f(x - b), a starts at 1 and b at 0 unless the arm says otherwise."
    )
    return task_section("parameters", title, text, of_tasks(outcome, pick), outcome, otherwise)


def _chart(task: str, arm: str, which: str, bands: dict[str, LayerBand]) -> Block:
    series, rows, ends = [], [], []
    for place, (layer, band) in enumerate(bands.items()):
        low, high = getattr(band, f"{which}_min"), getattr(band, f"{which}_max")
        places = thin(len(low))
        series.append(
            {
                "line": place + 1,
                "name": layer,
                "x": [band.iterations[n] for n in places],
                "low": numbers([low[n] for n in places]),
                "high": numbers([high[n] for n in places]),
            }
        )
        rows.append(
            [
                cell(layer),
                *(cell(f"{value:.4g}", value) for value in (low[0], high[0], low[-1], high[-1])),
                cell(str(band.runs), band.runs),
            ]
        )
        ends.append(f"{layer} from {low[-1]:.3g} to {high[-1]:.3g}")
    letter = _LETTERS[which]
    return chart(
        "parameters",
        f"{task}-{arm}-{which}",
        f"{arm} on {task}: {which} {letter}",
        f"{which} {letter} of {arm} on {task} over training; at the end: {'; '.join(ends)}.",
        form="lines",
        series=series,
        x="iteration",
        y=f"{which} {letter}",
        legend=[{"line": place + 1, "name": layer} for place, layer in enumerate(bands)],
        numbers=(
            f"{which} {letter} of {arm} on {task}, smallest and largest channel.",
            ["layer", "first, smallest", "first, largest", "last, smallest", "last, largest", "runs"],
            rows,
        ),
    )
