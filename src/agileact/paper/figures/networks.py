"""Figures 1, 3, 7, 8 and 10: the experiment's networks and their layers, drawn from the models that the study builds.

Sizes and numbers of parameters are read off a model and off one pass through it, so a drawing cannot differ from what
is trained; the maps of Figure 7 are computed at its initial weights. The text of doi 10.3745/KTSDE.2020.9.7.213 that
we hold names these figures by number alone: what each shows here is a (reading).
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agileact import bases, reference
from agileact._common.optional import require
from agileact.nn import AgileModule
from agileact.paper.figures.run import written
from agileact.paper.figures.style import ACTIVATION, FAINT, INK, MUTED, WEIGHTS, new_figure
from agileact.study.models import fully_connected, paper_cnn
from agileact.study.spec.activation_names import PlainActivation
from agileact.study.spec.trial import ArmSpec

_IMAGE = (1, 28, 28)
_CLASSES = 10
_SCALE, _LOCATION = 1.6, 0.15
"""An example of a and b for Figure 7; at the start of training they are 1 and 0."""
_READ_OFF = "Sizes read off the model that the study builds; drawing ours."

_FORWARD = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
_BACKWARD = {**_FORWARD, "color": MUTED, "linestyle": (0, (4, 2))}
_STAGE = {**_FORWARD, "color": MUTED, "linewidth": 1.0}
_COLORS = {"conv": WEIGHTS, "dense": WEIGHTS, "activation": ACTIVATION, "pooling": "#009E73"}


@dataclass(frozen=True)
class Stage:
    """A layer of a sequential network as one pass found it: its kind, the shape of what it returns for a sample.

    ``kind`` is "conv", "activation", "pooling", "flatten" or "dense"; ``weights`` counts weights and biases, ``pairs``
    the pairs (a, b).
    """

    kind: str
    shape: tuple[int, ...]
    words: str
    weights: int = 0
    pairs: int = 0

    @classmethod
    def of(cls, module: nn.Module, shape: tuple[int, ...]) -> "Stage":
        """Return the stage of a layer that gives ``shape`` to a sample."""
        count = sum(parameter.numel() for parameter in module.parameters())
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            return cls("conv", shape, f"{module.out_channels} filters\n{height} × {width}", weights=count)
        if isinstance(module, nn.Linear):
            return cls("dense", shape, f"{module.out_features} nodes", weights=count)
        if isinstance(module, nn.MaxPool2d):
            return cls("pooling", shape, f"max pooling\n{module.kernel_size} × {module.kernel_size}")
        if isinstance(module, nn.Flatten):
            return cls("flatten", shape, "flatten")
        if isinstance(module, AgileModule):
            assert module.num_parameters is not None
            return cls("activation", shape, f"a f(x − b)\nf: {written(module.base)}", pairs=module.num_parameters)
        assert isinstance(module, PlainActivation)
        return cls("activation", shape, f"f(x)\nf: {written(module.base)}")


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
        for module in model.children():
            x = module(x)
            found.append(Stage.of(module, tuple(x.shape[1:])))
    return found


def _cnn(conv: str, fc: str) -> nn.Module:
    return paper_cnn(ArmSpec((("conv", conv), ("fc", fc))), _IMAGE, _CLASSES, seed=0)


def _total(found: list[Stage]) -> str:
    weights, pairs = sum(stage.weights for stage in found), sum(stage.pairs for stage in found)
    return f"In all {weights:,} weights and biases" + (f" and {pairs} pairs." if pairs else ".")


def _canvas(figure: Any, xlim: tuple[float, float], ylim: tuple[float, float], place: Any = None) -> Any:
    axis = figure.subplots() if place is None else figure.add_subplot(place)
    axis.set(xlim=xlim, ylim=ylim)
    axis.axis("off")
    return axis


def _say(axis: Any, x: float, y: float, words: str, color: str, size: float, va: str = "center", **more: Any) -> None:
    """Write words whose middle is at x; ``va`` says which part of their height is at y."""
    axis.text(x, y, words, **{"ha": "center", "va": va, "color": color, "fontsize": size, **more})


def _arrow(axis: Any, start: tuple[float, float], end: tuple[float, float], style: dict[str, Any]) -> None:
    axis.annotate("", end, start, arrowprops=style)


def _circles(axis: Any, x: float, ys: list[float], size: float, color: str, linewidth: float = 1.2) -> None:
    axis.scatter([x] * len(ys), ys, s=size, color="white", edgecolor=color, linewidth=linewidth, zorder=3)


def _frame(axis: Any, corner: tuple[float, float], side: float, color: str, linewidth: float) -> None:
    rectangle = require("matplotlib.patches", "paper").Rectangle
    axis.add_patch(rectangle(corner, side, side, facecolor="white", edgecolor=color, linewidth=linewidth))


def figure_1() -> Any:
    """Draw the convolutional network with plain activations: what there was before anything became agile."""
    return _chain(
        _cnn("relu", "sigmoid"),
        "Figure 1. The convolutional network, with plain activations",
        "Convolution, activation and pooling, three times; then a hidden layer. An activation f has nothing to learn.",
    )


def figure_10() -> Any:
    """Draw the network of the experiment with agile activations, and how many pairs (a, b) each stage has."""
    return _chain(
        _cnn("agile-relu", "agile-sigmoid"),
        "Figure 10. The experiment's network, every activation agile",
        "One pair (a, b) for each filter and for each hidden node, learned in the same backward pass as filters and "
        "weights, at a rate of its own.",
    )


def _chain(network: nn.Module, title: str, caption: str) -> Any:
    """Draw stages from left to right in two rows: the convolutional part, then the fully connected one."""
    found = stages(network, _IMAGE)
    figure = new_figure(11.4, 5.4, title, f"{caption} {_total(found)} {_READ_OFF}")
    axis = _canvas(figure, (0, 25), (-6.4, 4.2))
    split = next(index for index, stage in enumerate(found) if stage.kind == "flatten")
    step, left = 2.5, 1.2
    _boxes(axis, [Stage("image", _IMAGE, "image"), *found[:split]], y=1.6, left=left, step=step)
    _boxes(axis, found[split:], y=-4.2, left=step + left, step=2 * step)
    # From the end of the first row down, back, and to the start of the second.
    end = left + step * split
    axis.plot([end, end, left, left], [-0.75, -1.35, -1.35, -4.2], color=MUTED, linewidth=1.0)
    _arrow(axis, (left, -4.2), (step + left - 0.3, -4.2), _STAGE)
    return figure


def _boxes(axis: Any, row: list[Stage], *, y: float, left: float, step: float) -> None:
    before = 0.0
    for index, stage in enumerate(row):
        x = left + step * index
        color = _COLORS.get(stage.kind, MUTED)
        if len(stage.shape) == 3:
            half = _maps(axis, x, y, stage.shape, color)
        else:  # a vector is a column of nodes
            half = 0.25
            _circles(axis, x, [y + 1.1 - 0.55 * node for node in range(5)], 34, color, 1.1)
        if index:
            _arrow(axis, (x - step + before + 0.08, y), (x - half - 0.08, y), _STAGE)
        before = half
        _say(axis, x, y - 1.45, stage.words, color, 7.6, "top", linespacing=1.25)
        _say(axis, x, y + 1.3, " × ".join(map(str, stage.shape)), INK, 7.6, "bottom")
        if stage.pairs:
            _say(axis, x, y + 1.75, f"{stage.pairs} pairs (a, b)", color, 7.6, "bottom", weight="bold")
        elif stage.weights:
            _say(axis, x, y + 1.75, f"{stage.weights:,} weights\nand biases", color, 7.6, "bottom")


def _maps(axis: Any, x: float, y: float, shape: tuple[int, ...], color: str) -> float:
    """Draw a stack of feature maps, as large as their side says; return half of its width."""
    count, side = min(shape[0], 4), 0.45 + 1.15 * shape[1] / _IMAGE[1]
    shift = 0.13
    for layer in reversed(range(count)):
        offset = shift * (layer - (count - 1) / 2)
        _frame(axis, (x - side / 2 + offset, y - side / 2 + offset), side, color, 1.1)
    return side / 2 + shift * (count - 1) / 2


def figure_3() -> Any:
    """Draw the fully connected network of Fig. 11: each hidden node bends the linear estimate that it gets."""
    found = stages(fully_connected(ArmSpec((("fc", "sigmoid"),)), _IMAGE, _CLASSES, seed=0), _IMAGE)
    inputs, hidden, _, output = (stage.shape[0] for stage in found)
    figure = new_figure(
        8.4,
        4.3,
        "Figure 3. The fully connected network: a linear estimate, then f",
        "Each hidden node m estimates ŷ = Σ w x + bias, equation (4), a plane over its inputs; f bends the plane; the "
        f"outputs add up bent planes. {_total(found)} {_READ_OFF}",
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
        for start, end in itertools.product(heights, heights):
            axis.plot([left, right], [start, end], color=FAINT, linewidth=0.5, zorder=1)
    t = torch.linspace(-1, 1, 30)
    for x, count, words in columns:
        _circles(axis, x, heights, *((420, WEIGHTS) if x == 5.0 else (90, INK)))
        for y in heights if x == 5.0 else ():
            # In two halves: a straight line for the estimate, a bent one for the activation.
            bent = y + 0.2 * (torch.sigmoid(5 * t) - 0.5)
            axis.plot([x - 0.12, x - 0.02], [y - 0.1, y + 0.1], color=INK, linewidth=1.2, zorder=4)
            axis.plot(x + 0.07 + 0.055 * t, bent, color=ACTIVATION, linewidth=1.4, zorder=4)
        _say(axis, x, sum(heights) / 6, "⋮", INK, 11)
        _say(axis, x, 2.6, f"{count}", INK, 10, weight="bold")
        _say(axis, x, -2.6, words, INK, 9)
    for x, stage in ((3.0, found[1]), (7.0, found[3])):
        _say(axis, x, 2.6, f"{stage.weights:,} weights and biases", WEIGHTS, 8)
    return figure


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
    return image.view(1, *_IMAGE)


def figure_7() -> Any:
    """Draw one filter's way through a convolutional layer: its map, the agile activation, pooling, and what returns."""
    network = _cnn("agile-relu", "agile-sigmoid")
    weight, bias = (parameter.detach() for parameter in network.get_submodule("conv1").parameters())
    image = _digit()
    z = reference.feature_map(image, weight, bias, padding=1)
    filters = len(weight)
    scale, location = torch.full((filters,), _SCALE), torch.full((filters,), _LOCATION)
    c = reference.agile_feature_map(z, scale, location, bases.get("relu"))
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
        (4, F.max_pool2d(c, 2)[0, q], signed, "pooled: the next P", "14 × 14"),
    ):
        axes[index].imshow(values.numpy(), interpolation="nearest", **look)
        axes[index].set_title(title, loc="center")
        axes[index].set(xticks=[], yticks=[], xlabel=size)
        axes[index].grid(False)
    _curve(axes[2], limit)
    connection = require("matplotlib.patches", "paper").ConnectionPatch
    for left, right in itertools.pairwise(axes):
        end = (-0.02 if right is not axes[2] else -0.04, 0.5)
        ends = ((1.02, 0.5), end, "axes fraction", "axes fraction")
        figure.add_artist(connection(*ends, axesA=left, axesB=right, **_FORWARD))
    # The backward pass from right to left, each step under the panel that it belongs to.
    back = _canvas(figure, (0, 5), (-1.6, 0.4), grid[1, :])
    for start, stop in ((4.5, 3.6), (3.4, 2.6), (2.4, 1.6), (1.4, 0.6)):
        _arrow(back, (start, 0.2), (stop, 0.2), _BACKWARD)
    steps = "dL/da = Σ δ f(z − b)   (11, 13)\ndL/db = −Σ δ a f′(z − b)   (12, 14)\nsteps (15), (16)"
    for x, words, color in (
        (3.5, "δ = dL/dc, where\npooling took its maximum", MUTED),
        (2.5, steps, ACTIVATION),
        (1.42, "dL/dz = δ a f′(z − b)   (10)\nstep of the filter (5)", WEIGHTS),
        (0.5, "dL/dP, to the\nlayer before", MUTED),
    ):
        _say(back, x, -0.05, words, color, 8, "top", linespacing=1.4)
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


def figure_8() -> Any:
    """Draw one node of the hidden layer: its estimate, the agile activation, and what returns."""
    network = _cnn("agile-relu", "agile-sigmoid")
    nodes, inputs = network.get_submodule("fc1").get_parameter("weight").shape
    outputs = network.get_submodule("output").get_parameter("weight").shape[0]
    last = str(inputs).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
    figure = new_figure(
        10.4,
        4.3,
        f"Figure 8. One agile node m of the hidden layer ({inputs} inputs, {nodes} nodes)",
        "Solid: forward. Dashed: backward; δ = dL/dh, L the loss of a batch; sums run over the batch. Numbers in "
        "brackets are the paper's equations; drawing ours.",
    )
    axis = _canvas(figure, (0, 13), (-3.1, 2.4))

    def node(x: float, y: float, text: str, color: str) -> None:
        _circles(axis, x, [y], 520, color, 1.4)
        _say(axis, x, y, text, color, 10, zorder=4)

    _say(axis, 0.6, -0.5, "⋮", "black", 12)
    for y, name in ((1.5, "₁"), (0.5, "₂"), (-1.5, last)):
        node(0.6, y, f"x{name}", INK)
        _arrow(axis, (0.92, y), (3.55, 0.12 * y), _FORWARD)
        _say(axis, 1.7, y * 0.72 + 0.2, f"w{name}", WEIGHTS, 9, "baseline")
    node(4.0, 0, "Σ", WEIGHTS)
    _arrow(axis, (4.4, 0), (6.35, 0), _FORWARD)
    _say(axis, 5.35, 0.15, "ŷ = Σ w x + bias", "black", 9, "bottom")
    _say(axis, 5.35, -0.15, "(17)", MUTED, 8, "top")
    _frame(axis, (6.4, -1.15), 2.3, ACTIVATION, 1.4)
    t = torch.linspace(-6, 6, 200)
    for scale, location, color in ((1.0, 0.0, FAINT), (1.5, 1.5, ACTIVATION)):
        bent = -0.85 + 1.1 * scale * torch.sigmoid(t - location)
        axis.plot(7.55 + t * 0.17, bent, color=color, linewidth=2.0, zorder=4)
    _say(axis, 7.55, 1.3, "a sigmoid(ŷ − b): one pair for this node", ACTIVATION, 9, "bottom")
    _arrow(axis, (8.75, 0), (11.2, 0), _FORWARD)
    _say(axis, 10.0, 0.15, "h = a f(ŷ − b)", ACTIVATION, 9, "bottom")
    _say(axis, 10.0, -0.15, "(7), (8)", MUTED, 8, "top")
    axis.text(11.35, 0, f"to each of\nthe {outputs} outputs", va="center", fontsize=9)
    for start, end, words in (
        (11.2, 8.75, "δ = dL/dh"),
        (6.35, 4.4, "dL/dŷ = δ a f′(ŷ − b)   (18)"),
        (3.55, 1.4, "dL/dw = dL/dŷ · x,\nstep (6)"),
    ):
        _arrow(axis, (start, -1.55), (end, -1.55), _BACKWARD)
        _say(axis, (start + end) / 2, -1.7, words, MUTED, 8.5, "top")
    steps = "dL/da = Σ δ f(ŷ − b)   (19, 21)\ndL/db = −Σ δ a f′(ŷ − b)   (20, 22)\nsteps (23), (24)"
    _say(axis, 7.55, -2.1, steps, ACTIVATION, 8.5, "top", linespacing=1.4)
    return figure
