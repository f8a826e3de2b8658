"""Figure 14: how size and position move during training, by layer (doi 10.3745/KTSDE.2020.9.7.213)."""

from __future__ import annotations

from typing import Any

from agileact.paper.figures.run import Combination, NothingToDrawError, Run, band, is_agile, score
from agileact.paper.figures.style import ACTIVATION, INK, LEGEND_RIGHT, WEIGHTS, new_figure
from agileact.study.spec.result import TrialResult

_LAYERS_IN_A_ROW = 4
_QUANTITIES = (("scale", "size a", 1.0, ACTIVATION), ("location", "position b", 0.0, WEIGHTS))


def figure_14(run: Run) -> Any:
    """Draw smallest and largest a and b over training, by layer, of the best combination with agile layers."""
    networks = run.convolutional
    if not networks.groups:
        raise NothingToDrawError("no convolutional trials in these results")
    agile = networks.where(lambda _, trials: is_agile(trials))
    if not agile.groups:
        raise NothingToDrawError("no combination in these results has agile layers")
    combination = agile.ranked[0]
    trials = agile.groups[combination]
    return _draw(agile, combination, trials)


def _draw(run: Run, combination: Combination, trials: list[TrialResult]) -> Any:
    layers = list(trials[0].layers)
    columns = min(len(layers), _LAYERS_IN_A_ROW)
    blocks = -(-len(layers) // columns)
    kept = Run(run.dataset, {combination: trials}, run.diverged)
    lines = "smallest and largest over the layer's filters or nodes, mean over seeds" if len(trials) > 1 else (
        "smallest and largest over the layer's filters or nodes"
    )  # fmt: skip
    thin = " Thin: each seed." if len(trials) > 1 else ""
    figure = new_figure(
        max(6.0, 1.0 + 2.5 * columns),
        1.2 + 4.2 * blocks,
        f"Figure 14. Size a and position b over training: {combination.label}",
        f"{kept.source} The combination with agile layers whose lowest test loss is best (mean over seeds "
        f"{score(trials):.4f}). Lines: {lines}.{thin} Dotted: the start, a = 1 and b = 0.",
    )
    axes = figure.subplots(2 * blocks, columns, squeeze=False, sharex=True, sharey="row")
    for index, layer in enumerate(layers):
        for row, (quantity, words, start, color) in enumerate(_QUANTITIES):
            axis = axes[2 * (index // columns) + row][index % columns]
            _draw_trace(axis, trials, layer, quantity, start, color)
            if row == 0:
                axis.set_title(f"layer {layer}")
            else:
                axis.set_xlabel("iteration")
            axis.tick_params(labelbottom=row == 1)
            if index % columns == 0:
                axis.set_ylabel(words)
            if index % columns == columns - 1 or index == len(layers) - 1:
                axis.legend(**LEGEND_RIGHT, title=words, alignment="left")
    for index in range(len(layers), blocks * columns):
        for row in (0, 1):
            axes[2 * (index // columns) + row][index % columns].set_visible(False)
    return figure


def _draw_trace(axis: Any, trials: list[TrialResult], layer: str, quantity: str, start: float, color: str) -> None:
    for end, dashes in (("max", "-"), ("min", (0, (4, 1.6)))):
        data = band(trials, lambda trial, end=end: getattr(trial.layers[layer], f"{quantity}_{end}"))  # type: ignore[misc]
        if data is None:
            continue
        if len(data.values) > 1:
            axis.plot(data.iteration, data.values.T, color=color, linewidth=0.5, alpha=0.4, linestyle=dashes)
        axis.plot(
            data.iteration, data.mean, color=color, linestyle=dashes, label="largest" if end == "max" else "smallest"
        )
    axis.axhline(start, color=INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
    axis.set_xlim(0, None)
