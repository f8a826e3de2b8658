"""Four networks as they learn: the same start and batches, and what their layers do against a pass by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from agileact import ArgumentError
from agileact.lab.content.live import ARMS, LAYERS, MOST_STEPS, LiveRun, LiveSpec, learning_rate
from agileact.lab.tabs.live import losses_figure, numbers_figure, signals_figure


@pytest.fixture(scope="module")
def run():
    found = LiveRun(LiveSpec("tanh", seed=3))
    found.advance(30, 0.01)
    return found


def test_plain_and_agile_start_alike_and_see_the_same_batches():
    run = LiveRun(LiveSpec())
    run.advance(1, 0.01)
    assert run.losses["plain"] == run.losses["agile"]
    run.advance(3, 0.01)
    assert run.losses["plain"] != run.losses["agile"]
    again = LiveRun(LiveSpec())
    again.advance(4, 0.01)
    assert again.losses == run.losses


def test_signals_are_the_deviations_of_a_pass_by_hand(run):
    model = run.models["plain"]
    x = run.data.validation_x[:200].flatten(1).double().numpy()
    sizes = []
    for layer in [module for module in model.modules() if isinstance(module, nn.Linear)][:LAYERS]:
        x = np.tanh(x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy())
        sizes.append(x.std(0, ddof=1).mean())
    assert run.signals("plain").sizes == pytest.approx(sizes, rel=1e-4)
    assert len(run.signals("batch-normalised").sizes) == LAYERS
    assert run.signals("plain").scale == []


def test_the_standardised_network_keeps_its_rows_and_starts_from_the_same_directions():
    run = LiveRun(LiveSpec())
    plain, kept = (dict(run.models[arm].named_parameters()) for arm in ("plain", "standardised"))
    for name in (f"fc{layer}.weight" for layer in range(1, LAYERS + 1)):
        # The first layer reads the digits, and keeps the mean of its rows.
        rows = plain[name] if name == "fc1.weight" else plain[name] - plain[name].mean(1, keepdim=True)
        torch.testing.assert_close(kept[name], rows / rows.norm(dim=1, keepdim=True))
    run.advance(2, 0.05)
    before = {name: kept[name].detach().double() for name in kept if name.endswith("weight")}
    run.advance(1, 0.05)
    at_once = LiveRun(LiveSpec())
    at_once.advance(3, 0.05)
    assert at_once.turned() == run.turned()
    assert kept["fc3.weight"].norm(dim=1).tolist() == pytest.approx([1.0] * 24, abs=1e-5)
    cosines = [(before[name] * kept[name].detach().double()).sum(1) for name in before if name.startswith("fc")]
    angles = [one.clamp(max=1.0).acos().quantile(0.5, interpolation="lower") for one in cosines]
    assert run.turned() == pytest.approx(math.degrees(sum(map(float, angles)) / LAYERS), rel=0.1)
    assert f"turned the standardised rows by {run.turned():.2g} degrees" in run.sentence()
    assert min(run.signals("standardised").sizes) > 10 * min(run.signals("plain").sizes)


def test_ranges_are_those_of_the_agile_layers(run):
    found = run.signals("agile")
    state = run.models["agile"].state_dict()
    scales = [value for name, value in state.items() if name.endswith(".scale")]
    assert found.scale == [(float(value.min()), float(value.max())) for value in scales]
    assert len(found.location) == LAYERS
    assert all(low <= high for low, high in found.scale + found.location)


def test_looking_changes_nothing(run):
    states = {arm: {key: value.clone() for key, value in run.models[arm].state_dict().items()} for arm in ARMS}
    for figure in (losses_figure, signals_figure, numbers_figure):
        assert figure(run)["data"]
    assert run.sentence().startswith("Step 30. Plain: loss ")
    for arm in ARMS:
        assert run.models[arm].training
        assert all(torch.equal(value, states[arm][key]) for key, value in run.models[arm].state_dict().items())


def test_the_learning_rate_is_that_of_the_step():
    run = LiveRun(LiveSpec(optimizer="sgd"))
    before = {key: value.clone() for key, value in run.models["agile"].state_dict().items()}
    run.advance(5, 0.0)
    assert all(torch.equal(value, before[key]) for key, value in run.models["agile"].state_dict().items())
    run.advance(1, 0.1)
    assert not torch.equal(run.models["agile"].state_dict()["output.weight"], before["output.weight"])


def test_losses_are_means_over_the_last_batches(run):
    line = losses_figure(run)["data"][0]
    values = run.losses["plain"]
    assert line["x"][-1] == 30
    assert line["y"][-1] == pytest.approx(np.mean(values[10:30]))
    assert line["y"][0] == pytest.approx(values[0])


def test_one_loss_is_seen():
    run = LiveRun(LiveSpec())
    assert losses_figure(run)["data"] == []
    run.advance(1, 0.01)
    assert {one["mode"] for one in losses_figure(run)["data"]} == {"lines+markers"}
    run.advance(1, 0.01)
    assert {one["mode"] for one in losses_figure(run)["data"]} == {"lines"}


def test_a_run_that_diverges_is_said_and_drawn_without_it():
    run = LiveRun(LiveSpec(base="identity", optimizer="sgd"))
    run.advance(60, 10.0)
    assert "Plain: diverged; reset, and take a smaller learning rate" in run.sentence()
    for figure in (losses_figure(run), signals_figure(run)):
        assert all(y is None or math.isfinite(y) for one in figure["data"] for y in one["y"])


def test_a_run_ends_by_itself(monkeypatch):
    monkeypatch.setattr("agileact.lab.content.live.MOST_STEPS", 3)
    run = LiveRun(LiveSpec())
    run.advance(10, 0.01)
    assert (run.taken, run.ended) == (3, True)
    assert run.sentence().endswith("The run ends here, after 3 steps.")
    assert MOST_STEPS == 5000


def test_a_rate_off_the_slider_is_refused():
    with pytest.raises(ArgumentError, match=r"from 0\.00001 to 10"):
        learning_rate(2)
