"""The networks by name: the paper's two and a deep thin one, a small residual network, a character transformer."""

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils import skip_init

from agileact._common.errors import ArgumentError
from agileact.study.models.chain import Chain
from agileact.study.models.registry import initialise, initialise_all, positive, register_model, role_activation
from agileact.study.spec.trial import ArmSpec


def _dense_layers(
    arm: ArmSpec, inputs: int, nodes: tuple[int, ...], classes: int, seed: int
) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width in enumerate(nodes, start=1):
        layers[f"fc{index}"] = initialise(skip_init(nn.Linear, inputs, width), seed, f"fc{index}")
        if arm.normalisation != "none":
            norm = nn.BatchNorm1d if arm.normalisation == "batch" else nn.LayerNorm
            layers[f"fc{index}_normalisation"] = norm(width)
        layers[f"fc{index}_activation"] = role_activation(arm, "fc", f"fc{index}_activation", width)
        inputs = width
    layers["output"] = initialise(skip_init(nn.Linear, inputs, classes), seed, "output")
    return layers


def paper_cnn(
    arm: ArmSpec,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    *,
    filters: tuple[int, ...] = (16, 8, 4),
    nodes: tuple[int, ...] = (30,),
    kernel: int = 3,
    pooling: int = 2,
) -> nn.Module:
    """Build the paper's network: convolution, activation, pooling, K times; then M hidden layers.

    The paper (section 4) has filters 16-8-4 and one hidden layer of 30 nodes; kernel and pooling sizes are
    not given in it and are our choice. The output layer has no activation (cross-entropy on logits). Convolutional
    layers have the role ``conv``, hidden layers ``fc``. An odd kernel keeps the size of the map; pooling 1 is none.
    """
    if len(input_shape) != 3:
        raise ArgumentError(f"the cnn needs images of shape (channels, height, width), not {input_shape}")
    positive("filters", filters)
    positive("nodes", nodes)
    if not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
        raise ArgumentError(f"kernel must be an odd positive whole number, not {kernel!r}")
    if not isinstance(pooling, int) or pooling < 1:
        raise ArgumentError(f"pooling must be a positive whole number, not {pooling!r}")
    channels, height, width = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, count in enumerate(filters, start=1):
        layer = skip_init(nn.Conv2d, channels, count, kernel, padding=kernel // 2)
        layers[f"conv{index}"] = initialise(layer, seed, f"conv{index}")
        if arm.normalisation != "none":
            layers[f"conv{index}_normalisation"] = (
                nn.BatchNorm2d(count) if arm.normalisation == "batch" else nn.GroupNorm(1, count)
            )
        layers[f"conv{index}_activation"] = role_activation(arm, "conv", f"conv{index}_activation", count)
        if pooling > 1:
            layers[f"conv{index}_pooling"] = nn.MaxPool2d(pooling)
        channels, height, width = count, height // pooling, width // pooling
        if height < 1 or width < 1:
            raise ArgumentError(
                f"pooling {pooling} leaves nothing of a {input_shape[1]}x{input_shape[2]} image after "
                f"{index} convolutional layers; use fewer filters or a smaller pooling"
            )
    layers["flatten"] = nn.Flatten()
    layers.update(_dense_layers(arm, channels * height * width, nodes, classes, seed))
    # On CPU, convolution and pooling of these small maps are about twice as fast with channels last.
    return Chain(layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def fully_connected(
    arm: ArmSpec, input_shape: tuple[int, ...], classes: int, seed: int, *, nodes: tuple[int, ...] = (30,)
) -> nn.Module:
    """Build the network of the paper's Fig. 11: hidden layers of ``nodes`` with the role ``fc``, no convolution."""
    positive("nodes", nodes)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    layers.update(_dense_layers(arm, math.prod(input_shape), nodes, classes, seed))
    return nn.Sequential(layers)


def deep_thin(
    arm: ArmSpec, input_shape: tuple[int, ...], classes: int, seed: int, *, depth: int = 10, width: int = 32
) -> nn.Module:
    """Build ``depth`` hidden layers of ``width`` nodes with the role ``fc``: with sigmoids its gradients vanish."""
    positive("depth and width", (depth, width))
    return fully_connected(arm, input_shape, classes, seed, nodes=(width,) * depth)


register_model("cnn", paper_cnn)
register_model("deep-mlp", deep_thin)
register_model("mlp", fully_connected)


class _Block(nn.Module):
    """Two convolutions with normalisation, and a shortcut around both."""

    def __init__(self, arm: ArmSpec, name: str, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.activation1 = role_activation(arm, "conv", f"{name}.activation1", width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            conv = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(width)))
        self.activation2 = role_activation(arm, "conv", f"{name}.activation2", width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation1(self.norm1(self.conv1(x)))
        result: Tensor = self.activation2(self.norm2(self.conv2(y)) + self.shortcut(x))
        return result


_LEAST_CHANNELS = 8
"""Of fewer channels, channels last, oneDNN writes the gradients of a strided 1x1 convolution beyond their memory on
CPUs with AVX2 alone (PyTorch 2.13), and the process dies."""


def residual(
    what: str,
    stem: Callable[[int, int], Mapping[str, nn.Module]],
    block: Callable[[str, int, int, int], nn.Module],
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    widths: tuple[int, ...],
    blocks: int,
) -> nn.Sequential:
    """Build stem, stages of ``blocks`` blocks, global average pooling and a linear layer, with weights by ``seed``.

    ``stem`` makes the layers in front, by name, of channels and width; ``block`` one block of its name, channels, width
    and stride. ``what`` is the network's name in errors.
    """
    if len(input_shape) != 3:
        raise ArgumentError(f"{what} needs images of shape (channels, height, width), not {input_shape}")
    positive("widths", widths)
    positive("blocks", (blocks,))
    if not widths:
        raise ArgumentError("widths must name at least one stage")
    with torch.random.fork_rng(devices=[]):
        channels = widths[0]
        layers = OrderedDict(stem(input_shape[0], channels))
        for stage, width in enumerate(widths, start=1):
            for index in range(1, blocks + 1):
                name = f"stage{stage}_block{index}"
                layers[name] = block(name, channels, width, 2 if stage > 1 and index == 1 else 1)
                channels = width
        layers["pooling"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["output"] = nn.Linear(channels, classes)
        model = nn.Sequential(layers)
    initialise_all(model, seed)
    return model


def resnet(
    arm: ArmSpec,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    *,
    widths: tuple[int, ...] = (16, 32, 64),
    blocks: int = 1,
) -> nn.Module:
    """Build a residual network for small images; all its activations have the role ``conv``.

    Source: K. He, X. Zhang, S. Ren, J. Sun, *Deep Residual Learning for Image Recognition*, arXiv 1512.03385, section
    4.2: a 3x3 convolution, then stages of ``blocks`` blocks each, halving the image between stages, global average
    pooling and a linear layer. With ``blocks`` = 3 it is the paper's ResNet-20, except that shortcuts between
    stages are 1x1 convolutions (the paper's option B). ``widths`` are the filters of the stages.
    """

    def stem(channels: int, width: int) -> dict[str, nn.Module]:
        conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        activation = role_activation(arm, "conv", "activation1", width)
        return {"conv1": conv, "norm1": nn.BatchNorm2d(width), "activation1": activation}

    model = residual("the resnet", stem, functools.partial(_Block, arm), input_shape, classes, seed, widths, blocks)
    if min(widths[:-1], default=_LEAST_CHANNELS) < _LEAST_CHANNELS:
        return model
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


register_model("resnet", resnet)


class _Layer(nn.Module):
    """Causal attention, then two dense layers with an activation between them; each behind a normalisation."""

    def __init__(self, arm: ArmSpec, name: str, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.activation = role_activation(arm, "fc", f"{name}.activation", hidden, dim=-1)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(batch, length, width))
        result: Tensor = x + self.fc2(self.activation(self.fc1(self.norm2(x))))
        return result


class _CharTransformer(nn.Module):
    def __init__(
        self, arm: ArmSpec, length: int, characters: int, width: int, depth: int, heads: int, hidden: int
    ) -> None:
        super().__init__()
        self.characters = nn.Embedding(characters, width)
        self.positions = nn.Embedding(length, width)
        names = [f"layer{index}" for index in range(1, depth + 1)]
        self.layers = nn.Sequential(OrderedDict((n, _Layer(arm, f"layers.{n}", width, heads, hidden)) for n in names))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, characters)

    def forward(self, tokens: Tensor) -> Tensor:
        places = self.positions.weight[: tokens.shape[1]]
        result: Tensor = self.output(self.norm(self.layers(self.characters(tokens) + places)))
        return result


def char_transformer(
    arm: ArmSpec,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    *,
    width: int = 32,
    depth: int = 2,
    heads: int = 2,
    expansion: int = 4,
) -> nn.Module:
    """Build a decoder that predicts the next character at each position; its dense layers have the role ``fc``.

    The layers are those of A. Radford et al., *Language Models are Unsupervised Multitask Learners* (2019):
    normalisation before attention and before the dense layers, learned positions. No dropout: trials are to differ by
    their arm and seed alone. ``width`` is the embedding's, ``heads`` a divisor of it, ``expansion`` the hidden nodes
    over it.
    """
    if len(input_shape) != 1:
        raise ArgumentError(f"the char-transformer needs pieces of text, of shape (length,), not {input_shape}")
    positive("width, depth, heads and expansion", (width, depth, heads, expansion))
    if width % heads:
        raise ArgumentError(f"heads must divide width {width}, not {heads}")
    with torch.random.fork_rng(devices=[]):
        model = _CharTransformer(arm, input_shape[0], classes, width, depth, heads, expansion * width)
    initialise_all(model, seed)
    return model


register_model("char-transformer", char_transformer)
