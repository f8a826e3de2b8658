"""A residual network of convolutions without normalisation, where weights alone must keep a signal's size."""

import functools
from collections import OrderedDict

from torch import Tensor, nn

from agileact.study.models.architectures import residual
from agileact.study.models.registry import register_model, role_activation
from agileact.study.spec.trial import ArmSpec


class _Unit(nn.Sequential):
    """A 3x3 convolution, the arm's normalisation if it has one, and the activation."""

    def __init__(self, arm: ArmSpec, name: str, channels: int, width: int, stride: int = 1) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv"] = nn.Conv2d(channels, width, 3, stride, padding=1, bias=arm.normalisation == "none")
        if arm.normalisation != "none":
            layers["norm"] = nn.BatchNorm2d(width) if arm.normalisation == "batch" else nn.GroupNorm(1, width)
        layers["activation"] = role_activation(arm, "conv", f"{name}.activation", width)
        super().__init__(layers)


class _Block(nn.Module):
    """Two convolutions, each with its activation, and a shortcut around both."""

    def __init__(self, arm: ArmSpec, name: str, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.unit1 = _Unit(arm, f"{name}.unit1", channels, width, stride)
        self.unit2 = _Unit(arm, f"{name}.unit2", width, width)
        same = stride == 1 and channels == width
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.shortcut(x) + self.unit2(self.unit1(x))
        return result


def residual_plain(
    arm: ArmSpec,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    *,
    widths: tuple[int, ...] = (16, 32, 64),
    blocks: int = 3,
) -> nn.Module:
    """Build a residual network for small images that normalises nothing, unless the arm asks for it.

    The plan is ResNet-20's of K. He et al., arXiv 1512.03385, section 4.2: a 3x3 convolution, then stages of ``blocks``
    blocks of two, halving the image between stages, global average pooling and a linear layer. Unlike there, a block
    ends in its activation, x + f(W2 f(W1 x)), so that each 3x3 convolution has an activation of its own. 1x1
    convolutions between stages stay free. All activations have the role ``conv``.

    Raises:
        ArgumentError: If an option does not fit.

    Example:
        >>> import torch
        >>> model = residual_plain(ArmSpec((("conv", "relu"),)), (1, 8, 8), 10, seed=0, widths=(8, 16))
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def stem(channels: int, width: int) -> dict[str, nn.Module]:
        return {"stem": _Unit(arm, "stem", channels, width)}

    return residual("residual-plain", stem, functools.partial(_Block, arm), input_shape, classes, seed, widths, blocks)


register_model("residual-plain", residual_plain)
