"""The look that all figures share: fonts, colours, the caption line. Nothing global is changed.

Twelve lines must be told apart on a screen, in print without colour, and by readers who see colours
differently. So each combination carries its two parts in two independent marks each:

- convolutional activation: hue and line style,
- fully connected activation: lightness and marker.

The hues are those of M. Okabe and K. Ito, *Color universal design* (2008), the last one darkened.
"""

import itertools
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agileact._common.optional import require
from agileact.monitor.plot import LOOK
from agileact.paper.figures.run import Combination

RC: dict[str, Any] = {
    **LOOK,
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine draws the same letters
    "axes.labelsize": 9.0,
    "legend.title_fontsize": 8.5,
    "legend.handlelength": 3.2,
    "figure.titlesize": 11.5,
    "lines.markersize": 5.0,
    "svg.hashsalt": "agileact",  # else the ids in the SVG are random
    "svg.fonttype": "path",
}

INK = "#222222"
MUTED = "#666666"
FAINT = "#c9c9c9"
WEIGHTS = "#0072B2"
ACTIVATION = "#D55E00"

LEGEND_ABOVE: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
LEGEND_RIGHT: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}

Dashes = tuple[float, tuple[float, ...]]

_HUES: dict[str, tuple[str, Dashes]] = {
    "sigmoid": ("#0072B2", (0, (1.2, 1.2))),
    "agile-sigmoid": ("#009E73", (0, (6, 1.2, 1.2, 1.2))),
    "relu": ("#D55E00", (0, (4, 1.6))),
    "agile-relu": ("#A8488F", (0, ())),
}
_MORE_HUES: tuple[tuple[str, Dashes], ...] = (
    ("#8C6D00", (0, (8, 1.6))),
    ("#2F8FC4", (0, (3, 1.2, 1, 1.2, 1, 1.2))),
    ("#555555", (0, (2.4, 1.2))),
    ("#7A5230", (0, (10, 1.2, 3, 1.2))),
)
_SHADES: dict[str, tuple[float, str]] = {
    "relu": (0.45, "s"),
    "agile-relu": (0.0, "^"),
    "agile-sigmoid": (-0.45, "o"),
    "sigmoid": (0.2, "D"),
}
_MORE_SHADES: tuple[tuple[float, str], ...] = ((-0.2, "v"), (0.3, "P"), (-0.3, "X"), (0.1, "<"))


@dataclass(frozen=True)
class Look:
    """How one combination is drawn, in every figure."""

    color: tuple[float, float, float]
    linestyle: Dashes
    marker: str

    def line(self, points: int, offset: float) -> dict[str, Any]:
        """Return the options of a line over ``points`` points, with few markers, shifted by ``offset``."""
        every = max(1, points // 7)
        marks = {"markevery": (int(offset * every) % every, every), "markeredgecolor": "white", "markeredgewidth": 0.6}
        return {"color": self.color, "linestyle": self.linestyle, "marker": self.marker, **marks}


class Palette:
    """A fixed look for each combination; names beyond the paper's take the spare looks in sorted order."""

    def __init__(self, combinations: Iterable[Combination]) -> None:
        combinations = list(combinations)
        hues = sorted({combination.hue for combination in combinations} - set(_HUES))
        shades = sorted({combination.fc for combination in combinations} - set(_SHADES))
        self._hues = _HUES | dict(zip(hues, itertools.cycle(_MORE_HUES), strict=False))
        self._shades = _SHADES | dict(zip(shades, itertools.cycle(_MORE_SHADES), strict=False))

    def look(self, combination: Combination) -> Look:
        """Return the look of ``combination``."""
        hue, linestyle = self._hues.get(combination.hue, _MORE_HUES[0])
        lightness, marker = self._shades.get(combination.fc, _MORE_SHADES[0])
        if combination.conv is None:
            lightness = 0.0  # hue and line style already say which activation it is
        return Look(shade(hue, lightness), linestyle, marker)


def shade(color: str, lightness: float) -> tuple[float, float, float]:
    """Mix a colour with white (``lightness`` up to 1) or with black (down to -1)."""
    goal, share = float(lightness > 0), abs(lightness)
    red, green, blue = (round(c + (goal - c) * share, 4) for c in require("matplotlib.colors", "paper").to_rgb(color))
    return red, green, blue


def rc() -> Any:
    """Return the context in which figures are made and saved; outside of it nothing has changed.

    It starts from matplotlib's defaults, so that no settings of a user reach the figures.
    """
    return require("matplotlib.style", "paper").context(RC, after_reset=True)


def new_figure(width: float, height: float, title: str, caption: str) -> Any:
    """Return an empty figure, of inches, with its title, and its caption wrapped in a strip at the bottom."""
    lines = textwrap.wrap(caption, int(width * 15.5))
    strip = (0.14 * len(lines) + 0.12) / height
    figure = require("matplotlib.figure", "paper").Figure(figsize=(width, height))
    engine = require("matplotlib.layout_engine", "paper").ConstrainedLayoutEngine(
        rect=(0.006, strip, 0.988, 1 - strip), w_pad=0.05, h_pad=0.05, wspace=0.03, hspace=0.03
    )
    figure.set_layout_engine(engine)
    figure.suptitle(title, x=0.012, ha="left", color=INK)
    figure.text(
        0.012, 0.06 / height, "\n".join(lines), fontsize=7.5, color=MUTED, ha="left", va="bottom", linespacing=1.25
    )
    return figure


def settle(figure: Any) -> None:
    """Lay the figure out once and for all, on places rounded to a millionth of its size.

    The layout's solver may differ in the last digits from one call to the next, which would not be seen but
    would change the names inside an SVG.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        place = axis.get_position(original=True)
        axis.set_position([round(float(value), 6) for value in place.bounds])
    title = figure.texts[0]
    title.set_position([round(float(value), 6) for value in title.get_position()])
