"""The start of standardised weights: rows, sizes and positions against formulas in float64, and who is left free."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import agileact as ag
from agileact.nn.rows import held

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 4), (5, 6)),
    "conv1d": (nn.Conv1d(6, 4, 3, groups=2), (2, 6, 9)),
    "conv2d": (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 6, 6)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 6, 6)),
    "conv3d": (nn.Conv3d(2, 4, 2, bias=False), (2, 2, 4, 4, 4)),
    "conv_transpose1d": (nn.ConvTranspose1d(6, 4, 3, stride=2), (2, 6, 5)),
    "conv_transpose2d": (nn.ConvTranspose2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
    "conv_transpose3d": (nn.ConvTranspose3d(3, 4, 2), (2, 3, 3, 3, 3)),
}


def rows(layer: Any) -> list[torch.Tensor]:
    """Return all numbers that make each output channel, found by what a layer does to one input number at a time."""
    weight = layer.weight.detach().double()
    if "Transpose" not in type(layer).__name__:
        return [row.flatten() for row in weight]
    each = layer.out_channels // layer.groups
    inputs = layer.in_channels // layer.groups
    found = []
    for channel in range(layer.out_channels):
        group, place = divmod(channel, each)
        found.append(weight[group * inputs : (group + 1) * inputs, place].flatten())
    return found


def agile(layer: nn.Module, base: str = "relu", channels: int = 4) -> nn.Sequential:
    return nn.Sequential(copy.deepcopy(layer), ag.Agile(base, channels), nn.Flatten(), nn.LazyLinear(2))


@pytest.mark.parametrize("centre", ["hidden", "all", "start", "none"])
@pytest.mark.parametrize("name", LAYERS)
def test_rows_are_directions_of_mean_0_or_not(name, centre):
    layer, shape = LAYERS[name]
    model = agile(layer)
    x = torch.randn(shape)
    model(x)
    before = rows(model[0])
    started: Any
    started, report = ag.standardize(model, x, centre=centre)
    for old, new in zip(before, rows(started[0]), strict=True):
        moved = old - old.mean() if centre in ("all", "start") else old
        torch.testing.assert_close(new, moved / moved.norm(), rtol=1e-6, atol=1e-6)
    assert started[0].bias is None
    assert held(started[0]) == ("centred" if centre == "all" else "length")
    assert report.sites[0].centred == ("mean 0" in str(report)) == (centre == "all")
    assert started[3].bias is not None
    assert [site.status for site in report.sites] == ["standardized", "left free"]
    assert (report.sites[0].rows, report.sites[0].numbers) == (4, before[0].numel())
    assert all(torch.equal(one, two) for one, two in zip(rows(model[0]), before, strict=True))  # a copy was changed


def test_only_layers_behind_an_activation_are_centred():
    x = torch.randn(4, 6)
    model, report = ag.standardize(Residual(), x)
    assert {site.name: site.centred for site in report.standardized} == {
        "stem": False,
        "one": True,
        "two": True,
        "wide": True,
    }
    assert "8 x 8, mean 0" in str(report)
    for site in report.standardized:
        assert (rows(model.get_submodule(site.name))[0].mean().abs() < 1e-6) == site.centred
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Identity(), nn.LayerNorm(5), nn.Linear(5, 5), nn.ReLU())
    _, converted = ag.convert(net, example_inputs=x, weights="standardized")
    assert converted.weights is not None
    assert [site.centred for site in converted.weights.standardized] == [False]  # no activation before it


def test_a_layer_that_also_reads_the_input_keeps_its_mean():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(4, 4), ag.AgileReLU(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.act(self.layer(self.act(self.layer(x)))) + 1
            return result

    assert not ag.standardize(Twice(), torch.randn(3, 4))[1].sites[0].centred


def test_a_row_of_two_numbers_has_a_direction_where_it_keeps_its_mean():
    model = nn.Sequential(nn.Linear(2, 8), ag.AgileReLU(8), nn.Linear(8, 1))
    assert len(ag.standardize(model, torch.randn(3, 2))[1].standardized) == 1
    with pytest.raises(ag.ArgumentError, match="0: a row of 2 numbers has no direction to learn"):
        ag.standardize(model, torch.randn(3, 2), centre="all")


def test_centring_is_refused_where_it_means_nothing():
    x, model = torch.randn(3, 6), agile(nn.Linear(6, 4))
    for wrong in ("yes", True):
        with pytest.raises(ag.ArgumentError, match="centre must be 'hidden', 'all', 'none' or 'start', not"):
            ag.standardize(model, x, centre=wrong)  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentError, match="centre='start' starts from another function: give it or keep_function"):
        ag.standardize(model, x, centre="start", keep_function=True)
    with pytest.raises(ag.ArgumentError, match="centre='all' is for weights='standardized', not for 'free' ones"):
        ag.convert(model, example_inputs=x, centre="all")


def gauss(function: Any) -> float:
    """Return 1 / std f(xi) by Gauss-Hermite quadrature."""
    z, weights = np.polynomial.hermite_e.hermegauss(150)
    weights = weights / weights.sum()
    f = function(torch.from_numpy(z)).numpy()
    return float(1 / np.sqrt((weights * f * f).sum() - (weights * f).sum() ** 2))


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("relu", 1 / math.sqrt(0.5 - 0.5 / math.pi)),
        ("identity", 1.0),
        ("leaky_relu", 1 / math.sqrt((1 + 0.01**2) / 2 - (0.99**2) / (2 * math.pi))),
        ("sine", 1 / math.sqrt((1 - math.exp(-2)) / 2)),
        ("sigmoid", gauss(torch.sigmoid)),
        ("tanh", gauss(torch.tanh)),
        ("gelu", gauss(F.gelu)),
        ("silu", gauss(F.silu)),
        ("softplus", gauss(F.softplus)),
    ],
)
def test_the_scale_starts_where_a_signal_keeps_its_size(base, expected):
    model: Any
    model, report = ag.standardize(agile(nn.Linear(6, 4), base), torch.randn(3, 6))
    activation = model[1]
    torch.testing.assert_close(activation.scale.detach(), torch.full((4,), expected), rtol=1e-6, atol=0.0)
    assert report.sites[0].scale == pytest.approx(expected, rel=1e-6)
    assert not activation.location.any()
    homogeneous = activation.facts.positively_homogeneous
    assert (activation.gain is None) == homogeneous == (base in ("relu", "identity", "leaky_relu"))
    assert report.sites[0].gain != homogeneous
    activation.reset_parameters()
    torch.testing.assert_close(activation.scale.detach(), torch.full((4,), expected), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("base", ["relu", "gelu", "sigmoid", "tanh"])
def test_a_signal_keeps_its_size_through_many_layers(base):
    torch.manual_seed(0)
    width, depth = 200, 12
    parts = [part for _ in range(depth) for part in (nn.Linear(width, width), ag.Agile(base, width))]
    x = torch.randn(400, width)
    model: Any
    model, _ = ag.standardize(nn.Sequential(*parts), x)
    with torch.no_grad():
        h = x
        for part in model:
            h = part(h)
    assert 0.5 < float(h.std()) < 2.0  # plain, it is below 0.02 for each of the four


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("base", ["relu", "gelu"])
def test_the_function_can_be_kept(name, base):
    layer, shape = LAYERS[name]
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    model = agile(layer, base).double()
    model(x)
    with torch.no_grad():
        for parameter in model[1].parameters():
            parameter.uniform_(0.5, 1.5)
    started: Any
    started, report = ag.standardize(model, x, keep_function=True)
    torch.testing.assert_close(started(x), model(x), rtol=1e-12, atol=1e-12)
    for row in rows(started[0]):
        assert float(row.norm()) == pytest.approx(1, abs=1e-12)
    assert started[0].bias is None
    assert report.sites[0].scale is None
    assert held(started[0]) == "length"


class Residual(nn.Module):
    """A network with a stem, two blocks of which the second has a shortcut with a layer, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Linear(6, 8), ag.AgileReLU(8)
        self.one, self.act1 = nn.Linear(8, 8), ag.AgileGELU(8)
        self.two, self.act2 = nn.Linear(8, 8), ag.AgileGELU(8)
        self.wide, self.act3, self.short = nn.Linear(8, 5), ag.AgileReLU(5), nn.Linear(8, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.act(self.stem(x))
        h = h + self.act2(self.two(self.act1(self.one(h))))
        h = self.short(h) + self.act3(self.wide(h))
        result: torch.Tensor = self.head(h)
        return result


def test_blocks_can_start_as_the_identity():
    x = torch.randn(4, 6)
    model: Any
    model, report = ag.standardize(Residual(), x, skip_init=True)
    scales = {site.name: site.scale for site in report.standardized}
    assert {name: scale == 0 for name, scale in scales.items()} == {
        "stem": False,
        "one": False,
        "two": True,
        "wide": True,
    }
    with torch.no_grad():
        torch.testing.assert_close(model(x), model.head(model.short(model.act(model.stem(x)))))
    model(x).sum().backward()
    assert model.act2.scale.grad.abs().sum() > 0  # it learns to take part
    with pytest.raises(ag.ArgumentError, match="no branch of a residual sum"):
        ag.standardize(agile(nn.Linear(6, 4)), x, skip_init=True)
    with pytest.raises(ag.ArgumentError, match="give it or keep_function"):
        ag.standardize(Residual(), x, skip_init=True, keep_function=True)


def test_a_layer_that_runs_twice_has_one_direction_and_two_sizes():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.first, self.second = nn.Linear(4, 4), ag.AgileReLU(4), ag.AgileTanh(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.second(self.layer(self.first(self.layer(x)))) * 2
            return result

    _, report = ag.standardize(Twice(), torch.randn(3, 4))
    assert report.sites[0].activation == "first, second"
    assert report.sites[0].scale is None
    torch.manual_seed(1)
    plain = Twice().double()
    x = torch.randn(3, 4).double()
    kept, _ = ag.standardize(plain, x, keep_function=True)
    torch.testing.assert_close(kept(x), plain(x), rtol=1e-12, atol=1e-12)


def test_an_activation_behind_several_layers_has_one_size_for_all():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.act = nn.Linear(4, 4), nn.Linear(4, 4), ag.AgileReLU(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.act(self.two(self.act(self.one(x)))) + 1
            return result

    x = torch.randn(3, 4)
    assert len(ag.standardize(Shared(), x)[1].standardized) == 2
    with pytest.raises(ag.ArgumentError, match="one: its activation act is shared, and has one size for all"):
        ag.standardize(Shared(), x, keep_function=True)


class Between(nn.Module):
    """Layers that something other than an agile activation follows."""

    def __init__(self) -> None:
        super().__init__()
        self.normed, self.norm, self.act0 = nn.Linear(6, 4), nn.LayerNorm(4), ag.AgileReLU(4)
        self.summed, self.act1 = nn.Linear(4, 4), ag.AgileReLU(4)
        self.fork, self.act2 = nn.Linear(4, 4), ag.AgileReLU(4)
        self.whole, self.act3 = nn.Linear(4, 4), ag.AgileReLU(granularity="layer")
        self.pooled, self.act4 = nn.Linear(4, 4), ag.AgileReLU(2)
        self.thin, self.act5 = nn.Linear(2, 4), ag.AgileReLU(4)
        self.wrapped, self.act6 = nn.Linear(4, 4), ag.AgileWrapped(torch.relu, 4)
        self.sum, self.act7 = nn.Linear(4, 4), ag.CombinedAgile("gelu", 4)
        self.turned, self.act8 = nn.Linear(4, 4), ag.AgileReLU(4)
        self.normal, self.act9 = parametrizations.weight_norm(nn.Linear(4, 4)), ag.AgileReLU(4)
        self.good, self.act10 = nn.Linear(4, 4), ag.AgileReLU(4)
        self.last = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.act0(self.norm(self.normed(x)))
        h = self.act1(self.summed(h) + h)
        y = self.fork(h)
        h = self.act3(self.whole(self.act2(y) + y))
        h = self.act5(self.thin(self.act4(F.max_pool1d(self.pooled(h), 2))))
        h = self.act7(self.sum(self.act6(self.wrapped(h))))
        h = self.act8(self.turned(h).flip(-1))
        h = self.act10(self.good(self.act9(self.normal(h))))
        result: torch.Tensor = self.last(h)
        return result


REASONS = {
    "normed": "layer_norm lies between, which already divides its size out",
    "summed": "a sum lies between, in which its size counts beside that of the other part",
    "fork": "what it makes is used 2 times",
    "whole": "its activation has one size for each layer, not for each row",
    "pooled": "no agile activation directly behind it, but max_pool1d",
    "thin": "a row of 2 numbers has no direction to learn",
    "wrapped": "its activation, AgileWrapped, has no gain",
    "sum": "its activation, CombinedAgile, has no gain",
    "turned": "the channels of its activation are not its rows",
    "normal": "its weight is parametrised, pruned or computed",
    "last": "no agile activation behind: it is returned",
}


def test_who_is_left_free_and_why():
    _, report = ag.standardize(Between(), torch.randn(3, 6))
    assert [site.name for site in report.standardized] == ["good"]
    found = {site.name: site.reason for site in report.left_free}
    assert found.keys() == REASONS.keys()
    for name, reason in REASONS.items():
        assert found[name] == reason, name
    text = str(report)
    assert text.startswith("1 standardized, 11 left free")
    assert "layer_norm lies between" in text


def test_tied_weights_are_left_free():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.act = nn.Linear(4, 4), ag.AgileReLU(4)
            self.outer = nn.Linear(4, 4)
            self.outer.weight = self.inner.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.outer(self.act(self.inner(x)))
            return result

    with pytest.raises(ag.ArgumentError, match=r"inner: its parameters are shared: inner\.weight, outer\.weight"):
        ag.standardize(Tied(), torch.randn(3, 4))


def test_channels_are_followed_through_views():
    class Moved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(4, 6), ag.AgileReLU(6, dim=-1)
            self.conv, self.act2 = nn.Conv1d(6, 5, 2), ag.AgileTanh(5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.act(self.layer(x).unsqueeze(1).squeeze(1).contiguous())
            result: torch.Tensor = self.act2(self.conv(h.transpose(1, 2))).sum(-1)
            return result

    _, report = ag.standardize(Moved(), torch.randn(3, 7, 4))
    assert [site.name for site in report.standardized] == ["layer", "conv"]


def test_filtered_in_place_or_without_values():
    model: Any = nn.Sequential(nn.Linear(4, 8), ag.AgileReLU(8), nn.Linear(8, 8), ag.AgileReLU(8), nn.Linear(8, 2))
    x = torch.randn(3, 4)
    _, report = ag.standardize(model, x, filter_fn=lambda layer, name: name == "2")
    assert [site.name for site in report.standardized] == ["2"]
    assert report.left_free[0].reason == "filter_fn leaves it out"
    same: Any
    same, _ = ag.standardize(model, x, inplace=True)
    assert same is model
    assert model[0].bias is None
    with pytest.raises(ag.ArgumentError, match="meta device"):
        ag.standardize(copy.deepcopy(model).to("meta"), x)
    with pytest.raises(ag.ArgumentError, match="no layer of the model can be standardised: none ran"):
        ag.standardize(ag.AgileReLU(4), x)


def test_convert_starts_so_in_one_call():
    torch.manual_seed(0)
    plain: Any = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    x = torch.randn(3, 4)
    model: Any
    model, report = ag.convert(plain, example_inputs=x, weights="standardized")
    assert report.weights is not None
    assert [site.name for site in report.weights.standardized] == ["0"]
    assert model[1].gain is not None
    assert len(report.converted) == 1
    assert plain[0].bias is not None
    assert ag.convert(plain, example_inputs=x)[1].weights is None


def test_convert_undoes_what_cannot_be_standardised():
    plain = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(3, 4)
    before = plain(x)
    with pytest.raises(ag.ArgumentError, match="layer_norm lies between"):
        ag.convert(plain, example_inputs=x, weights="standardized", inplace=True)
    assert type(plain[2]) is nn.ReLU
    assert torch.equal(plain(x), before)
    with pytest.raises(ag.ArgumentError, match="weights must be 'free' or 'standardized', not 'unit'"):
        ag.convert(plain, example_inputs=x, weights="unit")  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentError, match="needs granularity 'channel'"):
        ag.convert(plain, example_inputs=x, weights="standardized", granularity="layer")


def test_the_feed_forward_parts_of_a_transformer():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
    x = torch.randn(2, 5, 16)
    model, report = ag.convert(nn.TransformerEncoder(layer, 2), example_inputs=x, weights="standardized")
    assert report.weights is not None
    assert [site.name for site in report.weights.standardized] == ["layers.0.linear1", "layers.1.linear1"]
    assert report.weights.left_free[0].reason == "no agile activation directly behind it, but dropout"
    plain, folded = ag.fold(model, x)
    assert {site.status for site in folded.sites} == {"folded"}
    torch.testing.assert_close(plain.eval()(x), model.eval()(x), rtol=1e-4, atol=1e-5)
