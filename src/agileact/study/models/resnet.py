"""A small residual network with batch normalisation, for 32x32 images."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from agileact._common.errors import ArgumentError
from agileact.study.models.registry import initialise_all, positive, register_model, role_activation
from agileact.study.spec.trial import ArmSpec


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
    stages are 1x1 convolutions (the paper's option B).

    Args:
        arm: Activations for the role ``conv``.
        input_shape: (channels, height, width).
        classes: Number of outputs.
        seed: Source of the initial weights.
        widths: Filters of each stage.
        blocks: Blocks of each stage.

    Raises:
        ArgumentError: If an option does not fit.
    """
    if len(input_shape) != 3:
        raise ArgumentError(f"the resnet needs images of shape (channels, height, width), not {input_shape}")
    positive("widths", widths)
    positive("blocks", (blocks,))
    if not widths:
        raise ArgumentError("widths must name at least one stage")
    with torch.random.fork_rng(devices=[]):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = nn.Conv2d(input_shape[0], widths[0], 3, padding=1, bias=False)
        layers["norm1"] = nn.BatchNorm2d(widths[0])
        layers["activation1"] = role_activation(arm, "conv", "activation1", widths[0])
        channels = widths[0]
        for stage, width in enumerate(widths, start=1):
            for index in range(1, blocks + 1):
                name = f"stage{stage}_block{index}"
                layers[name] = _Block(arm, name, channels, width, 2 if stage > 1 and index == 1 else 1)
                channels = width
        layers["pooling"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["output"] = nn.Linear(channels, classes)
        model = nn.Sequential(layers)
    initialise_all(model, seed)
    if min(widths[:-1], default=_LEAST_CHANNELS) < _LEAST_CHANNELS:
        return model
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


register_model("resnet", resnet)
