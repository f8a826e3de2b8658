"""Gates, granularities, sums of terms, activation with pooling, functions of the user's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag
from tests.transforms.folding import DOUBLE, IMAGE, checked, drawn, image_model, sequence, statuses


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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
    model = drawn(Gated(copy.deepcopy(second), fused).double(), negative=negative)
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


def test_the_gauges_of_a_gated_sum_disagree():
    # The sum wants the gauge of the gate's scale times that of the activation, and that of the activation: one stays.
    _, report = checked(drawn(Excitation(True).double()), IMAGE)
    assert {site.name: site.kept for site in report.sites} == {
        "act": (),
        "squeezed": (),
        "gate": ("scale",),
        "out": ("location",),
    }


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
    names = {f"{name}{term}" for name in ("scale", "location") for term in range(3)}
    assert {name for name, _ in plain[1].named_parameters()} == names


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
