"""Where a location goes to, what it passes on the way, and what stops it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import agileact as ag
from tests.transforms.folding import DOUBLE, IMAGE, Function, checked, drawn, sequence, statuses


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


NORMS = {
    "batch norm": nn.BatchNorm2d(8),
    "group norm": nn.GroupNorm(2, 8),
    "instance norm": nn.InstanceNorm2d(8, affine=True),
    "layer norm over channels last": nn.Sequential(
        Function(lambda x: x.permute(0, 2, 3, 1)), nn.LayerNorm(8), Function(lambda x: x.permute(0, 3, 1, 2))
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_take_up_locations_and_give_their_gauge(name: str):
    model = sequence(nn.Conv2d(4, 8, 3), copy.deepcopy(NORMS[name]), ag.AgileReLU(8))
    _, report = checked(model, IMAGE)
    assert statuses(report) == ["folded"]
    assert report.sites[0].location_into[0].startswith("1.")
    assert report.sites[0].scale_into[0].startswith("1")


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 8, 3, bias=False), nn.ConvTranspose2d(4, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False)],
    ids=lambda layer: type(layer).__name__,
)
def test_a_bias_is_created(layer: nn.Module):
    before = [nn.Conv2d(4, 8, 3)] if isinstance(layer, nn.BatchNorm2d) else []
    model = sequence(*before, layer, ag.AgileSigmoid(8), nn.Conv2d(8, 2, 1))
    plain, report = checked(model, IMAGE)
    name = f"{len(before)}.bias"
    assert statuses(report) == ["folded"]
    assert report.sites[0].created == (name,)
    assert not report.same_architecture
    assert f"{name} (new)" in str(report)
    assert set(plain.state_dict()) - set(model.state_dict()) == {name}
    created = plain.get_parameter(name)
    assert created.requires_grad
    assert created.dtype == DOUBLE


def test_layer_norm_without_bias_gets_one():
    model = sequence(nn.LayerNorm(6, bias=False), ag.AgileTanh(6), nn.Linear(6, 2))
    _, report = checked(model, torch.randn(5, 6, dtype=DOUBLE))
    assert report.sites[0].created == ("0.bias",)


BACK = {
    "max pooling": (nn.MaxPool2d(2), True),
    "average pooling": (nn.AvgPool2d(2), True),
    "average that counts padding": (nn.AvgPool2d(3, padding=1), False),
    "average that does not": (nn.AvgPool2d(3, padding=1, count_include_pad=False), True),
    "adaptive": (nn.AdaptiveAvgPool2d(3), True),
    "mean": (Function(lambda x: x.mean((2, 3), keepdim=True)), True),
    "mean without keepdim": (Function(lambda x: x.mean((2, 3))[:, :, None, None]), True),
    "sum": (Function(lambda x: x.sum(2, keepdim=True)), False),
    "upsampling": (nn.Upsample(scale_factor=2, mode="bilinear"), True),
    "zero padding": (nn.ZeroPad2d(1), False),
    "dropout": (nn.Dropout(0.3), False),
    "dropout that never drops": (nn.Dropout(0.0), True),
    "shuffle": (nn.ChannelShuffle(2), True),
    "times numbers": (Function(lambda x: -(x * 2.0) / 3.0), True),
    "times zero": (Function(lambda x: x * 0.0), False),
    "plus a number": (Function(lambda x: x + 1.0), True),
    "from a number": (Function(lambda x: 2.0 - x), True),
    "relu": (nn.ReLU(), False),
    "halves": (Function(lambda x: torch.cat([x[:, 4:], x[:, :4]], 1)), True),
    "one part twice": (Function(lambda x: torch.cat([x[:, :4], x[:, :4]], 1)), False),
    "expanded": (Function(lambda x: x.view(3, 1, 8, 6, 6).expand(3, 2, 8, 6, 6).mean(1)), True),
    "expanded, one copy": (Function(lambda x: x.view(3, 1, 8, 6, 6).expand(3, 2, 8, 6, 6)[:, 1]), False),
}


@pytest.mark.parametrize("name", BACK)
def test_location_passes_backwards(name: str):
    between, passes = BACK[name]
    model = sequence(nn.Conv2d(4, 8, 3), between, ag.AgileSiLU(8), nn.Conv2d(8, 4, 1))
    plain, report = checked(model, IMAGE)
    (site,) = report.sites
    if passes:
        assert site.status == "folded"
        assert site.location_into == ("0.bias",)
    else:
        assert site.kept == ("location",)
        assert "location stays" in site.reason
        assert plain[2].location.shape == (8, 1, 1)


def test_location_goes_into_one_branch_of_a_sum():
    class Sum(nn.Module):
        def __init__(self, difference: bool) -> None:
            super().__init__()
            self.stem = nn.Linear(6, 6)
            self.inner = nn.Linear(6, 6)
            self.act = ag.AgileGELU(6)
            self.head = nn.Linear(6, 2)
            self.difference = difference

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.inner(x.sin())
            z: Tensor = self.head(self.act(x - y if self.difference else x + y))
            return z

    for difference in (True, False):
        _, report = checked(drawn(Sum(difference).double()), torch.randn(3, 6, dtype=DOUBLE))
        assert statuses(report) == ["folded"]
        assert report.sites[0].location_into == ("inner.bias",)


def test_location_stays_if_the_signal_is_used_elsewhere():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.act = ag.AgileGELU(6)
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(x)
            y: Tensor = self.head(self.act(x)) + x.exp().sum(-1, keepdim=True)
            return y

    _, report = checked(drawn(Twice().double()), torch.randn(3, 6, dtype=DOUBLE))
    assert report.sites[0].reason == "location stays: the signal before it is used elsewhere too, by exp"


def test_location_of_a_model_that_returns_the_signal_before_it_stays():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.act = ag.AgileGELU(6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.fc(x)
            return x, self.act(x)

    plain, report = checked(drawn(Both().double()), torch.randn(3, 6, dtype=DOUBLE))
    assert statuses(report) == ["refused"]
    assert "the model also returns" in report.sites[0].reason
    assert plain.act.location.shape == plain.act.scale.shape == (6,)
