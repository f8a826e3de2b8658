"""What a calibration leaves as it is, and models of every kind."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

import agileact as ag
from tests.calibration.networks import deep, size_of


class _Busy(nn.Module):
    """Everything that a forward pass can change or draw."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)
        self.frozen = nn.BatchNorm1d(16).eval()
        self.drop = nn.Dropout(0.5)
        self.body = deep()
        self.register_buffer("calls", torch.zeros(()))
        self.calls: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1  # in a new tensor
        x = F.dropout(self.drop(self.frozen(self.norm(x))), 0.5, self.training)
        y: Tensor = self.body(x)
        return y


def test_only_scales_and_locations_change():
    model = _Busy()
    model(torch.randn(20, 16)).sum().backward()
    before, calls = copy.deepcopy(model.state_dict()), model.calls
    gradients = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    flags = [module.training for module in model.modules()]
    identities = {name: id(parameter) for name, parameter in model.named_parameters()}
    state = torch.random.get_rng_state()
    report = ag.calibrate(model, 5 * torch.randn(64, 16, generator=torch.Generator().manual_seed(3)) + 2)
    assert report.calibrated
    assert torch.equal(state, torch.random.get_rng_state())
    assert flags == [module.training for module in model.modules()]
    assert model.calls is calls
    assert identities == {name: id(parameter) for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradients[name])
    for name, value in model.state_dict().items():
        if not name.endswith(("scale", "location")):
            assert torch.equal(value, before[name]), name
    assert not any(module._forward_hooks for module in model.modules())


def test_batch_statistics_are_those_of_training():
    """Batch normalisation normalises by the batch, as it will, and not by statistics that it has not gathered yet."""
    model: Any = nn.Sequential(nn.BatchNorm1d(4), ag.AgileTanh(4)).double()
    ag.calibrate(model, 100 * torch.randn(500, 4).double() + 7, when="always", signal=0.1)
    assert model[1].location.abs().max() < 1e-12
    assert model[1].scale[0].item() == pytest.approx(
        0.1 / size_of(torch.tanh(torch.randn(100_000, 4).double())), rel=0.05
    )


def test_lazy_modules_are_made():
    torch.manual_seed(0)
    parts = [part for _ in range(6) for part in (nn.LazyLinear(12), ag.AgileSigmoid())]
    model: Any = nn.Sequential(*parts, nn.LazyBatchNorm1d())
    assert ag.calibrate(model, torch.randn(50, 9)).calibrated
    assert model.training
    assert model[-1].training
    assert int(model[-1].num_batches_tracked) == 0


def test_shared_modules_take_all_uses():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.f = ag.AgileSigmoid(4)
            self.unused = ag.AgileReLU(4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.f(self.first(x)) + self.f(self.second(x))
            return y

    model, x = Shared().double(), torch.randn(60, 4).double()
    report = ag.calibrate(model, x, when="always", signal=1.0)
    shared, unused = report.sites
    assert (shared.name, shared.calls, unused.calls) == ("f", 2, 0)
    assert "shared" in shared.reason
    assert "do not reach" in unused.reason
    both = torch.cat([model.first(x), model.second(x)])
    torch.testing.assert_close(model.f.location, both.mean(0))
    squares = sum(size_of(model.f(layer(x))) ** 2 for layer in (model.first, model.second))
    assert math.sqrt(squares / 2) == pytest.approx(1.0)


def test_what_is_not_to_be_touched_is_not():
    model = deep()
    model[3].scale.requires_grad_(False)
    prune.l1_unstructured(model[5], "scale", amount=1)
    report = ag.calibrate(model, torch.randn(50, 16), filter_fn=lambda module, name: name != "7")
    kept = {site.name: site.reason for site in report.kept}
    assert "frozen" in kept["3"]
    assert "pruned" in kept["5"]
    assert "filter_fn" in kept["7"]
    assert (model[3].scale == 1).all()
    assert (model[7].scale == 1).all()
    assert [site.name for site in report.calibrated] == ["9", "11"]


def test_calibrating_twice_changes_nothing_more():
    model, x = deep(), torch.randn(100, 16)
    assert ag.calibrate(model, x).calibrated
    before = copy.deepcopy(model.state_dict())
    assert not ag.calibrate(model, x).calibrated
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_compiled_model():
    model, twin, x = deep(), deep(), torch.randn(100, 16)
    compiled: Any = torch.compile(model, backend="eager")
    compiled(x)
    ag.calibrate(compiled, x)
    ag.calibrate(twin, x)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_half_precision():
    model, x = deep().bfloat16(), torch.randn(300, 16).bfloat16()
    assert ag.calibrate(model, x).arrived_after > 0.1
    assert model[3].scale.dtype == torch.bfloat16


def test_a_deep_network_then_trains():
    """Ten layers of sigmoids: from the identity no step helps; from data it learns."""
    torch.manual_seed(0)
    x = torch.randn(200, 16)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    losses = []
    for calibrated in (False, True):
        model = deep(layers=10)
        if calibrated:
            ag.calibrate(model, x)
        optimizer = torch.optim.Adam(ag.param_groups(model, 1e-3))
        for _ in range(200):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.0  # guessing by frequency: 1.04
    assert losses[1] < 0.5


def test_an_error_on_the_way_changes_nothing():
    class Fragile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.calls = deep(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 4:
                raise RuntimeError("no more")
            y: Tensor = self.body(x)
            return y

    model = Fragile()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="no more"):
        ag.calibrate(model, torch.randn(50, 16))
    assert model.calls == 5
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(module._forward_hooks for module in model.modules())
