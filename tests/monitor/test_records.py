"""What the monitor records, against formulas in float64, and how much of it it keeps."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import agileact as ag
from agileact.monitor.activity import _sample
from agileact.monitor.records import Rows, parameter_statistics
from tests.monitor.networks import network, train, values


def test_every_statistic_of_every_step_is_the_formula():
    model = network()
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.05, activation_lr=2.0))
    first = copy.deepcopy(model.state_dict())
    monitor = ag.Monitor(model, optimizer=optimizer, activations_every=None, alerts=False)
    states = [first, *train(model, optimizer, 300)]
    records = monitor.records
    assert len(records) == 301 * 2 * 14
    found: dict[tuple[str, ...], list[float]] = {}
    for record in records:  # sorted by step
        found.setdefault(record[1:4], []).append(record.value)
    for layer in ("1", "3"):
        for parameter in ("scale", "location"):
            values = torch.stack([state[f"{layer}.{parameter}"] for state in states]).double()
            expected = {
                "min": values.amin(1),
                "q25": values.quantile(0.25, 1),
                "median": values.quantile(0.5, 1),
                "q75": values.quantile(0.75, 1),
                "max": values.amax(1),
                "mean": values.mean(1),
            }
            if parameter == "scale":
                expected["negative"] = (values < 0).double().mean(1)
                expected["flipped"] = (values * values[0] < 0).double().mean(1)
            for statistic, wanted in expected.items():
                actual = torch.tensor(found[layer, parameter, statistic], dtype=torch.float64)
                torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-6)
    assert max(found["1", "scale", "flipped"]) > 0
    assert sorted({record.step for record in records}) == list(range(301))


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_quantiles_are_torchs(rows: list[list[float]]):
    values = torch.tensor(rows, dtype=torch.float64)
    shares = torch.tensor([0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    torch.testing.assert_close(parameter_statistics(values)[:, :5], values.quantile(shares, dim=1).t())


def test_no_units_no_numbers():
    assert parameter_statistics(torch.empty(3, 0)).isnan().all()
    assert parameter_statistics(torch.empty(3, 0)).shape == (3, 6)


def test_nan_is_not_hidden():
    assert parameter_statistics(torch.tensor([[1.0, math.nan, 2.0]])).isnan().all()


@given(limit=st.integers(2, 9), stride=st.integers(1, 4), steps=st.integers(1, 200))
def test_rows_are_bounded_and_evenly_spaced(limit: int, stride: int, steps: int):
    rows = Rows(limit)
    rows.stride = stride
    for step in range(steps):
        rows.add(step, torch.tensor([float(step)]))
    assert len(rows.steps) <= limit
    assert rows.steps[0] == 0
    assert rows.steps[-1] == steps - 1
    even = rows.steps if rows.steps[-1] % rows.stride == 0 else rows.steps[:-1]
    assert even == list(range(0, steps, rows.stride))[: len(even)]
    assert len(even) >= min(limit // 2, -(-steps // stride))
    assert [float(row) for row in rows.values] == rows.steps


def test_memory_is_bounded_over_a_long_training():
    model = ag.AgileReLU(2)
    monitor = ag.Monitor(model, max_records=16, activations_every=None)
    for _ in range(1000):
        monitor.step()
    steps = list(values(monitor, "model", "scale", "median"))
    assert len(steps) <= 16
    assert steps[0] == 0
    assert steps[-1] == 1000


def test_every_so_many_steps():
    monitor = ag.Monitor(ag.AgileReLU(2), every=7, activations_every=None)
    for _ in range(50):
        monitor.step()
    assert list(values(monitor, "model", "location", "max")) == [0, 7, 14, 21, 28, 35, 42, 49]


class TestUnits:
    """Dead, saturated and flipped units."""

    @staticmethod
    def _measure(module: Any, x: Tensor, times: int = 1, **options: Any) -> ag.Monitor:
        monitor = ag.Monitor(module, activations_every=1, alerts=False, **options)
        for _ in range(times):
            module(x)
            monitor.step()
        return monitor

    def test_dead_rectifiers(self):
        module = ag.AgileReLU(4)
        with torch.no_grad():
            module.location.copy_(torch.tensor([0.0, 5.0, 5.0, -9.0]))
        monitor = self._measure(module, torch.rand(32, 4, 3))
        assert values(monitor, "model", "activation", "dead") == {0: 0.5}
        assert values(monitor, "model", "activation", "saturated") == {}

    def test_a_unit_is_dead_after_a_whole_window_and_alive_at_once(self):
        module = ag.AgileReLU(1)
        monitor = ag.Monitor(module, activations_every=1, window=3, alerts=False)
        for value in (1.0, -1.0, -1.0, -1.0, -1.0, 1.0, -1.0):
            module(torch.full((4, 1), value))
            monitor.step()
        assert list(values(monitor, "model", "activation", "dead").values()) == [0, 0, 0, 1, 1, 0, 0]

    @pytest.mark.parametrize("base", ["sigmoid", "tanh"])
    def test_saturated_by_the_formula(self, base: str):
        torch.manual_seed(1)
        module: Any = ag.Agile(base, 6)
        with torch.no_grad():
            module.location.copy_(torch.tensor([0.0, 1.0, 2.0, 4.0, -6.0, 30.0]))
        x = torch.randn(64, 6)
        monitor = self._measure(module, x, saturation=0.3)
        z = (x - module.location.detach()).double()
        slope = z.sigmoid() * (1 - z.sigmoid()) / 0.25 if base == "sigmoid" else 1 - z.tanh() ** 2
        share = float((slope.mean(0) < 0.3).double().mean())
        assert 0 < share < 1
        assert values(monitor, "model", "activation", "saturated") == {0: share}
        assert values(monitor, "model", "activation", "dead") == {0: 1 / 6}

    @pytest.mark.parametrize(
        ("module", "shape", "units"),
        [
            (ag.AgileReLU(4, dim=-1), (8, 5, 4), 4),
            (ag.AgileReLU(4, dim=2), (8, 5, 4), 4),
            (ag.AgileReLU(granularity="layer"), (8, 5), 1),
            (ag.AgileReLU((5, 4), granularity="element"), (8, 5, 4), 20),
            (ag.CombinedAgile("relu", 5, terms=3), (8, 5), 5),
            (ag.AgileMaxPool2d(5, 2), (2, 5, 4, 4), 5),
            (ag.AgileReLU(5), (5,), 5),
            (ag.AgileWrapped(nn.ReLU(), 5), (3, 5), 5),
        ],
    )
    def test_units_of_every_kind_of_module(self, module: Any, shape: tuple[int, ...], units: int):
        monitor = self._measure(module, torch.ones(shape))
        assert values(monitor, "model", "activation", "dead") == {0: 0.0}
        assert monitor._activities[0].idle is not None
        assert monitor._activities[0].idle.shape == (units,)
        assert values(self._measure(module, -torch.ones(shape)), "model", "activation", "dead") == {0: 1.0}

    def test_a_term_of_scale_zero_passes_nothing(self):
        module = ag.CombinedAgile("relu", 2, terms=2, spread=-5.0)  # the second term is active from -5 on
        assert values(self._measure(module, -torch.ones(4, 2)), "model", "activation", "dead") == {0: 1.0}
        with torch.no_grad():
            module.scale[2] = 0.1
        assert values(self._measure(module, -torch.ones(4, 2)), "model", "activation", "dead") == {0: 0.5}

    def test_all_uses_of_a_shared_module_count(self):
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.f = ag.AgileReLU(2)

            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.f(x) + self.f(-x)
                return y

        monitor = self._measure(Twice(), torch.ones(4, 2))
        assert monitor.layers == ("f",)
        assert values(monitor, "f", "activation", "dead") == {0: 0.0}

    def test_evaluation_is_not_looked_at(self):
        module = ag.AgileReLU(2)
        monitor = ag.Monitor(module, activations_every=1)
        with torch.no_grad():
            module(-torch.ones(4, 2))
        module(torch.ones(4, 2))
        monitor.step()
        monitor.step()  # no forward pass: nothing is said
        assert values(monitor, "model", "activation", "dead") == {0: 0.0}

    @given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 3), st.integers(1, 600))
    def test_samples_are_few_and_enough(self, shape: list[int], start: int, samples: int):
        start = min(start, len(shape) - 1)
        x = torch.empty(shape, device="meta")
        part = _sample(x, start, start + 1, samples)
        assert part.shape[start] == x.shape[start]
        values = part.numel() // x.shape[start]
        whole = x.numel() // x.shape[start]
        assert min(whole, samples) / 4 ** (len(shape) - 1) <= values <= samples

    def test_a_module_inside_may_share_the_hooks(self):
        module: Any = ag.AgileWrapped(nn.ReLU(), 2)
        module.function._forward_pre_hooks = module._forward_pre_hooks  # as after a conversion
        with torch.no_grad():
            module.location.fill_(2.0)
        assert values(self._measure(module, torch.ones(4, 2)), "model", "activation", "dead") == {0: 1.0}

    def test_flipped_counts_from_the_start(self):
        module = ag.AgileTanh(4)
        with torch.no_grad():
            module.scale[0] = -1.0
        monitor = ag.Monitor(module, activations_every=None)
        with torch.no_grad():
            module.scale[:3] = torch.tensor([2.0, -0.5, 3.0])
        monitor.step()
        assert values(monitor, "model", "scale", "negative") == {0: 0.25, 1: 0.25}
        assert values(monitor, "model", "scale", "flipped") == {0: 0.0, 1: 0.5}
