"""architecture="keep": what folds whole folds, the rest stays agile, and the report says whether the class fits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

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
    assert statuses(report) == ["refused", "folded"]
    assert report.new_parameters == ("1.scale", "1.location")
    assert "it stays agile: its location needs a bias that the architecture has not: 0.bias" in report.sites[0].reason
    assert torch.equal(plain[1].scale, model[1].scale)
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
        (ag.AgileTanh(3), "its scale: behind it: the model returns it"),
        (ag.CombinedAgile("tanh", 3, terms=2), "a sum of 2 terms"),
    ],
)
def test_a_scale_that_stays_keeps_the_activation_agile(last: Any, why: str):
    plain, report = kept(sequence(nn.Linear(6, 8), ag.AgileTanh(8), nn.Linear(8, 3), last))
    assert statuses(report) == ["folded", "refused"]
    assert why in report.sites[1].reason
    assert type(plain[3]) is type(last)


def test_one_that_stays_keeps_another_in_the_same_sum():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 8), nn.Linear(6, 8, bias=False)
            self.act, self.other, self.head = ag.AgileTanh(8), ag.AgileReLU(8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.act(self.one(x)) + self.other(self.two(x)))
            return y

    plain, report = kept(drawn(Sum().double()))
    assert statuses(report) == ["refused", "refused"]
    assert isinstance(plain.act, ag.AgileTanh)
    assert "its location needs a bias" in report.sites[1].reason


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
    assert statuses(report) == ["refused", "refused"]
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
