"""Figures 7 and 8: an agile activation inside a convolutional and inside a fully connected layer, forward and backward.

The maps of Figure 7 are computed by the experiment's network at its initial weights. The text of doi
10.3745/KTSDE.2020.9.7.213 that we hold names these figures by number alone: what each shows here is a (reading).
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agileact import bases, reference
from agileact._common.optional import require
from agileact.paper.figures.style import ACTIVATION, FAINT, INK, MUTED, WEIGHTS, new_figure
from agileact.study.models import paper_cnn
from agileact.study.spec.trial import ArmSpec

_SCALE, _LOCATION = 1.6, 0.15
"""An example of a and b; at the start of training they are 1 and 0."""

_FORWARD = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
_BACKWARD = {**_FORWARD, "color": MUTED, "linestyle": (0, (4, 2))}


def _network() -> nn.Module:
    arm = ArmSpec((("conv", "agile-relu"), ("fc", "agile-sigmoid")))
    return paper_cnn(arm, (1, 28, 28), classes=10, seed=0)


def _digit() -> Tensor:
    """Return a drawn 4 of 28 x 28 pixels, so that the figure needs no data set."""
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    here = torch.stack([rows, columns], dim=-1)
    image = torch.zeros(28, 28)
    for start, end in (((4.0, 12.0), (16.0, 6.0)), ((16.0, 6.0), (16.0, 22.0)), ((6.0, 17.0), (24.0, 17.0))):
        a, b = torch.tensor(start), torch.tensor(end)
        along = ((here - a) @ (b - a) / (b - a).square().sum()).clamp(0, 1)
        distance = (here - (a + along.unsqueeze(-1) * (b - a))).norm(dim=-1)
        image = torch.maximum(image, (2.2 - distance).clamp(0, 1))
    return image.view(1, 1, 28, 28)


def figure_7() -> Any:
    """Draw one filter's way through a convolutional layer: its map, the agile activation, pooling, and what returns."""
    weight, bias = (parameter.detach() for parameter in _network().get_submodule("conv1").parameters())
    image = _digit()
    z = reference.feature_map(image, weight, bias, padding=1)
    filters = len(weight)
    scale, location = torch.full((filters,), _SCALE), torch.full((filters,), _LOCATION)
    c = reference.agile_feature_map(z, scale, location, bases.get("relu"))
    pooled = F.max_pool2d(c, 2)
    # The filter that lets through most of what it sees.
    q = int(c.var((0, 2, 3)).argmax())
    figure = new_figure(
        11.0,
        4.7,
        f"Figure 7. One agile filter of a convolutional layer (first layer, filter {q + 1} of {filters})",
        "Solid: forward. Dashed: backward; δ = dL/dc. Filter: the initial weights at seed 0, untrained; image: drawn; "
        f"a = {_SCALE}, b = {_LOCATION}: an example, training starts at 1 and 0. The maps are computed by "
        "agileact.reference; red is positive, blue negative. Numbers in brackets: the paper's equations; drawing ours.",
    )
    grid = figure.add_gridspec(2, 5, height_ratios=(1.0, 0.42))
    axes = [figure.add_subplot(grid[0, column]) for column in range(5)]
    limit = float(max(z[0, q].abs().max(), c[0, q].abs().max()))
    signed = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    for index, values, look, title, size in (
        (0, image[0, 0], {"cmap": "Greys"}, "P: what comes in", "1 × 28 × 28"),
        (1, z[0, q], signed, "z = P ∗ F + bias   (3)", "28 × 28"),
        (3, c[0, q], signed, "c = a f(z − b)   (9)", "28 × 28"),
        (4, pooled[0, q], signed, "pooled: the next P", "14 × 14"),
    ):
        axes[index].imshow(values.numpy(), interpolation="nearest", **look)
        axes[index].set_title(title, loc="center")
        axes[index].set(xticks=[], yticks=[], xlabel=size)
        axes[index].grid(False)
    _curve(axes[2], limit)
    for left, right in itertools.pairwise(axes):
        figure.add_artist(
            require("matplotlib.patches", "paper").ConnectionPatch(
                (1.02, 0.5),
                (-0.02 if right is not axes[2] else -0.04, 0.5),
                "axes fraction",
                "axes fraction",
                axesA=left,
                axesB=right,
                **_FORWARD,
            )
        )
    _way_back(figure.add_subplot(grid[1, :]))
    return figure


def _curve(axis: Any, limit: float) -> None:
    x = torch.linspace(-limit, limit, 401)
    axis.plot(x, torch.relu(x), color=FAINT, linewidth=2.0)
    axis.plot(x, _SCALE * torch.relu(x - _LOCATION), color=ACTIVATION, linewidth=2.0)
    axis.text(limit, limit * 0.45, "f(z)", ha="right", color=MUTED, fontsize=8)
    axis.text(limit * 0.5, limit * 1.1, "a f(z − b)", ha="right", color=ACTIVATION, fontsize=8)
    axis.set(xlabel="z", ylim=(-0.25 * limit, 1.4 * limit), xticks=[0], yticks=[0])
    axis.set_title("one pair (a, b)", loc="center", color=ACTIVATION)
    axis.set_box_aspect(1)


def _way_back(axis: Any) -> None:
    """Draw the backward pass from right to left, each step under the panel that it belongs to."""
    axis.set(xlim=(0, 5), ylim=(-1.6, 0.4))
    axis.axis("off")
    for start, end in ((4.5, 3.6), (3.4, 2.6), (2.4, 1.6), (1.4, 0.6)):
        axis.annotate("", (end, 0.2), (start, 0.2), arrowprops=_BACKWARD)
    for x, words, color in (
        (3.5, "δ = dL/dc, where\npooling took its maximum", MUTED),
        (
            2.5,
            "dL/da = Σ δ f(z − b)   (11, 13)\ndL/db = −Σ δ a f′(z − b)   (12, 14)\nsteps (15), (16)",
            ACTIVATION,
        ),
        (1.42, "dL/dz = δ a f′(z − b)   (10)\nstep of the filter (5)", WEIGHTS),
        (0.5, "dL/dP, to the\nlayer before", MUTED),
    ):
        axis.text(x, -0.05, words, ha="center", va="top", color=color, fontsize=8, linespacing=1.4)


def figure_8() -> Any:
    """Draw one node of the hidden layer: its estimate, the agile activation, and what returns."""
    nodes, inputs = _network().get_submodule("fc1").get_parameter("weight").shape
    outputs = _network().get_submodule("output").get_parameter("weight").shape[0]
    last = str(inputs).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
    figure = new_figure(
        10.4,
        4.3,
        f"Figure 8. One agile node m of the hidden layer ({inputs} inputs, {nodes} nodes)",
        "Solid: forward. Dashed: backward; δ = dL/dh, L the loss of a batch; sums run over the batch. Numbers in "
        "brackets are the paper's equations; drawing ours.",
    )
    axis = figure.subplots()
    axis.set(xlim=(0, 13), ylim=(-3.1, 2.4))
    axis.axis("off")
    for index, name in enumerate(("x₁", "x₂", "⋮", f"x{last}")):
        y = 1.5 - index
        if name == "⋮":
            axis.text(0.6, y, name, ha="center", va="center", fontsize=12)
            continue
        _node(axis, 0.6, y, name, INK)
        axis.annotate("", (3.55, 0.12 * (1.5 - index)), (0.92, y), arrowprops=_FORWARD)
        axis.text(1.7, y * 0.72 + 0.2, f"w{name[1:]}", color=WEIGHTS, ha="center", fontsize=9)
    _node(axis, 4.0, 0, "Σ", WEIGHTS)
    axis.annotate("", (6.35, 0), (4.4, 0), arrowprops=_FORWARD)
    axis.text(5.35, 0.15, "ŷ = Σ w x + bias", ha="center", va="bottom", fontsize=9)
    axis.text(5.35, -0.15, "(17)", ha="center", va="top", fontsize=8, color=MUTED)
    _bend(axis)
    axis.annotate("", (11.2, 0), (8.75, 0), arrowprops=_FORWARD)
    axis.text(10.0, 0.15, "h = a f(ŷ − b)", ha="center", va="bottom", fontsize=9, color=ACTIVATION)
    axis.text(10.0, -0.15, "(7), (8)", ha="center", va="top", fontsize=8, color=MUTED)
    axis.text(11.35, 0, f"to each of\nthe {outputs} outputs", va="center", fontsize=9)
    for start, end, words in (
        (11.2, 8.75, "δ = dL/dh"),
        (6.35, 4.4, "dL/dŷ = δ a f′(ŷ − b)   (18)"),
        (3.55, 1.4, "dL/dw = dL/dŷ · x,\nstep (6)"),
    ):
        axis.annotate("", (end, -1.55), (start, -1.55), arrowprops=_BACKWARD)
        axis.text((start + end) / 2, -1.7, words, ha="center", va="top", fontsize=8.5, color=MUTED)
    axis.text(
        7.55,
        -2.1,
        "dL/da = Σ δ f(ŷ − b)   (19, 21)\ndL/db = −Σ δ a f′(ŷ − b)   (20, 22)\nsteps (23), (24)",
        ha="center",
        va="top",
        fontsize=8.5,
        color=ACTIVATION,
        linespacing=1.4,
    )
    return figure


def _node(axis: Any, x: float, y: float, text: str, color: str) -> None:
    axis.scatter([x], [y], s=520, color="white", edgecolor=color, linewidth=1.4, zorder=3)
    axis.text(x, y, text, ha="center", va="center", color=color, fontsize=10, zorder=4)


def _bend(axis: Any) -> None:
    """Draw the activation of the node: f, and a f(x - b) with its a and b."""
    patches = require("matplotlib.patches", "paper")
    axis.add_patch(patches.Rectangle((6.4, -1.15), 2.3, 2.3, facecolor="white", edgecolor=ACTIVATION, linewidth=1.4))
    t = torch.linspace(-6, 6, 200)
    x = 7.55 + t * 0.17
    axis.plot(x, -0.85 + 1.1 * torch.sigmoid(t), color=FAINT, linewidth=2.0, zorder=4)
    axis.plot(x, -0.85 + 1.1 * 1.5 * torch.sigmoid(t - 1.5), color=ACTIVATION, linewidth=2.0, zorder=4)
    words = "a sigmoid(ŷ − b): one pair for this node"
    axis.text(7.55, 1.3, words, ha="center", va="bottom", fontsize=9, color=ACTIVATION)
