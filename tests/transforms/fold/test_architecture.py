"""architecture="keep": what fits folds, in whole or in part, the rest stays agile, and the report says which."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import agileact as ag
from tests.transforms.folding import BARS, DOUBLE, assert_close, drawn, run, sequence, statuses

X = torch.randn(5, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(4))
FITS, NOT = "the state fits the original class", "the state does not fit the original class; new: "


def kept(model: nn.Module, x: Any = X) -> tuple[Any, Any]:
    plain, report = ag.fold(model, x, architecture="keep")
    for training in (False, True):
        assert_close(run(plain, x, training=training), run(model, x, training=training), 100 * BARS[DOUBLE])
    assert str(report).startswith(FITS if report.same_architecture else NOT)
    return plain, report


def test_what_fits_folds_as_ever():
    plain, report = kept(sequence(nn.Linear(6, 8), ag.AgileTanh(8), nn.Linear(8, 3)))
    assert report.same_architecture
    assert report.new_parameters == ()
    fresh = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    fresh.load_state_dict(plain.state_dict())
    assert torch.equal(fresh(X), plain(X))


def test_a_missing_bias_keeps_the_activation_agile():
    model = sequence(nn.Linear(6, 8, bias=False), ag.AgileTanh(8), nn.Linear(8, 3), ag.AgileReLU(3), nn.Linear(3, 2))
    plain, report = kept(model)
    assert statuses(report) == ["partly folded", "folded"]
    assert report.new_parameters == ("1.scale", "1.location")
    wanted = "it stays agile; location stays: it needs a bias that the architecture has not: 0.bias"
    assert report.sites[0].reason == wanted
    assert (report.sites[0].kept, report.sites[0].scale_into) == (("location",), ("2",))
    assert torch.equal(plain[1].location, model[1].location)
    assert torch.equal(plain[1].scale, torch.ones_like(plain[1].scale))
    assert torch.equal(plain[0].weight, model[0].weight)
    again, _ = ag.convert(
        nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 3)).double(), example_inputs=X
    )
    again.load_state_dict({name: value for name, value in plain.state_dict().items() if name[0] < "3"})
    _, report = ag.fold(model, X)
    assert report.new_parameters == ("0.bias",)
    assert str(report).startswith(f"{NOT}0.bias\n")


def test_without_a_location_no_bias_is_needed():
    model = sequence(nn.Linear(6, 8, bias=False), ag.AgileTanh(8), nn.Linear(8, 3))
    with torch.no_grad():
        model[1].location.zero_()
    _, report = kept(model)
    assert report.same_architecture


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (ag.AgileTanh(3), "scale stays: behind it: the model returns it"),
        (ag.CombinedAgile("tanh", 3, terms=2), "a sum of 2 terms"),
    ],
)
def test_a_scale_that_stays_keeps_the_activation_agile(last: Any, why: str):
    plain, report = kept(sequence(nn.Linear(6, 8), ag.AgileTanh(8), nn.Linear(8, 3), last))
    combined = isinstance(last, ag.CombinedAgile)
    assert statuses(report) == ["folded", "refused" if combined else "partly folded"]
    assert report.sites[1].location_into == (() if combined else ("2.bias",))
    assert why in report.sites[1].reason
    assert type(plain[3]) is type(last)
    assert bool(plain[3].location.any()) == combined


def test_what_stays_of_one_keeps_no_other_from_folding():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 8), nn.Linear(6, 8, bias=False)
            self.act, self.other, self.head = ag.AgileTanh(8), ag.AgileReLU(8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.act(self.one(x)) + self.other(self.two(x)))
            return y

    plain, report = kept(drawn(Sum().double()))
    assert statuses(report) == ["folded", "partly folded"]
    assert isinstance(plain.act, nn.Tanh)
    assert "location stays: it needs a bias" in report.sites[1].reason
    assert report.sites[1].scale_into, "the scale of the second is in the weights before it, and its location fits them"


def test_a_rewritten_call_that_stays_keeps_its_rewritten_method():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head = nn.Linear(6, 8, bias=False), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.tanh(self.head(torch.relu(self.fc(x))))
            return y

    agile, _ = ag.convert(Net().double(), example_inputs=X)
    plain, report = kept(drawn(agile))
    assert statuses(report) == ["partly folded", "partly folded"]
    assert sum(isinstance(module, ag.AgileModule) for module in plain.modules()) == 2
    with torch.no_grad():
        for module in agile.modules():
            if isinstance(module, ag.AgileModule):
                module.location.zero_()
                module.scale.fill_(1.0 + isinstance(module, ag.AgileReLU))
    plain, report = kept(agile)
    assert report.same_architecture
    assert type(plain) is Net


def test_what_does_not_run_stays_agile_too():
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act, self.never = nn.Linear(6, 8), ag.AgileTanh(8), ag.AgileTanh(8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(x)
            return y

    model = Unused().double()
    with torch.no_grad():
        model.never.scale.fill_(2.0)
    plain, report = kept(model)
    assert {site.name: site.status for site in report.sites} == {"act": "folded", "never": "refused"}
    assert isinstance(plain.never, ag.AgileTanh)


def test_a_switch_of_the_configuration_is_named():
    class Config:
        def __init__(self) -> None:
            self.mlp_bias = False
            self.head_bias = False
            self.use_cache = False

    class Net(nn.Module):
        def __init__(self, config: Config) -> None:
            super().__init__()
            self.config = config
            self.up, self.act = nn.Linear(6, 8, bias=config.mlp_bias), ag.AgileTanh(8)
            self.down = nn.Linear(8, 2, bias=config.head_bias)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.down(self.act(self.up(x)))
            return y

    model = drawn(Net(Config()).double())
    _, report = kept(model)
    assert report.note == "config.mlp_bias = True gives the class a bias where one is missing: up.bias"
    plain, report = ag.fold(model, X)
    assert "config.mlp_bias = True" in report.note
    other = Config()
    other.mlp_bias = True
    wide = Net(other).double()
    wide.act = nn.Tanh()  # type: ignore[assignment]
    wide.load_state_dict(plain.state_dict())
    assert torch.equal(wide(X), plain(X))


@pytest.mark.parametrize("base", ["gelu", "relu"])
@pytest.mark.parametrize("bias", [False, True])
def test_of_an_activation_with_a_gain_what_fits_folds(base: str, bias: bool):
    model = sequence(nn.Linear(6, 8, bias=bias), ag.Agile(base, 8, gain=True), nn.Linear(8, 3), ag.AgileTanh(3))
    with torch.no_grad():
        model[1].gain.uniform_(0.5, 1.5)
    plain, report = kept(model)
    if bias:
        assert statuses(report)[0] == "folded"
        return
    assert statuses(report)[0] == "partly folded"
    assert report.new_parameters[:3] == ("1.scale", "1.location", "1.gain")
    # What a positive gain is for relu, the weights behind it can be.
    assert (report.sites[0].gain_into, report.sites[0].scale_into) == (("2",) if base == "relu" else ("0",), ("2",))
    assert bool((plain[1].scale == 1).all() and (plain[1].gain == 1).all() and plain[1].location.any())


def test_a_pair_that_would_differ_from_place_to_place_stays_whole():
    """One scale for all channels, in a sum with eight that differ: no pair holds what is left of it."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 8), nn.Linear(6, 8, bias=False)
            self.act, self.other = ag.AgileTanh(8), ag.AgileReLU(granularity="layer")
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.act(self.one(x)) + self.other(self.two(x)))
            return y

    model = drawn(Sum().double())
    plain, report = kept(model)
    assert isinstance(plain.other, ag.AgileReLU)
    assert statuses(report)[1] != "folded"
    assert all(site.reason for site in report.refused)


@pytest.mark.parametrize("how", ["pruned", "shared"])
def test_parameters_that_cannot_be_written_stay_whole(how: str):
    model = sequence(
        nn.Linear(6, 8, bias=False), ag.AgileTanh(8), nn.Linear(8, 8, bias=False), ag.AgileTanh(8), nn.Linear(8, 2)
    )
    if how == "pruned":
        prune.l1_unstructured(model[1], "scale", amount=0.5)
    else:
        model[3].scale = model[1].scale
    expected = model(X)
    plain: Any
    plain, report = ag.fold(model, X, architecture="keep")
    torch.testing.assert_close(plain(X), expected, rtol=1e-12, atol=1e-13)
    assert statuses(report)[0] == "refused"
    assert "it needs a bias" in report.sites[0].reason
    before = model[1].scale_orig if how == "pruned" else model[1].scale
    assert torch.equal(plain[1].scale_orig if how == "pruned" else plain[1].scale, before)
    assert (how == "shared") == (statuses(report)[1] == "refused")
