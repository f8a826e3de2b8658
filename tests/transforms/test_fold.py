"""Folding, rule by rule: what goes where, what stays, and why."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

import agileact as ag
from tests.transforms.folding import checked, drawn, run, statuses

DOUBLE = torch.float64
IMAGE = torch.randn(3, 4, 8, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def sequence(*modules: nn.Module, negative: bool = False) -> nn.Module:
    return drawn(nn.Sequential(*modules).double(), negative=negative)


def image_model(between: nn.Module, activation: nn.Module | None = None, negative: bool = False) -> nn.Module:
    """A convolution, an activation, what is tested, and a convolution."""
    return sequence(
        nn.Conv2d(4, 8, 3), activation or ag.AgileGELU(8), between, nn.Conv2d(8, 4, 1), negative=negative
    )


# Scale, forwards: what it passes.

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
        plain, report = checked(model, x, training=False)
        assert statuses(report) == ["folded"]
        assert report.sites[0].location_into == ("0.bias",)
        assert report.sites[0].scale_into == ("0",)
        assert report.same_architecture


def test_backwards_only_if_positive():
    _, report = checked(sequence(nn.Linear(4, 3), ag.AgileReLU(3), negative=True), torch.randn(5, 4, dtype=DOUBLE))
    assert report.sites[0].kept == ("scale",)


def test_odd_and_homogeneous_takes_any_sign():
    _, report = checked(
        sequence(nn.Linear(4, 3), ag.AgileIdentity(3), negative=True), torch.randn(5, 4, dtype=DOUBLE)
    )
    assert statuses(report) == ["folded"]


@pytest.mark.parametrize("between", [nn.Identity(), nn.Flatten(), nn.AvgPool2d(2)], ids=str)
def test_zero_scale_becomes_zero_columns(between: nn.Module):
    model = image_model(between) if not isinstance(between, nn.Flatten) else sequence(
        nn.Conv2d(4, 8, 3), ag.AgileReLU(8), between, nn.Linear(288, 2)
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


# Location.

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


# Gates.


class Gated(nn.Module):
    """A gated unit: one activation times another signal."""

    def __init__(self, second: nn.Module, fused: bool = False) -> None:
        super().__init__()
        self.fused = fused
        self.gate = nn.Linear(6, 16 if fused else 8)
        self.up = nn.Linear(6, 8)
        self.act = ag.AgileSiLU(8, dim=-1)
        self.second = second
        self.down = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            gate, up = self.gate(x).chunk(2, -1)
        else:
            gate, up = self.gate(x), self.up(x)
        y: Tensor = self.down(self.act(gate) * self.second(up))
        return y


@pytest.mark.parametrize("second", [nn.Identity(), ag.AgileSigmoid(8, dim=-1), ag.AgileReLU(8, dim=-1)], ids=str)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("negative", [False, True])
def test_gates_fold(second: nn.Module, fused: bool, negative: bool):
    if negative and isinstance(second, ag.AgileReLU):
        pytest.skip("a negative scale of a homogeneous function: the next test")
    model = drawn(Gated(second, fused).double(), negative=negative)
    _, report = checked(model, torch.randn(3, 5, 6, dtype=DOUBLE))
    assert set(statuses(report)) == {"folded"}, report
    assert "down" in report.sites[0].scale_into


class Excitation(nn.Module):
    """Squeeze and excitation behind an activation, with or without a residual."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.conv = nn.Conv2d(4, 8, 1)
        self.bn = nn.BatchNorm2d(8)
        self.act = ag.AgileReLU(8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.squeezed = ag.AgileReLU(4)
        self.excite = nn.Conv2d(4, 8, 1)
        self.gate = ag.AgileSigmoid(8)
        self.out = ag.AgileReLU(8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.conv(x)))
        gate = self.gate(self.excite(self.squeezed(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        y = x * gate
        y = self.out(y + x) if self.residual else y
        z: Tensor = self.head(y)
        return z


def test_squeeze_and_excitation_folds():
    model = drawn(Excitation(False).double())
    del model.out
    _, report = checked(model, IMAGE)
    assert statuses(report) == ["folded"] * 3


def test_a_gated_sum_stays_exact_where_gauges_disagree():
    _, report = checked(drawn(Excitation(True).double()), IMAGE)
    status = {site.name: site.status for site in report.sites}
    assert status["act"] == status["squeezed"] == status["out"] == "folded" or "refused" in str(report)


# Granularity, sums of terms, pooling, wrapped functions.


@pytest.mark.parametrize("base", ["relu", "gelu"])
def test_one_pair_for_a_layer(base: str):
    _, report = checked(image_model(nn.MaxPool2d(2), ag.Agile(base, granularity="layer")), IMAGE)
    assert statuses(report) == ["folded"]


def test_one_pair_for_each_element():
    model = sequence(
        nn.Conv2d(4, 8, 3), ag.AgileReLU((8, 6, 6), granularity="element"), nn.Flatten(), nn.Linear(288, 3)
    )
    plain, report = checked(model, IMAGE)
    assert report.sites[0].kept == ("location",)
    assert "differs within a channel" in report.sites[0].reason
    assert plain[1].location.shape == (8, 6, 6)
    flat_model = sequence(nn.Linear(5, 7), ag.AgileGELU(7, granularity="element"), nn.Linear(7, 3))
    _, report = checked(flat_model, torch.randn(4, 5, dtype=DOUBLE))
    assert statuses(report) == ["folded"]


@pytest.mark.parametrize("granularity", ["channel", "layer", "element"])
def test_a_sum_of_terms_stays_as_plain_operations(granularity: Any):
    size = {"channel": 7, "layer": None, "element": 7}[granularity]
    model = sequence(
        nn.Linear(5, 7), ag.CombinedAgile("gelu", size, 3, granularity=granularity), nn.Linear(7, 3), negative=True
    )
    plain, report = checked(model, torch.randn(4, 5, dtype=DOUBLE))
    assert statuses(report) == ["refused"]
    assert "a sum of 3 terms" in report.sites[0].reason
    assert {name for name, _ in plain[1].named_parameters()} == {f"{n}{i}" for n in ("scale", "location") for i in range(3)}


def test_a_sum_of_one_term_folds():
    model = sequence(nn.Linear(5, 7), ag.CombinedAgile("gelu", 7, 1), nn.Linear(7, 3), negative=True)
    _, report = checked(model, torch.randn(4, 5, dtype=DOUBLE))
    assert statuses(report) == ["folded"]


@pytest.mark.parametrize("base", ["relu", "gelu"])
@pytest.mark.parametrize("negative", [False, True])
def test_activation_and_pooling_in_one(base: str, negative: bool):
    model = image_model(nn.Identity(), ag.AgileMaxPool2d(8, 3, 2, 1, base=base), negative)
    _, report = checked(model, IMAGE)
    assert statuses(report) == ["partly folded" if negative else "folded"]


class SquaredReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x).square()


@pytest.mark.parametrize("last", [True, False])
def test_a_wrapped_function_of_the_users_own(last: bool):
    rest = [] if last else [nn.Linear(7, 2)]
    model = sequence(nn.Linear(5, 7), ag.AgileWrapped(SquaredReLU(), 7), *rest)
    plain, report = checked(model, torch.randn(4, 5, dtype=DOUBLE))
    assert report.sites[0].kept == (("scale",) if last else ())
    assert any(isinstance(module, SquaredReLU) for module in plain.modules())


# Shared and strange.


def test_a_shared_activation_folds_if_every_use_can():
    act = ag.AgileReLU(6)
    model = sequence(nn.Linear(6, 6), act, nn.Linear(6, 6), act, nn.Linear(6, 2))
    plain, report = checked(model, torch.randn(4, 6, dtype=DOUBLE))
    assert statuses(report) == ["folded"]
    assert report.sites[0].location_into == ("0.bias", "2.bias")
    assert plain[1] is plain[3]
    last = sequence(nn.Linear(6, 6), act, nn.Linear(6, 6), act)
    plain, report = checked(last, torch.randn(4, 6, dtype=DOUBLE))
    assert report.sites[0].kept == ("scale",)
    assert plain[1] is plain[3]


def test_shared_weights_are_refused():
    fc = nn.Linear(6, 6)
    model = sequence(fc, ag.AgileGELU(6), fc, ag.AgileTanh(6), nn.Linear(6, 2))
    _, report = checked(model, torch.randn(4, 6, dtype=DOUBLE))
    assert report.sites[0].status == "refused"
    assert "0.weight is shared" in report.sites[0].reason
    assert "0.bias is shared" in report.sites[0].reason
    assert report.sites[1].kept == ("location",)


def test_tied_weights_are_refused_even_if_only_one_is_used():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.act = ag.AgileTanh(6)
            self.head = nn.Linear(6, 6)
            self.other = nn.Linear(6, 6)
            self.other.weight = self.head.weight

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.act(self.first(x)))
            return y

    plain, report = checked(drawn(Tied().double()), torch.randn(4, 6, dtype=DOUBLE))
    assert "shared" in report.sites[0].reason
    assert plain.other.weight is plain.head.weight


def test_parametrised_and_pruned_weights_are_refused():
    model = sequence(nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 2))
    nn.utils.parametrizations.weight_norm(model[2])
    prune.l1_unstructured(model[4], "weight", amount=0.3)
    x = torch.randn(4, 6, dtype=DOUBLE)
    before = run_pruned(model, x)
    plain, report = ag.fold(model, x)
    assert [site.kept for site in report.sites] == [("scale",), ("scale",)]
    assert all("parametrised, pruned or quantised" in site.reason for site in report.sites)
    assert report.sites[1].location_into == ("2.bias",)
    torch.testing.assert_close(run_pruned(plain, x), before, rtol=1e-12, atol=1e-13)


def run_pruned(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y: Tensor = model(x)
    return y


def test_hooks_are_kept_and_see_what_they_saw():
    model = sequence(nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 6), ag.AgileReLU(6), nn.Linear(6, 2))
    seen: list[Tensor] = []
    model[1].register_forward_hook(lambda module, args, output: seen.append(output))
    model[2].register_forward_hook(lambda module, args, output: seen.append(output))
    x = torch.randn(4, 6, dtype=DOUBLE)
    plain, report = ag.fold(model, x)
    assert "a hook sees" in report.sites[0].reason
    assert "hook" in report.sites[1].reason
    seen.clear()
    model(x)
    plain(x)
    assert len(seen) == 4
    torch.testing.assert_close(seen[2:], seen[:2], rtol=1e-12, atol=1e-13)


def test_a_hook_of_a_container_sees_what_it_saw():
    inner = nn.Sequential(nn.Linear(6, 6), ag.AgileTanh(6))
    model = sequence(inner, nn.Linear(6, 6))
    seen: list[Tensor] = []
    inner.register_forward_hook(lambda module, args, output: seen.append(output))
    x = torch.randn(4, 6, dtype=DOUBLE)
    plain, report = ag.fold(model, x)
    assert "a hook of 0 sees it" in report.sites[0].reason
    seen.clear()
    model(x)
    plain(x)
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-12, atol=1e-13)


def test_matrix_products_and_parameters_that_are_signals():
    class Manual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 8))
            self.bias = nn.Parameter(torch.randn(8))
            self.act = ag.AgileReLU(8, dim=-1)
            self.place = nn.Parameter(torch.randn(5, 8))
            self.out = ag.AgileReLU(8, dim=-1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.out(self.act(x @ self.weight + self.bias) + self.place)
            return y

    _, report = checked(drawn(Manual().double()), torch.randn(4, 5, 6, dtype=DOUBLE))
    assert statuses(report) == ["folded", "folded"]
    assert report.sites[0].location_into == ("bias",)


def test_attention_keeps_its_numbers():
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=ag.AgileGELU(16, dim=-1), batch_first=True)
    plain, report = checked(drawn(layer.double()), torch.randn(2, 5, 8, dtype=DOUBLE))
    assert statuses(report) == ["folded"]
    assert report.sites[0].location_into == ("linear1.bias",)
    assert report.sites[0].scale_into == ("linear2",)


def test_channels_padded_with_zeros_take_any_gauge():
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.act = ag.AgileReLU(4)
            self.wide = nn.Conv2d(4, 8, 3, padding=1)
            self.out = ag.AgileReLU(8)
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.conv(x))
            y: Tensor = self.head(self.out(self.wide(x) + F.pad(x, (0, 0, 0, 0, 2, 2))))
            return y

    _, report = checked(drawn(Shortcut().double()), IMAGE)
    assert statuses(report) == ["folded", "folded"]


def test_the_model_may_be_an_activation_itself():
    model = drawn(ag.AgileGELU(4).double())
    plain, report = checked(model, IMAGE)
    assert report.sites[0].name == ""
    assert report.sites[0].status == "refused"
    assert "(the model itself)" in str(report)
    untouched, report = ag.fold(ag.AgileGELU(4), IMAGE.float())
    assert isinstance(untouched, nn.GELU)
    assert report.same_architecture


def test_at_the_start_nothing_is_changed():
    model = nn.Sequential(nn.Conv2d(4, 8, 3), ag.AgileReLU(8), nn.Conv2d(8, 4, 1), ag.AgileSigmoid(4)).double()
    plain, report = checked(model, IMAGE)
    assert report.same_architecture
    assert report.relative == 0.0
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_without_activations_or_example():
    model = nn.Linear(3, 2)
    plain, report = ag.fold(model)
    assert plain is not model
    assert report.sites == []
    with pytest.raises(ag.ArgumentError, match="fold needs example_inputs"):
        ag.fold(nn.Sequential(nn.Linear(3, 2), ag.AgileReLU(2)))
    with pytest.raises(ag.ArgumentTypeError, match="tensor, a tuple"):
        ag.fold(nn.Sequential(nn.Linear(3, 2), ag.AgileReLU(2)), [torch.ones(1, 3)])  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentTypeError, match=r"must be a torch\.nn\.Module"):
        ag.fold(3)  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentTypeError, match="tolerance must be a number"):
        ag.fold(model, tolerance="small")  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentError, match="at least 0"):
        ag.fold(model, tolerance=-1.0)


class Branching(nn.Module):
    """A model that does in training what the example in evaluation does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.act = ag.AgileTanh(6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.fc(x))
        y: Tensor = self.head(x)
        return y + x.exp().sum() if self.training else y


def test_a_wrong_model_is_not_returned():
    with pytest.raises(ag.FoldError, match="in training mode the outputs differ"):
        ag.fold(drawn(Branching().double()), torch.randn(4, 6, dtype=DOUBLE))


def test_tolerance_is_the_users():
    model = drawn(nn.Sequential(nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 2)))
    with pytest.raises(ag.FoldError, match="this is rounding: allow more"):
        ag.fold(model, torch.randn(4, 6), tolerance=0.0)
    _, report = ag.fold(model, torch.randn(4, 6), tolerance=1e-5)
    assert 0 < report.relative < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_coarser_dtypes(dtype: torch.dtype):
    model = drawn(nn.Sequential(nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 6), ag.AgileReLU(6))).to(dtype)
    plain, report = ag.fold(model, torch.randn(4, 6, dtype=dtype))
    assert statuses(report) == ["folded", "folded"]
    assert plain(torch.randn(4, 6, dtype=dtype)).dtype == dtype


def test_an_activation_that_does_not_run_becomes_plain_operations():
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.never = ag.AgileTanh(6)
            self.start = ag.AgileReLU(6)
            self.open = ag.AgileReLU()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(x)
            return y

    model = drawn_but(Unused().double())
    plain, report = ag.fold(model, torch.randn(4, 6, dtype=DOUBLE))
    assert {site.name: site.status for site in report.sites} == {"never": "refused", "start": "folded", "open": "folded"}
    for shape in ((2, 6), (2, 6, 3), (2, 6, 3, 3)):
        x = torch.randn(shape, dtype=DOUBLE)
        torch.testing.assert_close(plain.never(x), model.never(x), rtol=1e-12, atol=1e-13)


def drawn_but(model: Any) -> Any:
    with torch.no_grad():
        model.never.scale.uniform_(-1.5, 1.5)
        model.never.location.normal_()
    return model


def test_flags_and_sharing_are_kept():
    model = sequence(nn.Linear(6, 6), ag.AgileTanh(6), nn.Linear(6, 2))
    model[0].weight.requires_grad_(False)
    model[2].eval()
    plain, _ = ag.fold(model, torch.randn(4, 6, dtype=DOUBLE))
    assert not plain[0].weight.requires_grad
    assert plain[0].bias.requires_grad
    assert [module.training for module in plain] == [True, True, False]


def test_training_goes_on():
    model = sequence(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), ag.AgileReLU(8), ag.AgileMaxPool2d(8, 2), nn.Conv2d(8, 2, 1))
    plain, _ = checked(model, IMAGE)
    plain.train()
    optimizer = torch.optim.SGD(plain.parameters(), 0.01)
    losses = []
    for _ in range(5):
        loss = plain(IMAGE).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_what_stays_can_be_pickled_and_trained():
    model = sequence(nn.Linear(6, 6), nn.ReLU(), ag.AgileGELU(6), nn.Softmax(-1))
    x = torch.randn(4, 6, dtype=DOUBLE)
    plain, report = checked(model, x)
    assert statuses(report) == ["refused"]
    loaded = pickle.loads(pickle.dumps(plain))
    assert torch.equal(loaded(x), plain(x))
    plain(x).sum().backward()
    assert plain[2].scale.grad is not None


def test_arguments_by_name_and_outputs_of_any_kind():
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)
            self.act = ag.AgileTanh(6)
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor, *, factor: Tensor) -> dict[str, Any]:
            x = self.act(self.fc(x))
            return OrderedDict(logits=self.head(x), parts=[self.head(x * factor)])

    model = drawn(Several().double())
    x = {"x": torch.randn(4, 6, dtype=DOUBLE), "factor": torch.randn(4, 1, dtype=DOUBLE)}
    plain, report = checked(model, x)
    assert "shared" in report.sites[0].reason
    assert len(run(plain, x)) == 2
