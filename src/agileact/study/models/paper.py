"""The paper's two networks, and a deep thin one."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import nn
from torch.nn.utils import skip_init

from agileact._common.errors import ArgumentError
from agileact.study.models.chain import Chain
from agileact.study.models.registry import initialise, positive, register_model, role_activation
from agileact.study.spec.trial import ArmSpec


def _dense_layers(
    arm: ArmSpec, inputs: int, nodes: tuple[int, ...], classes: int, seed: int
) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width in enumerate(nodes, start=1):
        layer = skip_init(nn.Linear, inputs, width)
        initialise(layer, seed, f"fc{index}")
        layers[f"fc{index}"] = layer
        if arm.normalisation != "none":
            layers[f"fc{index}_normalisation"] = (
                nn.BatchNorm1d(width) if arm.normalisation == "batch" else nn.LayerNorm(width)
            )
        layers[f"fc{index}_activation"] = role_activation(arm, "fc", f"fc{index}_activation", width)
        inputs = width
    output = skip_init(nn.Linear, inputs, classes)
    initialise(output, seed, "output")
    layers["output"] = output
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
    not given in it and are our choice. The output layer has no activation (cross-entropy on logits).

    Args:
        arm: Activations for the roles ``conv`` (needed if there are filters) and ``fc`` (if there are nodes).
        input_shape: (channels, height, width).
        classes: Number of outputs.
        seed: Source of the initial weights.
        filters: Filters of each convolutional layer.
        nodes: Nodes of each hidden layer.
        kernel: Kernel size; odd, so that padding keeps the size of the map.
        pooling: Size and stride of max pooling; 1 for none.

    Raises:
        ArgumentError: If an option does not fit, for instance if pooling leaves nothing of the image.
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
        initialise(layer, seed, f"conv{index}")
        layers[f"conv{index}"] = layer
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
