"""Small networks of the shapes that real ones have, with agile activations written in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import agileact as ag


class BasicBlock(nn.Module):
    """ResNet: the shortcut is the identity, or a convolution where sizes change."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.act1 = ag.AgileReLU(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.act2 = ag.AgileReLU(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        made: Tensor = self.act2(y)
        return made


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        ag.AgileReLU(8),
        nn.MaxPool2d(3, 2, 1),
        BasicBlock(8, 8),
        BasicBlock(8, 8),
        BasicBlock(8, 12, 2),
        BasicBlock(12, 12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


class DenseLayer(nn.Module):
    """DenseNet: convolution first, what it makes is put beside what it took."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, 4, 3, padding=1)
        self.act = ag.AgileSiLU(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.act(self.conv(x))], 1)


def densenet() -> nn.Module:
    layers = [DenseLayer(8 + 4 * index) for index in range(3)]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), ag.AgileReLU(8), *layers, nn.AvgPool2d(2), nn.Conv2d(20, 6, 1), ag.AgileELU(6),
        nn.Flatten(), nn.Linear(6 * 49, 3),
    )  # fmt: skip


class ShuffleUnit(nn.Module):
    """ShuffleNet: one half goes through, then the halves are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            ag.AgileReLU(half),
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            ag.AgileReLU(half),
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, taken = x.chunk(2, dim=1)
        joined = torch.cat((kept, self.branch(taken)), dim=1)
        count, channels, height, width = joined.shape
        joined = joined.view(count, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return joined.view(count, channels, height, width)


def shufflenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        ag.AgileReLU(8),
        ShuffleUnit(8),
        ShuffleUnit(8),
        ShuffleUnit(8),
        nn.Conv2d(8, 4, 1),
    )


class UNet(nn.Module):
    """U-Net: transposed convolutions, upsampling, and features put beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), ag.AgileGELU(6))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), ag.AgileReLU(8))
        self.down3 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), ag.AgileReLU(8))
        self.up2 = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.act2 = ag.AgileLeakyReLU(8)
        self.conv2 = nn.Sequential(nn.Conv2d(16, 6, 3, padding=1), ag.AgileReLU(6))
        self.up1 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(first)
        third = self.down3(second)
        joined = self.conv2(torch.cat([second, self.act2(self.up2(third))], 1))
        y: Tensor = self.head(torch.cat([first, self.up1(joined)], 1))
        return y


class ViTBlock(nn.Module):
    """A transformer block with the norm first, and a parameter that scales what is added."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 3, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 24)
        self.act = ag.AgileGELU(24, dim=-1)
        self.drop = nn.Dropout(0.1)
        self.fc2 = nn.Linear(24, width)
        self.layer_scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        made: Tensor = x + self.layer_scale * self.fc2(self.drop(self.act(self.fc1(self.norm2(x)))))
        return made


class ViT(nn.Module):
    """Patches, a class token, positions, blocks, a head."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.Sequential(ViTBlock(width), ViTBlock(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        y: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return y


class Inverted(nn.Module):
    """MobileNet: expand, depthwise, squeeze and excite, project; added where sizes allow."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), ag.AgileReLU6(wide))
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), ag.AgileSiLU(wide)
        )
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(wide, 4, 1),
            ag.AgileReLU(4),
            nn.Conv2d(4, wide, 1),
            ag.AgileHardsigmoid(wide),
        )
        self.project = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        made: Tensor = x + self.project(y * self.squeeze(y))
        return made


def mobilenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), Inverted(6), Inverted(6),
        nn.Conv2d(6, 8, 1), ag.AgileHardswish(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


NETWORKS = {
    "resnet": resnet,
    "densenet": densenet,
    "shufflenet": shufflenet,
    "unet": UNet,
    "vit": ViT,
    "mobilenet": mobilenet,
}
