"""Where a scale goes to, what it passes on the way, and what stops it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import agileact as ag
from tests.transforms.folding import DOUBLE, IMAGE, Function, checked, drawn, image_model, sequence, statuses


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


PASSED = {
    "max pooling": nn.MaxPool2d(2),
    "max pooling with padding": nn.MaxPool2d(3, stride=1, padding=1),
    "average pooling": nn.AvgPool2d(2),
    "average pooling with padding": nn.AvgPool2d(3, padding=1),
    "adaptive average": nn.AdaptiveAvgPool2d(2),
    "adaptive maximum": nn.AdaptiveMaxPool2d(2),
    "fixed mean": Function(lambda x: x.mean((2, 3), keepdim=True)),
    "sum": Function(lambda x: x.sum(2, keepdim=True)),
    "amax": Function(lambda x: x.amax(dim=(2, 3), keepdim=True)),
    "max along an axis": Function(lambda x: x.max(2, keepdim=True).values),
    "dropout": nn.Dropout(0.5),
    "channel dropout": nn.Dropout2d(0.5),
    "zero padding": nn.ZeroPad2d(1),
    "reflecting padding": nn.ReflectionPad2d(1),
    "nearest upsampling": nn.Upsample(scale_factor=2),
    "bilinear upsampling": nn.Upsample(scale_factor=2, mode="bilinear"),
    "channel shuffle": nn.ChannelShuffle(4),
    "shuffle by hand": Function(lambda x: x.view(3, 2, 4, 6, 6).transpose(1, 2).contiguous().view(3, 8, 6, 6)),
    "chunk and cat": Function(lambda x: torch.cat(tuple(reversed(x.chunk(2, 1))), 1)),
    "split, roll": Function(lambda x: torch.cat([x[:, :3], x[:, 3:].roll(1, 1)], 1)),
    "identity": nn.Identity(),
    "times a number": Function(lambda x: x * 0.5 / 3.0),
    "negative": Function(lambda x: -x),
    "clone": Function(lambda x: x.clone().contiguous(memory_format=torch.channels_last)),
    "twice added": Function(lambda x: x + x),
    "where": Function(lambda x: torch.where(torch.eye(6, dtype=torch.bool), x, 0.0)),
    "masked fill": Function(lambda x: x.masked_fill(torch.eye(6, dtype=torch.bool), 0.0)),
    "relu": nn.ReLU(),
    "leaky relu": nn.LeakyReLU(0.2),
    "clamp at zero": Function(lambda x: x.clamp(min=0)),
    "absolute": Function(torch.abs),
    "prelu": nn.PReLU(8),
    "maximum of parts": Function(lambda x: torch.maximum(x, x.flip(3))),
    "its square": Function(lambda x: x * x.clone()),
    "in place": Function(lambda x: x.mul_(2.0)),
}


@pytest.mark.parametrize("between", PASSED.values(), ids=PASSED.keys())
def test_scale_passes(between: nn.Module):
    model = image_model(between)
    plain, report = checked(model, IMAGE)
    assert statuses(report) == ["folded"]
    assert report.same_architecture
    assert report.sites[0].location_into == ("0.bias",)
    assert report.sites[0].scale_into == ("3",)
    assert isinstance(plain[1], nn.GELU)


# What does not mind the sign of the scale.
LINEAR = [name for name in PASSED if not any(w in name for w in ("max", "relu", "clamp", "absolute"))]


@pytest.mark.parametrize("name", LINEAR)
def test_negative_scale_passes_what_is_linear(name: str):
    _, report = checked(image_model(PASSED[name], negative=True), IMAGE)
    assert statuses(report) == ["folded"]


@pytest.mark.parametrize("name", [name for name in PASSED if name not in LINEAR])
def test_negative_scale_stays_before_what_is_not(name: str):
    plain, report = checked(image_model(PASSED[name], negative=True), IMAGE)
    assert statuses(report) == ["partly folded"]
    (site,) = report.sites
    assert site.kept == ("scale",)
    assert "negative in 4 of 8" in site.reason
    assert not report.same_architecture
    assert isinstance(plain[1], torch.fx.GraphModule)
    assert plain[1].scale.shape == (8, 1, 1)


STOPPED = {
    "softmax": (nn.Softmax(1), "softmax"),
    "sigmoid": (nn.Sigmoid(), "sigmoid"),
    "batch norm": (nn.BatchNorm2d(8), "measures its size in training"),
    "group norm": (nn.GroupNorm(2, 8), "group_norm"),
    "instance norm": (nn.InstanceNorm2d(8), "instance_norm"),
    "another number": (Function(lambda x: x + 1.0), "a number is added"),
    "a constant": (Function(lambda x: x + torch.ones(8, 1, 1, dtype=DOUBLE)), "stays as it is"),
    "a power": (Function(lambda x: x**2), "pow"),
    "inverse": (Function(lambda x: 1 / (x + 5)), "a number is added"),
    "padding with ones": (nn.ConstantPad2d(1, 1.0), "pad"),
    "an index": (Function(lambda x: x[:, torch.arange(8).flip(0)]), "getitem"),
    "its numbers in Python": (Function(lambda x: x * (2.0 if x.sum().item() > -1e9 else 3.0)), "item"),
    "as_strided": (Function(lambda x: x.contiguous().as_strided(x.shape, x.stride())), "as_strided"),
    "writing by index": (Function(lambda x: torch.zeros_like(x).index_add(1, torch.arange(8), x)), "index_add"),
}


@pytest.mark.parametrize("name", STOPPED)
def test_scale_stays_before(name: str):
    between, why = STOPPED[name]
    _, report = checked(image_model(between), IMAGE)
    (site,) = report.sites
    assert site.status == "partly folded"
    assert site.kept == ("scale",)
    assert why in site.reason, site.reason


def test_channels_that_are_summed_must_have_one_scale():
    model = image_model(Function(lambda x: x.view(3, 4, 2, 6, 6).sum(2).repeat(1, 2, 1, 1)))
    _, report = checked(model, IMAGE)
    assert "one number for several channels" in report.sites[0].reason
    with torch.no_grad():
        model[1].scale.fill_(1.7)
    _, report = checked(model, IMAGE)
    assert statuses(report) == ["folded"]


def test_scale_stays_where_it_is_returned():
    _, report = checked(sequence(nn.Linear(4, 3), ag.AgileTanh(3)), torch.randn(5, 4, dtype=DOUBLE))
    assert report.sites[0].reason == "scale stays: behind it: the model returns it"


# Scale: where it goes to.

WEIGHTS = {
    "linear": (nn.Linear(8, 3), (5, 8)),
    "linear on tokens": (nn.Linear(8, 3), (5, 7, 8)),
    "conv1d": (nn.Conv1d(8, 6, 3, padding=1), (5, 8, 9)),
    "grouped": (nn.Conv2d(8, 12, 3, groups=4), (2, 8, 5, 5)),
    "depthwise": (nn.Conv2d(8, 16, 3, groups=8), (2, 8, 5, 5)),
    "conv3d": (nn.Conv3d(8, 4, 2, groups=2), (2, 8, 3, 3, 3)),
    "transposed 1d": (nn.ConvTranspose1d(8, 6, 3), (2, 8, 5)),
    "transposed": (nn.ConvTranspose2d(8, 6, 3, stride=2), (2, 8, 5, 5)),
    "transposed and grouped": (nn.ConvTranspose2d(8, 6, 3, groups=2), (2, 8, 5, 5)),
    "transposed 3d": (nn.ConvTranspose3d(8, 4, 2, groups=4), (2, 8, 3, 3, 3)),
    "reflecting": (nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"), (2, 8, 5, 5)),
    "unbatched": (nn.Conv2d(8, 4, 3), (8, 5, 5)),
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("direction", ["forwards", "backwards"])
def test_weights_take_up_scales(name: str, direction: str):
    layer: Any
    layer, shape = WEIGHTS[name]
    x = torch.randn(shape, dtype=DOUBLE)
    tokens = isinstance(layer, nn.Linear)
    dim = -1 if tokens else 0 if name == "unbatched" else 1
    if direction == "forwards":
        before: list[nn.Module] = [nn.Linear(8, 8)] if tokens else []
        model = sequence(*before, ag.AgileSiLU(8, dim=dim), copy.deepcopy(layer), negative=True)
        _, report = checked(model, x, training=False)
        assert report.sites[0].kept == (() if tokens else ("location",))
        assert report.sites[0].scale_into == ("1" if not tokens else "2",)
    else:
        channels = layer.out_features if tokens else layer.out_channels
        model = sequence(copy.deepcopy(layer), ag.AgileLeakyReLU(channels, dim=dim))
        _, report = checked(model, x, training=False)
        assert statuses(report) == ["folded"]
        assert report.sites[0].location_into == ("0.bias",)
        assert report.sites[0].scale_into == ("0",)
        assert report.same_architecture


@pytest.mark.parametrize("returned", [True, False])
def test_the_report_names_the_weights_that_took_a_scale_up(returned: bool):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act, self.last = nn.Linear(4, 8), ag.AgileReLU(8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Any:
            hidden = self.act(self.first(x))
            return (self.last(hidden), hidden) if returned else self.last(hidden)

    _, report = checked(drawn(Net().double()), torch.randn(3, 4, dtype=DOUBLE))
    assert report.sites[0].scale_into == ("first" if returned else "last",)


def test_backwards_only_if_positive():
    _, report = checked(sequence(nn.Linear(4, 3), ag.AgileReLU(3), negative=True), torch.randn(5, 4, dtype=DOUBLE))
    assert report.sites[0].kept == ("scale",)


def test_odd_and_homogeneous_takes_any_sign():
    _, report = checked(sequence(nn.Linear(4, 3), ag.AgileIdentity(3), negative=True), torch.randn(5, 4, dtype=DOUBLE))
    assert statuses(report) == ["folded"]


@pytest.mark.parametrize("between", [nn.Identity(), nn.Flatten(), nn.AvgPool2d(2)], ids=str)
def test_zero_scale_becomes_zero_columns(between: nn.Module):
    model = (
        image_model(between)
        if not isinstance(between, nn.Flatten)
        else sequence(nn.Conv2d(4, 8, 3), ag.AgileReLU(8), between, nn.Linear(288, 2))
    )
    with torch.no_grad():
        model[1].scale[2] = 0.0
        model[1].scale[5] *= -1
    plain, report = checked(model, IMAGE)
    assert statuses(report) == ["folded"]
    weight = plain[3].weight.view(-1, 8, plain[3].weight[0].numel() // 8)
    assert not weight[:, 2].any()


def test_zero_scale_stays_before_a_sum():
    model = drawn(Residual().double())
    with torch.no_grad():
        model.second.scale[1] = 0.0
    _, report = checked(model, torch.randn(3, 6, dtype=DOUBLE))
    site = next(site for site in report.sites if site.name == "second")
    assert site.kept == ("scale",)
    assert "is 0 somewhere" in site.reason


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 6)
        self.first = ag.AgileReLU(6)
        self.inner = nn.Linear(6, 6)
        self.second = ag.AgileReLU(6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        y: Tensor = self.head(x + self.second(self.inner(x)))
        return y


def test_a_sum_of_two_activations_folds_backwards():
    _, report = checked(drawn(Residual().double()), torch.randn(3, 6, dtype=DOUBLE))
    assert statuses(report) == ["folded", "folded"]


def test_scales_that_are_not_finite_stay_and_are_said():
    model = image_model(nn.Identity())
    with torch.no_grad():
        model[1].scale[0] = torch.inf
        model[1].location[1] = torch.nan
    _, report = ag.fold(model, IMAGE)
    assert report.sites[0].status == "refused"
    assert "scale is not finite" in report.sites[0].reason
    assert "location is not finite" in report.sites[0].reason
