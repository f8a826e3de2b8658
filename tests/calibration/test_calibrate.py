"""What a calibration does to scales and locations, against its definition."""

from __future__ import annotations

import copy
import math
from collections import UserDict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import agileact as ag
from tests.calibration.networks import convolutional, deep, outputs, size_of


def test_each_layer_gets_its_size_and_operating_point():
    model, x = deep().double(), torch.randn(300, 16).double()
    report = ag.calibrate(model, x, signal=(0.1, 10.0))
    assert len(report.calibrated) == 5  # the first gives enough by itself
    assert report.sites[0].status == "kept"
    for name, (z, y) in list(outputs(model, x).items())[1:]:
        module = model.get_submodule(name)
        torch.testing.assert_close(module.location.detach(), z.mean(0), rtol=1e-9, atol=1e-12)
        assert size_of(y) == pytest.approx(0.1, rel=1e-9)
        assert module.scale.detach().unique().numel() == 1
        # a = t / s by its formula, with torch's own function.
        expected = 0.1 / size_of(torch.sigmoid(z - z.mean(0)))
        assert module.scale[0].item() == pytest.approx(expected, rel=1e-9)


def test_a_gain_stays_and_the_size_is_that_of_what_it_makes():
    model, x = deep("sigmoid", gain=True).double(), torch.randn(300, 16).double()
    gains = {}
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, ag.Agile):
                assert module.gain is not None
                gains[name] = module.gain.copy_(torch.rand(16).double() + 0.5).clone()
    report = ag.calibrate(model, x, signal=0.3, when="always")
    assert len(report.calibrated) == 6
    for name, (z, y) in outputs(model, x).items():
        module = model.get_submodule(name)
        assert torch.equal(module.gain, gains[name])
        torch.testing.assert_close(module.location.detach(), z.mean(0), rtol=1e-9, atol=1e-12)
        assert size_of(y) == pytest.approx(0.3, rel=1e-9)
        expected = 0.3 / size_of(torch.sigmoid(gains[name] * (z - z.mean(0))))
        assert module.scale[0].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("base", ["relu", "sigmoid", "tanh"])
def test_a_standardised_start_needs_no_calibration_and_directions_stay(base):
    model, x = deep(base, layers=10), torch.randn(300, 16)
    model, _ = ag.standardize(model, x)
    assert ag.calibrate(model, x).calibrated == []
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert ag.calibrate(model, x, when="always", signal=0.2).calibrated
    changed = {name.rpartition(".")[2] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed <= {"scale", "location"}
    with torch.no_grad():
        model.get_parameter("2.weight")[3] *= 2.0
    report = ag.calibrate(model, x)
    assert report.rows["0"] == pytest.approx((1.0, 1.0), abs=1e-6)
    assert report.rows["2"] == pytest.approx((1.0, 2.0), abs=1e-6)
    assert "rows of 2: lengths 1 to 2" in str(report)


def test_convolutions_and_pooling():
    model, x = convolutional().double(), torch.randn(40, 1, 12, 12).double()
    report = ag.calibrate(model, x, when="always", signal=0.5)
    assert len(report.calibrated) == 4
    for name, (z, y) in outputs(model, x).items():
        module = model.get_submodule(name)
        axes = [axis for axis in range(z.ndim) if axis != 1]
        torch.testing.assert_close(module.location.detach(), z.mean(axes), rtol=1e-9, atol=1e-12)
        assert size_of(y) == pytest.approx(0.5, rel=1e-9)
    for site, (z, y) in zip(report.sites, outputs(model, x).values(), strict=True):
        assert site.after == pytest.approx((size_of(z), size_of(y)))


def test_positions_are_no_signal():
    """What differs from place to place alone, as at a border, is not counted."""
    module = ag.AgileTanh(3).double()
    ramp = torch.linspace(-1, 1, 50).double()
    x = 0.001 * torch.randn(80, 3, 1).double() + ramp
    report = ag.calibrate(module, x, when="always", signal=0.1, location="keep")
    assert size_of(module(x)) == pytest.approx(0.1)
    assert report.sites[0].before is not None
    assert report.sites[0].before[0] < 0.0012


@pytest.mark.parametrize("when", ["needed", "always"])
def test_a_model_that_gets_its_signal_through_is_left_alone(when: Any):
    model = nn.Sequential(nn.Linear(8, 8), ag.AgileReLU(8), nn.Linear(8, 8), ag.AgileTanh(8))
    before = copy.deepcopy(model.state_dict())
    report = ag.calibrate(model, torch.randn(100, 8), when=when, signal=(1e-3, 10.0))
    assert not report.calibrated
    assert "nothing was changed" in str(report)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_signal_that_explodes_is_brought_down():
    model = deep("relu", layers=8)
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight.mul_(12)
    x = torch.randn(200, 16)
    report = ag.calibrate(model, x)
    assert report.arrived_before > 100
    assert report.arrived_after < 10
    assert all(0 < site.factor < 1 for site in report.calibrated)
    assert all(size_of(y) <= 10 * (1 + 1e-5) for _, y in outputs(model, x).values())
    assert all((model[2 * k + 1].location == 0).all() for k in range(8))  # a rectifier's stays where it bends


def test_each_unit_by_itself():
    model, x = deep("tanh", layers=2).double(), torch.randn(400, 16).double()
    ag.calibrate(model, x, when="always", signal=1.0, scale="unit", location="median")
    for name, (z, y) in outputs(model, x).items():
        assert torch.allclose(y.std(0), torch.ones(16).double())
        assert torch.allclose(model.get_submodule(name).location, z.quantile(0.5, dim=0))


def test_location_or_scale_alone():
    x = torch.randn(100, 16)
    model = deep(layers=3)
    ag.calibrate(model, x, when="always", signal=1.0, scale="keep")
    assert (model[3].scale == 1).all()
    assert (model[3].location != 0).all()
    model = deep(layers=3)
    ag.calibrate(model, x, when="always", signal=1.0, location="keep")
    assert (model[3].location == 0).all()
    assert (model[3].scale != 1).all()


@given(granularity=st.sampled_from(["channel", "layer", "element"]), shape=st.sampled_from([(3,), (4, 3), (2, 5, 3)]))
def test_every_granularity_and_a_last_channel_axis(granularity: Any, shape: tuple[int, ...]):
    module: Any = ag.AgileTanh(granularity=granularity, dim=-1).double()
    x = 0.3 * torch.randn(60, *shape, generator=torch.Generator().manual_seed(1)).double() + 0.2
    ag.calibrate(module, x, when="always", signal=2.0)
    axes = {"channel": tuple(range(x.ndim - 1)), "layer": tuple(range(x.ndim)), "element": (0,)}[granularity]
    torch.testing.assert_close(module.location.detach(), x.mean(axes).flatten(), rtol=1e-9, atol=1e-12)
    assert size_of(module(x)) == pytest.approx(2.0)


def test_a_sum_keeps_its_shape():
    module: Any = ag.CombinedAgile("sigmoid", 3, terms=3, spread=0.5).double()
    with torch.no_grad():
        module.scale.copy_(torch.arange(1.0, 10.0))
    x = torch.randn(100, 3).double() + 4
    before_scale = module.scale_by_term.detach().clone()
    ag.calibrate(module, x, when="always", signal=0.1)
    torch.testing.assert_close(module.location_by_term[0].detach(), x.mean(0))
    distance = module.location_by_term.detach() - module.location_by_term.detach()[0]
    torch.testing.assert_close(distance, torch.tensor([[0.0], [0.5], [-0.5]]).double().expand(3, 3))
    ratio = module.scale_by_term.detach() / before_scale
    torch.testing.assert_close(ratio, ratio[0, 0].expand(3, 3))
    assert size_of(module(x)) == pytest.approx(0.1)


def test_wrapped_modules():
    model: Any = nn.Sequential(nn.Linear(4, 4), ag.AgileWrapped(nn.Tanh(), 4)).double()
    model[1].function._forward_hooks = model[1]._forward_hooks  # as after a conversion
    x = torch.randn(50, 4).double()
    ag.calibrate(model, x, when="always", signal=3.0)
    assert size_of(model(x)) == pytest.approx(3.0)


def test_several_batches_are_pooled():
    """As one batch in every location; deviations are those within batches, by their formula."""
    model, parts = deep(layers=2).double(), [torch.randn(n, 16).double() + n / 50 for n in (30, 50, 20)]
    ag.calibrate(model, iter(parts), when="always", signal=0.2)
    inputs = [outputs(model, part)["1"] for part in parts]
    torch.testing.assert_close(model[1].location.detach(), torch.cat([z for z, _ in inputs]).mean(0))
    squares = sum(float(((y - y.mean(0)) ** 2).sum()) for _, y in inputs)
    assert math.sqrt(squares / ((30 + 50 + 20 - 3) * 16)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: [x],
        lambda x: iter([x, x]),
        lambda x: [(x, torch.zeros(len(x)))],
        lambda x: [[x, "label"]],
        lambda x: {"input": x},
        lambda x: [{"input": x}],
        lambda x: [UserDict(input=x)],
        lambda x: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(len(x))), batch_size=100),
    ],
)
def test_batches_of_every_form(wrap: Any):
    expected, model, x = deep(), deep(), torch.randn(100, 16)
    ag.calibrate(expected, x)
    report = ag.calibrate(model, wrap(x))
    assert report.samples in (100, 200)
    for one, other in zip(expected.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_no_more_batches_than_wanted():
    def endless() -> Any:
        while True:
            yield torch.randn(10, 16)

    assert ag.calibrate(deep(), endless(), max_batches=3).samples == 30


def test_the_report_says_what_and_why():
    model = deep()
    report = ag.calibrate(model, torch.randn(100, 16), filter_fn=lambda module, name: name != "3")
    text = str(report)
    assert text.startswith(f"{report.arrived_before:.2g} of the signal")
    lines = text.splitlines()
    assert " ".join(lines[1].split()) == "name base in out in now out now scale x location + status reason"
    assert len(lines) == 3 + 6
    assert [site.name for site in report.sites] == ["1", "3", "5", "7", "9", "11"]
    assert "filter_fn says so" in text
    assert "location at the mean" in text


@pytest.mark.parametrize(
    ("model", "batches", "message"),
    [
        (nn.Linear(2, 2), torch.ones(2, 2), "no agile modules to calibrate"),
        (ag.AgileReLU(2), [], "batches is empty"),
        (ag.AgileReLU(2), torch.ones(1, 2), "1 sample"),
        (ag.AgileReLU(2), torch.ones(2), "first axis is not one of samples"),
        (ag.AgileReLU(2), torch.ones(5, 2), "all samples are alike at the first activation, ''"),
        (ag.AgileReLU(2), torch.tensor([[1.0, math.nan], [0.0, 1.0]]), "layer '' gets values that are not finite"),
        (
            nn.Sequential(ag.AgileReLU(2), ag.AgileWrapped(torch.log, 2)),
            torch.randn(5, 2),
            "layer '1' gives values that are not finite",
        ),
    ],
)
def test_what_cannot_be_calibrated(model: Any, batches: Any, message: str):
    with pytest.raises(ag.ArgumentError, match=message):
        ag.calibrate(model, batches)


def test_batches_that_pass_no_agile_module():
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = ag.AgileReLU(2)

        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ag.ArgumentError, match="reach none"):
        ag.calibrate(Aside(), torch.randn(4, 2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"when": "never"}, ag.ArgumentError, "when must be one of 'needed', 'always', not 'never'"),
        ({"location": "mode"}, ag.ArgumentError, "location must be one of"),
        ({"scale": "channel"}, ag.ArgumentError, "scale must be one of"),
        ({"signal": "big"}, ag.ArgumentTypeError, "signal must be a number or a pair"),
        ({"signal": (1.0, 2.0, 3.0)}, ag.ArgumentTypeError, "signal must be a number or a pair"),
        ({"signal": 0.0}, ag.ArgumentError, "signal must be greater than 0"),
        ({"signal": (2.0, 1.0)}, ag.ArgumentError, "a pair in order"),
        ({"threshold": 2.0}, ag.ArgumentError, "threshold must be greater than 0 and at most 1"),
        ({"max_batches": 0}, ag.ArgumentError, "max_batches must be at least 1"),
        ({"max_batches": 1.0}, ag.ArgumentTypeError, "max_batches must be an integer"),
        ({"batches": 3}, ag.ArgumentTypeError, "batches must be a tensor, a dict or an iterable"),
        ({"batches": ["text"]}, ag.ArgumentTypeError, "a batch must be a tensor"),
        ({"batches": [()]}, ag.ArgumentTypeError, "a batch must be a tensor"),
        ({"model": 3}, ag.ArgumentTypeError, "model must be a torch.nn.Module, not int"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str):
    arguments: dict[str, Any] = {"model": deep(layers=1), "batches": torch.randn(4, 16), **options}
    with pytest.raises(error, match=message):
        ag.calibrate(**arguments)
