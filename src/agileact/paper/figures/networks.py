"""Figures 1, 3 and 10: the experiment's networks, drawn from the models that the study builds.

Sizes and numbers of parameters are read off a model and off one pass through it, so a drawing cannot differ from what
is trained. The text of doi 10.3745/KTSDE.2020.9.7.213 that we hold names these figures by number alone: what each
shows here is a (reading).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from agileact._common.optional import require
from agileact.nn import AgileModule
from agileact.paper.figures.run import written
from agileact.paper.figures.style import ACTIVATION, FAINT, INK, MUTED, WEIGHTS, new_figure
from agileact.study.models import fully_connected, paper_cnn
from agileact.study.spec.activation_names import PlainActivation
from agileact.study.spec.trial import ArmSpec

_IMAGE = (1, 28, 28)
_CLASSES = 10
_POOLED = "#009E73"


@dataclass(frozen=True)
class Stage:
    """A layer of a sequential network, as one pass of a sample found it.

    Attributes:
        name: The layer's name in the model.
        kind: "conv", "activation", "pooling", "flatten" or "dense".
        shape: The shape of what it returns for one sample.
        words: What it does, for a label.
        weights: Its number of weights and biases.
        pairs: Its number of pairs (a, b).
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    words: str
    weights: int = 0
    pairs: int = 0


def stages(model: nn.Module, input_shape: tuple[int, ...]) -> list[Stage]:
    """Return the layers of a sequential network, with the shape that each gives to a sample.

    Example:
        >>> arm = ArmSpec((("fc", "agile-sigmoid"),))
        >>> network = fully_connected(arm, (1, 28, 28), classes=10, seed=0)
        >>> [(stage.kind, stage.shape, stage.weights, stage.pairs) for stage in stages(network, (1, 28, 28))]
        [('flatten', (784,), 0, 0), ('dense', (30,), 23550, 0), ('activation', (30,), 0, 30), ('dense', (10,), 310, 0)]
    """
    found = []
    x = torch.zeros(1, *input_shape)
    with torch.no_grad():
        for name, module in model.named_children():
            x = module(x)
            found.append(_stage(name, module, tuple(x.shape[1:])))
    return found


def _stage(name: str, module: nn.Module, shape: tuple[int, ...]) -> Stage:
    count = sum(parameter.numel() for parameter in module.parameters())
    if isinstance(module, nn.Conv2d):
        height, width = module.kernel_size
        return Stage(name, "conv", shape, f"{module.out_channels} filters\n{height} × {width}", weights=count)
    if isinstance(module, nn.Linear):
        return Stage(name, "dense", shape, f"{module.out_features} nodes", weights=count)
    if isinstance(module, nn.MaxPool2d):
        return Stage(name, "pooling", shape, f"max pooling\n{module.kernel_size} × {module.kernel_size}")
    if isinstance(module, nn.Flatten):
        return Stage(name, "flatten", shape, "flatten")
    if isinstance(module, AgileModule):
        assert module.num_parameters is not None
        return Stage(name, "activation", shape, f"a f(x − b)\nf: {written(module.base)}", pairs=module.num_parameters)
    assert isinstance(module, PlainActivation)
    return Stage(name, "activation", shape, f"f(x)\nf: {written(module.base)}")


def figure_1() -> Any:
    """Draw the convolutional network with plain activations: what there was before anything became agile."""
    found = stages(paper_cnn(_arm(conv="relu", fc="sigmoid"), _IMAGE, _CLASSES, seed=0), _IMAGE)
    return _chain(
        found,
        "Figure 1. The convolutional network, with plain activations",
        "Convolution, activation and pooling, three times; then a hidden layer. An activation f has nothing to learn. "
        f"{_total(found)} Sizes read off the model that the study builds; drawing ours.",
    )


def figure_10() -> Any:
    """Draw the network of the experiment with agile activations, and how many pairs (a, b) each stage has."""
    found = stages(paper_cnn(_arm(conv="agile-relu", fc="agile-sigmoid"), _IMAGE, _CLASSES, seed=0), _IMAGE)
    return _chain(
        found,
        "Figure 10. The experiment's network, every activation agile",
        "One pair (a, b) for each filter and for each hidden node, learned in the same backward pass as filters and "
        f"weights, at a rate of its own. {_total(found)} Sizes read off the model that the study builds; drawing ours.",
    )


def figure_3() -> Any:
    """Draw the fully connected network of Fig. 11: each hidden node bends the linear estimate that it gets."""
    found = stages(fully_connected(_arm(fc="sigmoid"), _IMAGE, _CLASSES, seed=0), _IMAGE)
    inputs, hidden, _, output = (stage.shape[0] for stage in found)
    figure = new_figure(
        8.4,
        4.3,
        "Figure 3. The fully connected network: a linear estimate, then f",
        "Each hidden node m estimates ŷ = Σ w x + bias, equation (4), a plane over its inputs; f bends the plane; the "
        f"outputs add up bent planes. {_total(found)} Sizes read off the model that the study builds; drawing ours.",
    )
    axis = _canvas(figure, (0, 10), (-2.7, 2.9))
    # Six nodes of each column are drawn, the others meant.
    heights = [2.0 - 0.7 * index - (0.5 if index > 2 else 0.0) for index in range(6)]
    columns = (
        (1.0, inputs, "inputs: 28 × 28 pixels"),
        (5.0, hidden, "hidden nodes: ŷ, then f(ŷ)"),
        (9.0, output, "outputs"),
    )
    for (left, _, _), (right, _, _) in itertools.pairwise(columns):
        for start in heights:
            for end in heights:
                axis.plot([left, right], [start, end], color=FAINT, linewidth=0.5, zorder=1)
    for x, count, words in columns:
        for y in heights:
            if x == 5.0:
                _bent_node(axis, x, y)
            else:
                axis.scatter([x], [y], s=90, color="white", edgecolor=INK, linewidth=1.2, zorder=3)
        axis.text(x, sum(heights) / 6, "⋮", ha="center", va="center", color=INK, fontsize=11)
        axis.text(x, 2.6, f"{count}", ha="center", va="center", color=INK, fontsize=10, weight="bold")
        axis.text(x, -2.6, words, ha="center", va="center", color=INK, fontsize=9)
    for x, stage in ((3.0, found[1]), (7.0, found[3])):
        axis.text(x, 2.6, f"{stage.weights:,} weights and biases", ha="center", va="center", color=WEIGHTS, fontsize=8)
    return figure


def _arm(**roles: str) -> ArmSpec:
    return ArmSpec(tuple(roles.items()))


def _total(found: list[Stage]) -> str:
    weights, pairs = sum(stage.weights for stage in found), sum(stage.pairs for stage in found)
    return f"In all {weights:,} weights and biases" + (f" and {pairs} pairs." if pairs else ".")


def _canvas(figure: Any, xlim: tuple[float, float], ylim: tuple[float, float]) -> Any:
    axis = figure.subplots()
    axis.set(xlim=xlim, ylim=ylim)
    axis.axis("off")
    return axis


def _bent_node(axis: Any, x: float, y: float) -> None:
    """Draw a node in two halves: a straight line for the estimate, a bent one for the activation."""
    axis.scatter([x], [y], s=420, color="white", edgecolor=WEIGHTS, linewidth=1.2, zorder=3)
    axis.plot([x - 0.12, x - 0.02], [y - 0.1, y + 0.1], color=INK, linewidth=1.2, zorder=4)
    t = torch.linspace(-1, 1, 30)
    axis.plot(x + 0.07 + 0.055 * t, y + 0.2 * (torch.sigmoid(5 * t) - 0.5), color=ACTIVATION, linewidth=1.4, zorder=4)


def _chain(found: list[Stage], title: str, caption: str) -> Any:
    """Draw stages from left to right in two rows: the convolutional part, then the fully connected one."""
    figure = new_figure(11.4, 5.4, title, caption)
    axis = _canvas(figure, (0, 25), (-6.4, 4.2))
    split = next(index for index, stage in enumerate(found) if stage.kind == "flatten")
    step, left = 2.5, 1.2
    _boxes(axis, [Stage("image", "image", _IMAGE, "image"), *found[:split]], y=1.6, left=left, step=step)
    _boxes(axis, found[split:], y=-4.2, left=step + left, step=2 * step)
    # From the end of the first row down, back, and to the start of the second.
    end = left + step * split
    axis.plot([end, end, left, left], [-0.75, -1.35, -1.35, -4.2], color=MUTED, linewidth=1.0)
    axis.annotate("", (step + left - 0.3, -4.2), (left, -4.2), arrowprops=_ARROW)
    return figure


_ARROW = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}
_COLORS = {"conv": WEIGHTS, "dense": WEIGHTS, "activation": ACTIVATION, "pooling": _POOLED}


def _boxes(axis: Any, row: list[Stage], *, y: float, left: float, step: float) -> None:
    before = 0.0
    for index, stage in enumerate(row):
        x = left + step * index
        color = _COLORS.get(stage.kind, MUTED)
        half = _maps(axis, x, y, stage.shape, color) if len(stage.shape) == 3 else _column(axis, x, y, stage, color)
        if index:
            axis.annotate("", (x - half - 0.08, y), (x - step + before + 0.08, y), arrowprops=_ARROW)
        before = half
        axis.text(x, y - 1.45, stage.words, ha="center", va="top", color=color, fontsize=7.6, linespacing=1.25)
        size = " × ".join(map(str, stage.shape))
        axis.text(x, y + 1.3, size, ha="center", va="bottom", color=INK, fontsize=7.6)
        note = (
            f"{stage.pairs} pairs (a, b)"
            if stage.pairs
            else f"{stage.weights:,} weights\nand biases"
            if stage.weights
            else ""
        )
        weight = "bold" if stage.pairs else "normal"
        axis.text(x, y + 1.75, note, ha="center", va="bottom", color=color, fontsize=7.6, weight=weight)


def _maps(axis: Any, x: float, y: float, shape: tuple[int, ...], color: str) -> float:
    """Draw a stack of feature maps, as large as their side says; return half of its width."""
    patches = require("matplotlib.patches", "paper")
    count, side = min(shape[0], 4), 0.45 + 1.15 * shape[1] / _IMAGE[1]
    shift = 0.13
    for layer in reversed(range(count)):
        offset = shift * (layer - (count - 1) / 2)
        corner = (x - side / 2 + offset, y - side / 2 + offset)
        axis.add_patch(patches.Rectangle(corner, side, side, facecolor="white", edgecolor=color, linewidth=1.1))
    return side / 2 + shift * (count - 1) / 2


def _column(axis: Any, x: float, y: float, stage: Stage, color: str) -> float:
    """Draw a vector as a column of nodes; return half of its width."""
    for index in range(5):
        axis.scatter([x], [y + 1.1 - 0.55 * index], s=34, color="white", edgecolor=color, linewidth=1.1, zorder=3)
    return 0.25
