"""Draw every figure that the results have data for, and write it as PNG and SVG."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agileact._common.files import write_atomically
from agileact.paper.figures.networks import figure_1, figure_3, figure_7, figure_8, figure_10
from agileact.paper.figures.run import NothingToDrawError, Run
from agileact.paper.figures.shapes import figure_2, figure_6
from agileact.paper.figures.steps import figure_5, figure_9
from agileact.paper.figures.style import rc, settle
from agileact.paper.figures.training import figure_11, figure_12, figure_13, figure_14
from agileact.paper.figures.xor_surfaces import figure_4
from agileact.paper.xor import XorOutcome
from agileact.study.spec.result import TrialResult

FIGURES: dict[int, Callable[[Run], Any]] = {
    **{2: figure_2, 4: figure_4, 5: figure_5, 6: figure_6, 9: figure_9},
    **{11: figure_11, 12: figure_12, 13: figure_13, 14: figure_14},
}
"""The paper's figures that are redrawn, by number."""

NETWORKS: dict[int, Callable[[], Any]] = {1: figure_1, 3: figure_3, 7: figure_7, 8: figure_8, 10: figure_10}
"""The paper's drawings of networks, by number; they need no run."""

_FORMATS = ("png", "svg")


def draw_all(
    results: Sequence[TrialResult],
    out: Path,
    *,
    dataset: str,
    xor: XorOutcome | None = None,
    notify: Callable[[str], None] | None = None,
) -> list[Path]:
    """Draw the paper's figures from the results of one run.

    Each figure is written as ``figure-NN.png`` and ``figure-NN.svg``, whole or not at all; the same results
    give the same files. A figure whose data is missing is left out, ``notify`` is told why, and its files of an
    earlier run are removed, so that the folder never shows two runs as one. Only finished trials are drawn.
    """
    run = Run.of(results, dataset, xor)
    return [path for number in FIGURES for path in _draw(number, run, Path(out), notify)]


def draw_xor(outcome: XorOutcome, out: Path, *, notify: Callable[[str], None] | None = None) -> list[Path]:
    """Draw Figure 4 alone, from the outcome of the XOR experiment, as :func:`draw_all` would."""
    return _draw(4, Run.of([], "XOR", outcome), Path(out), notify)


def draw_networks(out: Path) -> list[Path]:
    """Draw the paper's Figures 1, 3, 7, 8 and 10 from the experiment's networks; no data enters."""
    return [path for number, draw in NETWORKS.items() for path in _written(number, draw, Path(out))]


def _draw(number: int, run: Run, out: Path, notify: Callable[[str], None] | None) -> list[Path]:
    try:
        return _written(number, lambda: FIGURES[number](run), out)
    except NothingToDrawError as reason:
        for path in _paths(number, out).values():
            path.unlink(missing_ok=True)
        if notify is not None:
            notify(f"figure {number}: left out, {reason}")
        return []


def _paths(number: int, out: Path) -> dict[str, Path]:
    return {form: out / f"figure-{number:02d}.{form}" for form in _FORMATS}


def _written(number: int, draw: Callable[[], Any], out: Path) -> list[Path]:
    paths = _paths(number, out)
    with rc():
        figure = draw()
        settle(figure)
        for form, path in paths.items():
            write_atomically(path, render(figure, form))
    return list(paths.values())


def render(figure: Any, form: str) -> bytes:
    """Return a figure as the bytes of a PNG or SVG file, without date and name of the program."""
    title = figure.get_suptitle()
    # matplotlib's own keys; None takes an entry out that would differ between days or versions.
    metadata = {"png": {"Software": None, "Title": title}, "svg": {"Date": None, "Creator": None, "Title": title}}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, metadata=metadata[form])
    return buffer.getvalue()
