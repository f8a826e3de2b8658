"""Lengths and angles of standardised rows, against acos in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import agileact as ag


def standardized(conv=False):
    torch.manual_seed(0)
    model: nn.Module
    if conv:
        body = [nn.ConvTranspose2d(4, 6, 3, groups=2), nn.GELU(), nn.Conv2d(6, 4, 3, groups=2), nn.ReLU()]
        model, x = nn.Sequential(*body, nn.Flatten(), nn.LazyLinear(2)), torch.randn(5, 4, 6, 6)
    else:
        model, x = (
            nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2)),
            torch.randn(5, 4),
        )
    model(x)
    model, _ = ag.convert(model, example_inputs=x, weights="standardized")
    optimizer = torch.optim.SGD(ag.param_groups(model, lr=0.02))
    ag.standardize_weights(optimizer, model)
    return model, optimizer, x


def step(model, optimizer, x):
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def rows(layer):
    weight = layer.weight.detach().double()
    if isinstance(layer, nn.ConvTranspose2d):  # (groups, in / groups, out / groups, ...): an output's numbers together
        parts = weight.unflatten(0, (layer.groups, -1)).movedim(2, 1)
        return parts.reshape(layer.out_channels, -1)
    return weight.flatten(1)


@pytest.mark.parametrize("conv", [False, True], ids=["linear", "convolutions"])
def test_lengths_and_angles_are_those_of_the_rows(conv):
    model, optimizer, x = standardized(conv)
    monitor = ag.Monitor(model, optimizer=optimizer, directions_every=1)
    names = ["0", "2"]
    for count in range(1, 4):
        before = {name: rows(model.get_submodule(name)) for name in names}
        step(model, optimizer, x)
        found = {r[1:4]: r.value for r in monitor.records if r.step == count and r.parameter == "direction"}
        for name in names:
            after = rows(model.get_submodule(name))
            cosine = (before[name] * after).sum(1) / before[name].norm(dim=1) / after.norm(dim=1)
            angle = torch.acos(cosine.clamp(max=1.0))  # rounding may say more
            assert angle.max() > 1e-4
            want = {
                "length_min": after.norm(dim=1).min(),
                "length_max": after.norm(dim=1).max(),
                "angle_median": angle.quantile(0.5),
                "angle_max": angle.max(),
            }
            for statistic, value in want.items():
                got = found[name, "direction", statistic]
                assert got == pytest.approx(float(value), rel=1e-3, abs=1e-6), (name, statistic)


def test_a_small_angle_keeps_its_digits():
    model, optimizer, x = standardized()
    monitor = ag.Monitor(model, optimizer=optimizer, directions_every=1)
    for group in optimizer.param_groups:
        group["lr"] = 1e-5
    before = rows(model[0])
    step(model, optimizer, x)
    want = 2 * torch.asin((rows(model[0]) - before).norm(dim=1) / 2)
    (got,) = [r.value for r in monitor.records if r[1:4] == ("0", "direction", "angle_max")]
    assert 1e-8 < got < 1e-4
    assert got == pytest.approx(float(want.max()), rel=0.02)


def test_it_is_opt_in_and_measures_when_it_is_asked_to(tmp_path):
    model, optimizer, x = standardized()
    off = ag.Monitor(model, optimizer=optimizer)
    monitor = ag.Monitor(model, optimizer=optimizer, directions_every=3)
    for _ in range(7):
        step(model, optimizer, x)
    assert {record.parameter for record in off.records} == {"scale", "location", "activation"}
    turned = [record for record in monitor.records if record.parameter == "direction"]
    assert [record.step for record in turned] == [3] * 8 + [6] * 8
    torch.save(monitor.state_dict(), tmp_path / "monitor.pt")
    again = ag.Monitor(model, directions_every=3)
    again.load_state_dict(torch.load(tmp_path / "monitor.pt"))
    assert again.records == monitor.records
    old = {key: value for key, value in monitor.state_dict().items() if key != "directions"}
    ag.Monitor(model, directions_every=3).load_state_dict(old)
    figure = monitor.plot()
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert "median angle turned by a step, radians" in titles
    assert len(off.plot().axes) == len(figure.axes) - 2


def test_a_model_without_standardised_layers_is_refused():
    with pytest.raises(ag.ArgumentError, match="directions_every is for standardised layers, and the model has none"):
        ag.Monitor(nn.Sequential(nn.Linear(2, 3), ag.AgileReLU(3)), directions_every=1)
    with pytest.raises(ag.ArgumentError, match="directions_every must be at least 1"):
        ag.Monitor(standardized()[0], directions_every=0)
