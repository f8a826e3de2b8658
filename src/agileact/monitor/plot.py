"""The monitor's picture: size and position by layer over the steps, and which units are lost."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from agileact._common.optional import require
from agileact.monitor.records import Record

_LAYERS_IN_A_ROW = 4
_INK, _MUTED = "#222222", "#666666"
_SCALE, _LOCATION = "#D55E00", "#0072B2"
# Told apart by hue, by dashes and by marker.
_SHARES: dict[tuple[str, str], tuple[str, Any, str]] = {
    ("activation", "dead"): (_INK, "-", "o"),
    ("activation", "saturated"): ("#8C6D00", (0, (4, 1.6)), "s"),
    ("scale", "flipped"): ("#A8488F", (0, (1.2, 1.2)), "^"),
}
LOOK: dict[str, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "figure.dpi": 150,
    "savefig.dpi": "figure",
}
"""What matplotlib draws all pictures of this package with."""

Traces = dict[tuple[str, str, str], tuple[list[int], list[float]]]


def draw(records: Sequence[Record], layers: Sequence[str], turned: Sequence[str] = ()) -> Any:
    """Return the figure of these layers, and of the rows of weights of those that are turned."""
    traces: Traces = defaultdict(lambda: ([], []))
    for record in records:
        steps, values = traces[record.layer, record.parameter, record.statistic]
        steps.append(record.step)
        values.append(record.value)
    figures, style = require("matplotlib.figure", "monitor"), require("matplotlib.style", "monitor")
    columns = min(len(layers), _LAYERS_IN_A_ROW)
    blocks = -(-len(layers) // columns)
    with style.context(LOOK, after_reset=True):
        height = 1.0 + 5.0 * blocks
        whole = figures.Figure(
            figsize=(max(5.5, 1.2 + 2.5 * columns), height + 3.0 * bool(turned)), layout="constrained"
        )
        figure, below = whole.subfigures(2, 1, height_ratios=(height, 3.0)) if turned else (whole, None)
        figure.suptitle("Size a and position b by layer", x=0.01, ha="left", color=_INK, fontsize=10.5)
        figure.supxlabel(
            "step\nline: median over a layer's units; dark band: half of them; light band: all; dotted: a = 1, b = 0",
            fontsize=8,
            color=_MUTED,
        )
        axes = figure.subplots(
            3 * blocks, columns, squeeze=False, sharex=True, gridspec_kw={"height_ratios": (3, 3, 1.6) * blocks}
        )
        shown: Any = ((), ())
        for index, layer in enumerate(layers):
            block, column = divmod(index, columns)
            top, middle, bottom = (axes[3 * block + row][column] for row in range(3))
            top.set_title(f"layer {layer}")
            _range(top, traces, layer, "scale", 1.0, _SCALE)
            _range(middle, traces, layer, "location", 0.0, _LOCATION)
            _lost(bottom, traces, layer)
            bottom.tick_params(labelbottom=True)
            shown = max(shown, bottom.get_legend_handles_labels(), key=lambda pair: len(pair[1]))
            if column == 0:
                for axis, words in ((top, "size a"), (middle, "position b"), (bottom, "share of units")):
                    axis.set_ylabel(words)
        for axis in axes[-3:, len(layers) - (blocks - 1) * columns :].flat:
            axis.set_visible(False)
        figure.legend(*shown, loc="upper right", ncols=len(_SHARES))
        if below is not None:
            _turned(below, traces, turned)
        whole.draw_without_rendering()
    return whole


def _turned(figure: Any, traces: Traces, layers: Sequence[str]) -> None:
    """Draw the angle per step and the length of the rows of each layer, a line a layer."""
    figure.suptitle("Rows of weights by layer", x=0.01, ha="left", color=_INK, fontsize=10.5)
    angles, lengths = figure.subplots(1, 2)
    angles.set_title("median angle turned by a step, radians")
    lengths.set_title("shortest and longest row")
    for index, layer in enumerate(layers):
        style = {"color": f"C{index % 10}", "linestyle": ("-", "--", ":")[index // 10 % 3]}
        angles.plot(*traces[layer, "direction", "angle_median"], label=layer, **style)
        for statistic in ("length_min", "length_max"):
            lengths.plot(*traces[layer, "direction", statistic], **style)
    for axis in (angles, lengths):
        axis.set_xlabel("step", fontsize=8, color=_MUTED)
    angles.set_ylim(bottom=0)
    low, high = lengths.get_ylim()
    lengths.set_ylim(min(low, 0.9), max(high, 1.1))  # or rounding fills the picture
    angles.legend(title="layer", ncols=-(-len(layers) // 6))


def _range(axis: Any, traces: Traces, layer: str, parameter: str, start: float, color: str) -> None:
    steps, middle = traces[layer, parameter, "median"]
    for low, high, alpha in (("min", "max", 0.16), ("q25", "q75", 0.3)):
        lower, upper = traces[layer, parameter, low][1], traces[layer, parameter, high][1]
        axis.fill_between(steps, lower, upper, color=color, alpha=alpha, linewidth=0)
    for end in ("min", "max"):
        axis.plot(steps, traces[layer, parameter, end][1], color=color, linewidth=0.6)
    axis.plot(steps, middle, color=color)
    axis.axhline(start, color=_INK, linewidth=0.9, linestyle=(0, (1, 1.5)))
    axis.set_xlim(0, max(1, steps[-1]))


def _lost(axis: Any, traces: Traces, layer: str) -> None:
    for (parameter, statistic), (color, dashes, marker) in _SHARES.items():
        if (layer, parameter, statistic) in traces:
            steps, values = traces[layer, parameter, statistic]
            axis.plot(
                steps, values, color=color, linestyle=dashes, label=statistic,
                marker=marker, markersize=3.5, markevery=max(1, len(steps) // 6), clip_on=False,
            )  # fmt: skip
    axis.set_ylim(0, 1)
