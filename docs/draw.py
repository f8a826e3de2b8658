"""Draw the pictures of README and site: what a and b do, what they change, and the paper's figures of networks.

    python docs/draw.py            # the README's picture, into docs/images/
    python docs/draw.py --all DIR  # every picture of the site, into DIR

`make docs` draws all of them while it builds, so that none is ever older than the code. Needs matplotlib
(``pip install "agileact[paper]"``).
"""

from __future__ import annotations

import argparse
import csv
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agileact._common.files import write_atomically
from agileact._common.optional import require
from agileact.functional import agile
from agileact.paper.figures.draw import draw_networks, render
from agileact.paper.figures.run import Run
from agileact.paper.figures.style import ACTIVATION, FAINT, INK, MUTED, WEIGHTS, new_figure, rc, settle, shade
from agileact.paper.figures.xor_surfaces import figure_4
from agileact.paper.xor import XorSpec, run_xor

HERE = Path(__file__).resolve().parent
PAPER = "#fcfcfa"  # the ground of the README's picture: opaque, so that it reads on a dark page, too


def values(x: Tensor, base: str, scale: float = 1.0, location: float = 0.0) -> Tensor:
    """Return a f(x - b) of numbers along a line."""
    return agile(x.view(-1, 1), torch.tensor([scale]), torch.tensor([location]), base=base).flatten()


def agile_activation() -> Any:
    """Draw what an agile activation is, with a and b marked, and where they go when a model is folded."""
    figure = require("matplotlib.figure", "paper").Figure(figsize=(10.0, 3.9), facecolor=PAPER)
    figure.set_layout_engine("none")
    figure.suptitle("")
    left = figure.add_axes((0.045, 0.14, 0.36, 0.75), facecolor=PAPER)
    x = torch.linspace(-5, 9, 400)
    a, b = 1.7, 2.0
    left.plot(x, values(x, "sigmoid"), color=MUTED, linewidth=2.2)
    left.plot(x, values(x, "sigmoid", a, b), color=ACTIVATION, linewidth=2.6)
    left.text(5.0, 0.83, "f(x)", color=MUTED, fontsize=12, weight="bold")
    left.text(4.9, 1.42, "a·f(x − b)", color=ACTIVATION, fontsize=12, ha="left", weight="bold")
    double = {"arrowstyle": "<|-|>", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    left.plot([0, 0, b, b], [0.5, 1.3, 1.3, a / 2], color=FAINT, linewidth=0.9, linestyle=(0, (3, 2)))
    left.annotate("", (b, 1.3), (0, 1.3), arrowprops=double)
    left.text(b / 2, 1.36, "b", ha="center", fontsize=13, color=INK, weight="bold")
    left.annotate("", (8.6, a), (8.6, 0), arrowprops=double)
    left.text(8.35, 0.62, "a", ha="right", fontsize=13, color=INK, weight="bold")
    left.set(xlabel="x", xlim=(-5, 9), ylim=(-0.06, 1.95), yticks=[0, 1], xticks=[0])
    left.set_title("a and b: learned, a pair per filter or node", fontsize=11, color=INK)
    _fold(figure.add_axes((0.45, 0.04, 0.545, 0.93)))
    return figure


def _fold(axis: Any) -> None:
    patches = require("matplotlib.patches", "paper")
    axis.set(xlim=(0, 12), ylim=(0, 8))
    axis.axis("off")

    def box(x: float, y: float, width: float, words: str, color: str) -> None:
        axis.add_patch(
            patches.FancyBboxPatch(
                (x, y - 0.62), width, 1.24, boxstyle="round,pad=0.05", facecolor="white", edgecolor=color, linewidth=1.5
            )
        )
        axis.text(x + width / 2, y, words, ha="center", va="center", color=color, fontsize=10.5, linespacing=1.35)

    def arrow(start: tuple[float, float], end: tuple[float, float], **look: Any) -> None:
        style = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0, **look}
        axis.annotate("", end, start, arrowprops=style)

    for y, above, title, words, color in (
        (6.3, 1.05, "Train: the activation is agile", ("W u + c", "a·f(x − b)", "V h + d"), ACTIVATION),
        (
            2.5,
            -1.05,
            "Ship: folded, a plain network with the same outputs",
            ("W u + (c − b)", "f(x)", "(V·a) h + d"),
            MUTED,
        ),
    ):
        axis.text(0.35, y + above, title, fontsize=11, color=INK, va="bottom" if above > 0 else "top")
        box(0.4, y, 3.1, words[0], WEIGHTS)
        box(4.6, y, 2.7, words[1], color)
        box(8.4, y, 3.1, words[2], WEIGHTS)
        arrow((3.6, y), (4.5, y))
        arrow((7.4, y), (8.3, y))
    curve = {"color": ACTIVATION, "linestyle": (0, (4, 2))}
    arrow((5.2, 5.6), (3.0, 3.25), connectionstyle="arc3,rad=-0.12", **curve)
    arrow((6.7, 5.6), (9.0, 3.25), connectionstyle="arc3,rad=0.12", **curve)
    axis.text(3.3, 4.5, "b into the bias", ha="right", color=ACTIVATION, fontsize=10)
    axis.text(8.7, 4.5, "a into the weights", ha="left", color=ACTIVATION, fontsize=10)


def size_and_position() -> Any:
    """Draw families over a and over b, and what the gradients of a and b look at."""
    figure = new_figure(
        10.4,
        6.0,
        "What a and b do, and what their gradients see",
        "Black: a = 1, b = 0, f itself and the start. Right: the derivatives of a f(x − b) by a and by b for "
        "a = 1.5, b = 1. The gradient of a weighs each value by f, that of b by the slope. Computed by "
        "agileact.functional.agile and autograd.",
    )
    x = torch.linspace(-6, 6, 601)
    for row, base in zip(figure.subplots(2, 3), ("sigmoid", "relu"), strict=True):
        name = {"sigmoid": "sigmoid", "relu": "ReLU"}[base]
        for axis, symbol, steps in (
            (row[0], "a", (-1.0, 0.5, 1.0, 1.5, 2.0)),
            (row[1], "b", (-2.0, -1.0, 0.0, 1.0, 2.0)),
        ):
            for value, lightness in zip(steps, (0.62, 0.4, 0.0, -0.3, -0.6), strict=True):
                start = value == (1.0 if symbol == "a" else 0.0)
                y = values(x, base, value, 0.0) if symbol == "a" else values(x, base, 1.0, value)
                color = INK if start else shade(ACTIVATION if symbol == "a" else WEIGHTS, lightness)
                width, dashes = (2.2, "-") if start else (1.5, "-" if lightness < 0 else (0, (4, 1.6)))
                label = f"{symbol} = {value:g}".replace("-", "−")
                axis.plot(x, y, color=color, linewidth=width, linestyle=dashes, label=label)
            axis.set_title(f"{name}: {symbol} {'scales' if symbol == 'a' else 'moves'} it")
            axis.set(xlabel="x", ylabel="a f(x − b)")
            axis.legend(loc="upper left")
        _derivatives(row[2], x, base, name)
    return figure


def _derivatives(axis: Any, x: Tensor, base: str, name: str) -> None:
    point = x.to(torch.float64).view(-1, 1)
    a = torch.full_like(point, 1.5).requires_grad_()
    b = torch.full_like(point, 1.0).requires_grad_()
    value = agile(point, a.flatten(), b.flatten(), base=base, dim=0)
    da, db = (gradient.flatten() for gradient in torch.autograd.grad(value.sum(), (a, b)))
    jump = db.diff().abs() > 0.3
    db[1:][jump] = float("nan")
    axis.plot(x, da, color=ACTIVATION, label="by a: f(x − b)")
    axis.plot(x, db, color=WEIGHTS, linestyle=(0, (4, 1.6)), label="by b: −a f′(x − b)")
    axis.set_title(f"{name}: derivatives")
    axis.set(xlabel="x", ylabel="d a f(x − b)")
    axis.legend(loc="upper left")


RATE, STEPS = 0.1, 60
START = (0.5, -1.8)


def _descend(scale: float | None) -> np.ndarray[Any, Any]:
    """Return the folded coordinates (V', c') along gradient descent, of a plain unit or of one that starts at a."""
    goal = 1.6 * torch.sigmoid(_INPUTS - 1.2)
    outer, bias = torch.tensor(START[0] / (scale or 1.0)), torch.tensor(START[1])
    size, place = torch.tensor(scale or 1.0), torch.tensor(0.0)
    numbers = [number.requires_grad_() for number in (outer, bias, size, place)]
    learned = numbers[:2] if scale is None else numbers
    path = []
    for _ in range(STEPS + 1):
        outer, bias, size, place = numbers
        path.append([float((outer * size).detach()), float((bias - place).detach())])
        loss = (outer * size * torch.sigmoid(_INPUTS + bias - place) - goal).square().mean()
        for number, gradient in zip(learned, torch.autograd.grad(loss, learned), strict=True):
            number.data -= RATE * gradient
    return np.array(path)


_INPUTS = torch.linspace(-3, 3, 41)


def redundant_steps() -> Any:
    """Draw one loss, and the ways of three networks that compute the same functions and start from the same one."""
    figure = new_figure(
        8.6,
        5.0,
        "The same functions, the same start, other steps",
        f"A unit V′ sigmoid(x + c′) is fitted to 1.6 sigmoid(x − 1.2) by {STEPS} steps of gradient descent at one "
        f"rate ({RATE:g}); a mark every ten steps. The agile unit V a sigmoid(x + c − b) is drawn in its folded "
        "coordinates V′ = V a, c′ = c − b. One example that shows that steps differ; not that one is better.",
    )
    axis = figure.subplots()
    v, c = np.meshgrid(np.linspace(0.4, 2.1, 121), np.linspace(-1.95, -0.75, 121))
    inputs = _INPUTS.numpy()
    goal = 1.6 / (1 + np.exp(-(inputs - 1.2)))
    height = ((v[..., None] / (1 + np.exp(-(inputs + c[..., None]))) - goal) ** 2).mean(-1)
    axis.contour(v, c, height, levels=np.geomspace(1e-4, 0.3, 16), colors=[FAINT], linewidths=0.8)
    for scale, color, dashes, marker, label in (
        (None, INK, "-", "o", "plain"),
        (1.0, ACTIVATION, (0, (5, 1.5)), "s", "agile, start a = 1"),
        (2.0, WEIGHTS, (0, (2, 1.2)), "^", "agile, start a = 2, V halved"),
    ):
        path = _descend(scale)
        axis.plot(*path.T, color=color, linestyle=dashes, marker=marker, markevery=10, markersize=5, label=label)
    axis.plot(1.6, -1.2, marker="*", markersize=14, color="#009E73", linestyle="none", label="least loss")
    axis.set(
        xlabel="V′, the weight that leaves the unit", ylabel="c′, the unit's bias", xlim=(0.4, 2.1), ylim=(-1.95, -0.75)
    )
    axis.grid(False)
    axis.legend(loc="upper left", frameon=True)
    return figure


def negative_scale() -> Any:
    """Draw why a negative scale does not pass max pooling."""
    figure = new_figure(
        8.6,
        3.2,
        "A scale passes max pooling if it is positive",
        "Four values of f in one window. With a = 2 the largest stays the largest, and 2 max f = max 2f. With a = −1 "
        "the smallest becomes the largest: max(−f) is −min f, which is not −max f. fold leaves such a scale in place.",
    )
    f = np.array([0.3, 1.0, 0.5, 0.7])
    for axis, a, equal in zip(figure.subplots(1, 2), (2.0, -1.0), ("=", "≠"), strict=True):
        place = np.arange(4)
        axis.bar(place - 0.2, f, 0.38, color=FAINT, label="f")
        axis.bar(place + 0.2, a * f, 0.38, color=shade(ACTIVATION, 0.35), label="a f")
        top = int((a * f).argmax())
        axis.bar(top + 0.2, a * f[top], 0.38, color=ACTIVATION, label="max of a f")
        left, right = a * f.max(), (a * f).max()
        words = f"a = {a:g}:  a · max f = {left:g}  {equal}  max a f = {right:g}".replace("-", "−")
        axis.set_title(words)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set(xticks=[], ylim=(-1.25, 2.3))
        axis.legend(loc="lower left" if a > 0 else "upper left", ncols=3)
    return figure


def direction_size_position() -> Any:
    """Draw one ReLU unit of two inputs in polar coordinates: what direction, size and position each move."""
    figure = new_figure(
        9.6,
        3.9,
        "One unit: direction, size, position",
        "A ReLU unit a max(0, w·x − b) of two inputs. Colours are its output, the line is where it bends, the arrow "
        "its direction w. Then one of the three is changed. A plain unit mixes them: its row of weights is direction "
        "times size, and it bends where its bias divided by the row's length says.",
    )
    grid = torch.linspace(-2, 2, 81)
    x, y = torch.meshgrid(grid, grid, indexing="xy")
    for axis, (name, angle, a, b) in zip(
        figure.subplots(1, 4, sharex=True, sharey=True),
        (
            ("a unit", 35.0, 1.0, 0.3),
            ("another direction", 100.0, 1.0, 0.3),
            ("another size", 35.0, 2.0, 0.3),
            ("another position", 35.0, 1.0, 1.1),
        ),
        strict=True,
    ):
        w = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
        height = a * (w[0] * x + w[1] * y - b).clamp(min=0)
        axis.contourf(x, y, height, levels=np.linspace(0.001, 6, 25), cmap="Purples", extend="max")
        along, foot = np.array([-w[1], w[0]]), b * w
        bend = np.stack([foot - 4 * along, foot + 4 * along])
        axis.plot(*bend.T, color=INK, linewidth=1.4)
        axis.annotate(
            "",
            w,
            (0, 0),
            arrowprops={"arrowstyle": "-|>", "color": WEIGHTS, "linewidth": 2.0, "shrinkA": 0, "shrinkB": 0},
        )
        axis.set(xlim=(-2, 2), ylim=(-2, 2), xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal", title=name)
        axis.grid(False)
    return figure


def _finals(study: str) -> list[dict[str, str]]:
    with (HERE / "studies" / "results" / f"{study}.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["phase"] == "final" and row["test_loss"]]


def _replicates(axis: Any, rows: list[dict[str, str]], arms: list[str]) -> None:
    """Draw the test loss of each replicate as a dot and their mean as a line, an arm a row."""
    for place, arm in enumerate(arms):
        losses = [float(row["test_loss"]) for row in rows if row["arm"] == arm]
        color = ACTIVATION if "agile" in arm else MUTED
        axis.plot(losses, [place] * len(losses), "o", color=color, markersize=4, alpha=0.45, markeredgewidth=0)
        axis.plot([np.mean(losses)] * 2, [place - 0.32, place + 0.32], color=color, linewidth=2.4)
    axis.set(yticks=range(len(arms)), yticklabels=arms, ylim=(len(arms) - 0.5, -0.5), xlabel="test loss")


_DOTS = (
    "Test loss of tuned networks on 3,500 digits. A dot is a replicate: its own split, tuning and seed. A line is the "
    "mean of "
)


def study_where() -> Any:
    """Draw plain beside agile for each base function and depth of the study "where"."""
    figure = new_figure(9.6, 4.6, "Agile beside plain, by depth", f"{_DOTS}ten. Scales differ from panel to panel.")
    tasks = ("one-layer", "three-layers", "ten-layers")
    for axes, base in zip(figure.subplots(3, 3), ("sigmoid", "tanh", "relu"), strict=True):
        rows = _finals(f"where-{base}")
        for axis, task in zip(axes, tasks, strict=True):
            _replicates(axis, [row for row in rows if row["task"] == task], [base, f"agile-{base}"])
            low, high = axis.get_xlim()
            if high - low < 0.02:  # no network learned: rounding is no spread
                axis.set_xlim(low - 0.05, high + 0.05)
            axis.locator_params(axis="x", nbins=4)
            axis.set(title=task if base == "sigmoid" else "", xlabel="test loss" if base == "relu" else "")
            if task != tasks[0]:
                axis.set(yticklabels=[])
    return figure


def study_every_arm() -> Any:
    """Draw each arm of the study "every arm", the lowest mean first."""
    rows, losses = _finals("every-arm"), dict[str, list[float]]()
    for row in rows:
        losses.setdefault(row["arm"], []).append(float(row["test_loss"]))
    figure = new_figure(8.0, 4.4, "Activations on three layers", f"{_DOTS}ten.")
    _replicates(figure.subplots(), rows, sorted(losses, key=lambda arm: np.mean(losses[arm])))
    return figure


def study_paper_arms() -> Any:
    """Draw agile beside plain convolutions of the paper's network."""
    rows = [row for base in ("sigmoid", "relu") for row in _finals(f"paper-arms-{base}")]
    figure = new_figure(8.0, 2.4, "The paper's network: convolutions / hidden layer", f"{_DOTS}six.")
    _replicates(figure.subplots(), rows, list(dict.fromkeys(row["arm"] for row in rows)))
    return figure


def xor_surfaces() -> Any:
    """Draw Figure 4 from a small XOR experiment."""
    return figure_4(Run.of([], "XOR", run_xor(XorSpec(starts=4, epochs=400, lr=0.1))))


def recipe_study() -> Any:
    """Draw how much more test loss each main rival of the recipe has, on each task of its study."""
    tables = runpy.run_path(str(HERE / "studies" / "tables.py"))
    tasks, rivals = tables["RECIPE"], tables["RIVALS"]
    figure = new_figure(
        9.6,
        1.6 + 0.3 * len(tasks),
        "The recipe beside its rivals",
        "Test loss of the rival over that of the recipe. A dot is a replicate, with its own split, tuning and seed. A "
        "line is the geometric mean of all. Right of 1 the recipe is lower. A rival always over 3 is left out.",
    )
    pairs = tables["recipe_pairs"]()
    axes = figure.subplots(1, len(rivals), sharex=True, sharey=True, squeeze=False)[0]
    for axis, rival in zip(axes, rivals, strict=True):
        axis.axvline(1, color=ACTIVATION, linewidth=1.2)
        for place, task in enumerate(tasks):
            own, base = pairs.get((task, rival), ([], []))
            ratio = np.array(own) / np.array(base)
            if not ratio.size or ratio.min() > 3:
                continue
            axis.plot(ratio, [place] * len(ratio), "o", color=MUTED, markersize=4, alpha=0.5, markeredgewidth=0)
            middle = np.exp(np.log(ratio).mean())
            axis.plot([middle] * 2, [place - 0.32, place + 0.32], color=WEIGHTS, linewidth=2.4)
        axis.set(xscale="log", xticks=(0.5, 1, 2, 4), xticklabels=("0.5", "1", "2", "4"))
        axis.set_title(rival, fontsize=9.5)
        axis.minorticks_off()
    axes[0].set(yticks=range(len(tasks)), yticklabels=list(tasks.values()), ylim=(len(tasks) - 0.5, -0.5))
    return figure


PICTURES: dict[str, Callable[[], Any]] = {
    "agile-activation": agile_activation,
    "direction-size-position": direction_size_position,
    "negative-scale": negative_scale,
    "recipe-study": recipe_study,
    "redundant-steps": redundant_steps,
    "size-and-position": size_and_position,
    "study-every-arm": study_every_arm,
    "study-paper-arms": study_paper_arms,
    "study-where": study_where,
    "xor-surfaces": xor_surfaces,
}
README = "agile-activation"


def draw(names: list[str], out: Path) -> list[Path]:
    """Draw pictures by name as SVG; the same code gives the same files."""
    written = []
    for name in names:
        with rc():
            figure = PICTURES[name]()
            settle(figure)
            written.append(out / f"{name}.svg")
            write_atomically(written[-1], render(figure, "svg"))
    return written


def draw_site(out: Path) -> list[Path]:
    """Draw every picture of the site into a folder."""
    networks = draw_networks(out)
    return [*draw(list(PICTURES), out), *(path for path in networks if path.suffix == ".svg")]


def main() -> None:
    """Draw what the command line asks for."""
    parser = argparse.ArgumentParser(description="Draw the pictures of README and site.")
    parser.add_argument("--all", type=Path, metavar="DIR", help="every picture of the site, into this folder")
    options = parser.parse_args()
    for path in draw([README], HERE / "images") if options.all is None else draw_site(options.all):
        print(path)


if __name__ == "__main__":
    main()
