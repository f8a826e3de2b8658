"""Scale and location of every layer over training (the paper's Fig. 14)."""

from __future__ import annotations

from agileact.study.report.blocks import Block, cell, chart, choice, grid, numbers, paragraph, section, table, thin
from agileact.study.report.facts import Facts
from agileact.study.results.trajectories import LayerBand, layer_bands

_LETTERS = {"scale": "a", "location": "b"}


def parameters(facts: Facts) -> Block:
    """Return the section: a choice of arm for each task, and a chart for a and one for b."""
    title = "Scale a and location b over training"
    content: list[Block] = []
    for task in facts.study.tasks:
        options: dict[str, list[Block]] = {}
        for arm, found in facts.of_task(task.name):
            bands = layer_bands(found.results)
            if bands:
                name = facts.arm_names[arm]
                options[name] = [grid([_chart(task.name, name, which, bands) for which in _LETTERS], wide=True)]
        if options:
            content.append(
                {**choice(f"parameters-{task.name}", f"{task.name}: arm", list(options), options), "task": task.name}
            )
    if not content:
        text = facts.why_nothing or "No finished trial has an activation with a learned scale and location."
        return section("parameters", title, [paragraph(text)])
    text = (
        "For each layer the band reaches from its smallest to its largest channel, each a mean over seeds. In "
        "a f(x - b), a starts at 1 and b at 0 unless the arm says otherwise."
    )
    return section("parameters", title, [paragraph(text), *content])


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
        f"parameters-{task}-{arm}-{which}",
        f"{arm} on {task}: {which} {letter}",
        f"{which} {letter} of {arm} on {task} over training; at the end: {'; '.join(ends)}.",
        form="lines",
        series=series,
        x="iteration",
        y=f"{which} {letter}",
        legend=[{"line": place + 1, "name": layer} for place, layer in enumerate(bands)],
        table=table(
            f"parameters-numbers-{task}-{arm}-{which}",
            f"{which} {letter} of {arm} on {task}, smallest and largest channel.",
            ["layer", "first, smallest", "first, largest", "last, smallest", "last, largest", "runs"],
            rows,
            numeric=range(1, 6),
        ),
    )
