"""Monitor: what it records against formulas in float64, when it warns, what it costs in memory, how it goes on."""

from __future__ import annotations

import copy
import importlib
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import agileact as ag
from agileact.monitor import Record
from agileact.monitor._activity import _sample
from agileact.monitor._records import Rows, parameter_statistics


def _network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), ag.AgileReLU(4), nn.Linear(4, 5), ag.CombinedAgile("sigmoid", 5), nn.Linear(5, 2)
    )


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[dict[str, Tensor]]:
    """Take steps; return the parameters after each."""
    seen = []
    for index in range(steps):
        optimizer.zero_grad()
        x = torch.linspace(-1, 1, 24).view(8, 3) * (1 + index % 3)
        model(x).square().sum().backward()
        optimizer.step()
        seen.append(copy.deepcopy(model.state_dict()))
    return seen


def _values(monitor: ag.Monitor, layer: str, parameter: str, statistic: str) -> dict[int, float]:
    return {r.step: r.value for r in monitor.records if r[1:4] == (layer, parameter, statistic)}


def test_every_statistic_of_every_step_is_the_formula():
    model = _network()
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.05, activation_lr=2.0))
    first = copy.deepcopy(model.state_dict())
    monitor = ag.Monitor(model, optimizer=optimizer, activations_every=None, alerts=False)
    states = [first, *_train(model, optimizer, 300)]
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
    steps = list(_values(monitor, "model", "scale", "median"))
    assert len(steps) <= 16
    assert steps[0] == 0
    assert steps[-1] == 1000


def test_every_so_many_steps():
    monitor = ag.Monitor(ag.AgileReLU(2), every=7, activations_every=None)
    for _ in range(50):
        monitor.step()
    assert list(_values(monitor, "model", "location", "max")) == [0, 7, 14, 21, 28, 35, 42, 49]


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
        assert _values(monitor, "model", "activation", "dead") == {0: 0.5}
        assert _values(monitor, "model", "activation", "saturated") == {}

    def test_a_unit_is_dead_after_a_whole_window_and_alive_at_once(self):
        module = ag.AgileReLU(1)
        monitor = ag.Monitor(module, activations_every=1, window=3, alerts=False)
        for value in (1.0, -1.0, -1.0, -1.0, -1.0, 1.0, -1.0):
            module(torch.full((4, 1), value))
            monitor.step()
        assert list(_values(monitor, "model", "activation", "dead").values()) == [0, 0, 0, 1, 1, 0, 0]

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
        assert _values(monitor, "model", "activation", "saturated") == {0: share}
        assert _values(monitor, "model", "activation", "dead") == {0: 1 / 6}

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
        assert _values(monitor, "model", "activation", "dead") == {0: 0.0}
        assert monitor._activities[0].idle is not None
        assert monitor._activities[0].idle.shape == (units,)
        assert _values(self._measure(module, -torch.ones(shape)), "model", "activation", "dead") == {0: 1.0}

    def test_a_term_of_scale_zero_passes_nothing(self):
        module = ag.CombinedAgile("relu", 2, terms=2, spread=-5.0)  # the second term is active from -5 on
        assert _values(self._measure(module, -torch.ones(4, 2)), "model", "activation", "dead") == {0: 1.0}
        with torch.no_grad():
            module.scale[2] = 0.1
        assert _values(self._measure(module, -torch.ones(4, 2)), "model", "activation", "dead") == {0: 0.5}

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
        assert _values(monitor, "f", "activation", "dead") == {0: 0.0}

    def test_evaluation_is_not_looked_at(self):
        module = ag.AgileReLU(2)
        monitor = ag.Monitor(module, activations_every=1)
        with torch.no_grad():
            module(-torch.ones(4, 2))
        module(torch.ones(4, 2))
        monitor.step()
        monitor.step()  # no forward pass: nothing is said
        assert _values(monitor, "model", "activation", "dead") == {0: 0.0}

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
        assert _values(self._measure(module, torch.ones(4, 2)), "model", "activation", "dead") == {0: 1.0}

    def test_flipped_counts_from_the_start(self):
        module = ag.AgileTanh(4)
        with torch.no_grad():
            module.scale[0] = -1.0
        monitor = ag.Monitor(module, activations_every=None)
        with torch.no_grad():
            module.scale[:3] = torch.tensor([2.0, -0.5, 3.0])
        monitor.step()
        assert _values(monitor, "model", "scale", "negative") == {0: 0.25, 1: 0.25}
        assert _values(monitor, "model", "scale", "flipped") == {0: 0.0, 1: 0.5}


class TestAlerts:
    def test_each_once_a_layer_and_with_the_remedy(self):
        model: Any = nn.Sequential(ag.AgileReLU(2), ag.AgileReLU(2))
        monitor = ag.Monitor(model, activations_every=None)
        for _ in range(3):
            with torch.no_grad():
                model[0].scale.fill_(1e4)
            monitor.step()
        with pytest.warns(
            ag.MonitorWarning, match=r"layer '0': the largest \|scale\| is 1e\+04 at step 1.*activation_lr"
        ):
            assert monitor.records
        monitor.step()
        assert monitor.records  # not again: warnings are errors here
        with torch.no_grad():
            model[1].location[0] = math.nan
        monitor.step()
        with pytest.warns(ag.MonitorWarning, match="layer '1': location is not finite at step 5.*clip gradients"):
            monitor.close()

    def test_explosion_is_measured_from_the_start(self):
        model = ag.AgileReLU(2)
        with torch.no_grad():
            model.scale.fill_(50.0)
        monitor = ag.Monitor(model, activations_every=None, explosion=10.0)
        with torch.no_grad():
            model.scale.fill_(400.0)
        monitor.step()
        assert monitor.records
        with torch.no_grad():
            model.scale.fill_(501.0)
        monitor.step()
        with pytest.warns(ag.MonitorWarning, match="from 50 at the start"):
            assert monitor.records

    def test_a_dead_layer(self):
        model = nn.Sequential(nn.Identity(), ag.AgileReLU(10))
        monitor = ag.Monitor(model, activations_every=1, window=2)
        x = -torch.ones(4, 10)
        x[:, 0] = 1.0
        model(x)
        monitor.step()
        model(x)
        with pytest.warns(ag.MonitorWarning, match=r"layer '1': 90 % of its units were never active.*calibrate"):
            monitor.step()
        model(x)
        monitor.step()

    def test_inputs_that_are_not_finite(self):
        model = ag.AgileReLU(2)
        monitor = ag.Monitor(model, activations_every=1)
        model(torch.full((3, 2), math.inf))
        with pytest.warns(ag.MonitorWarning, match="its input is not finite at step 0"):
            monitor.step()

    def test_none_if_not_wanted(self):
        model = ag.AgileReLU(2)
        monitor = ag.Monitor(model, activations_every=1, window=1, alerts=False)
        with torch.no_grad():
            model.scale.fill_(math.inf)
        model(-torch.ones(3, 2))
        monitor.step()
        assert monitor.records


def test_training_is_the_same_with_and_without():
    runs = []
    for watched in (True, False):
        model = _network()
        optimizer = torch.optim.Adam(ag.param_groups(model, 0.01))
        monitor = ag.Monitor(model, optimizer=optimizer, activations_every=2) if watched else None
        state = torch.random.get_rng_state()
        runs.append(_train(model, optimizer, 20))
        assert torch.equal(state, torch.random.get_rng_state())
        if monitor:
            assert len(_values(monitor, "1", "activation", "dead")) == 10
    for one, other in zip(*runs, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_closing_takes_all_hooks_off():
    model = _network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ag.Monitor(model, optimizer=optimizer, activations_every=1) as monitor:
        assert model[1]._forward_pre_hooks
        _train(model, optimizer, 3)
    assert not model[1]._forward_pre_hooks
    assert not model[3]._forward_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    before = monitor.records
    _train(model, optimizer, 1)
    assert monitor.records == before
    monitor.close()
    with pytest.raises(ag.ArgumentError, match="closed"):
        monitor.step()


def test_a_resumed_run_continues(tmp_path: Path):
    def make() -> tuple[Any, Any, ag.Monitor]:
        model = _network()
        optimizer = torch.optim.SGD(ag.param_groups(model, 0.05, activation_lr=1.0))
        return (
            model,
            optimizer,
            ag.Monitor(model, optimizer=optimizer, activations_every=3, max_records=10, window=4, alerts=False),
        )

    model, optimizer, whole = make()
    _train(model, optimizer, 30)
    model, optimizer, first = make()
    _train(model, optimizer, 12)
    torch.save({"model": model.state_dict(), "monitor": first.state_dict()}, tmp_path / "run.pt")
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    model, optimizer, second = make()
    model.load_state_dict(saved["model"])
    second.load_state_dict(saved["monitor"])
    _train(model, optimizer, 18)
    assert second.records == whole.records


def test_a_state_of_another_model_is_refused():
    monitor = ag.Monitor(_network())
    with pytest.raises(ag.ArgumentError, match=r"state has the layers \['model'\], the model has \['1', '3'\]"):
        monitor.load_state_dict(ag.Monitor(ag.AgileReLU(1)).state_dict())
    state = monitor.state_dict()
    state["parameters"]["values"] = state["parameters"]["values"][:, :3]
    with pytest.raises(ag.ArgumentError, match="rows have 28 numbers"):
        monitor.load_state_dict(state)


@pytest.mark.parametrize("watched_first", [True, False])
def test_a_compiled_model_still_compiles_whole_and_is_watched(watched_first: bool):
    model = _network()
    compiled: Any = torch.compile(model, fullgraph=True, backend="eager")
    x = torch.randn(4, 3)
    if not watched_first:
        compiled(x)
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.1))
    monitor = ag.Monitor(compiled, optimizer=optimizer, activations_every=1)
    assert monitor.layers == ("1", "3")
    expected = _network()(x)
    for _ in range(3):
        optimizer.zero_grad()
        y = compiled(x)
        if expected is not None:
            torch.testing.assert_close(y, expected)
            expected = None
        y.sum().backward()
        optimizer.step()
    assert list(_values(monitor, "1", "scale", "max")) == [0, 1, 2, 3]


def test_lazy_modules_are_watched_from_the_first_step_on():
    model = nn.Sequential(nn.LazyLinear(3), ag.AgileReLU())
    monitor = ag.Monitor(model)
    with pytest.raises(ag.ArgumentError, match="layer '1' has no parameters yet"):
        monitor.step()
    model(torch.ones(2, 2))
    monitor.step()
    assert list(_values(monitor, "1", "scale", "mean").values()) == [1.0]


def test_dtypes_may_be_mixed():
    model: Any = nn.Sequential(ag.AgileReLU(2, dtype=torch.bfloat16), ag.AgileReLU(3, dtype=torch.float64))
    with torch.no_grad():
        model[1].scale.fill_(1 / 3)
    monitor = ag.Monitor(model)
    assert _values(monitor, "1", "scale", "max") == {0: 1 / 3}
    assert _values(monitor, "0", "scale", "max") == {0: 1.0}


def test_dataframe_is_tidy():
    pandas = importlib.import_module("pandas")
    model = _network()
    monitor = ag.Monitor(model, activations_every=None)
    monitor.step()
    frame = monitor.to_dataframe()
    assert list(frame.columns) == ["step", "layer", "parameter", "statistic", "value"]
    assert len(frame) == 2 * 2 * 14
    assert [Record(*row) for row in frame.itertuples(index=False)] == monitor.records
    assert frame.pivot_table(index="step", columns="layer", values="value").shape == (2, 2)
    assert pandas.api.types.is_float_dtype(frame["value"])


def test_tensorboard_gets_each_number_once():
    class Writer:
        def __init__(self) -> None:
            self.seen: list[tuple[str, float, int]] = []

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            self.seen.append((tag, value, step))

    writer, module = Writer(), ag.AgileReLU(2)
    monitor = ag.Monitor(module, activations_every=2)
    total = 0
    for _ in range(5):
        module(torch.ones(1, 2))
        monitor.step()
        total += monitor.to_tensorboard(writer, prefix="run")
    total += monitor.to_tensorboard(writer, prefix="run")
    assert total == len(writer.seen)
    final = {(f"run/{r.layer}/{r.parameter}/{r.statistic}", r.value, r.step) for r in monitor.records}
    assert set(writer.seen) == final
    with pytest.raises(ag.ArgumentTypeError, match="must have an add_scalar"):
        monitor.to_tensorboard([])


def test_the_picture_shows_every_layer():
    model = nn.Sequential(*(ag.AgileSigmoid(3) for _ in range(6)))
    monitor = ag.Monitor(model, activations_every=1)
    for _ in range(4):
        model(torch.randn(5, 3))
        monitor.step()
    figure = monitor.plot()
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.get_visible()]
    assert [title for title in titles if title] == [f"layer {index}" for index in range(6)]
    assert len(monitor.plot(["2"]).axes) == 3
    with pytest.raises(ag.ArgumentError, match="layers has '9'"):
        monitor.plot(["9"])
    with pytest.raises(ag.ArgumentError, match="nothing to draw"):
        monitor.plot([])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ag.ArgumentError, "every must be at least 1"),
        ({"every": 1.5}, ag.ArgumentTypeError, "every must be an integer"),
        ({"activations_every": 0}, ag.ArgumentError, "activations_every must be at least 1"),
        ({"max_records": 1}, ag.ArgumentError, "max_records must be at least 2"),
        ({"saturation": 1.5}, ag.ArgumentError, "saturation must be greater than 0 and at most 1"),
        ({"explosion": "big"}, ag.ArgumentTypeError, "explosion must be a number"),
        ({"dead_share": math.nan}, ag.ArgumentError, "dead_share must be greater than 0"),
        ({"optimizer": 3}, ag.ArgumentTypeError, "optimizer must be"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        ag.Monitor(ag.AgileReLU(2), **options)


def test_bad_models():
    with pytest.raises(ag.ArgumentError, match="no agile modules"):
        ag.Monitor(nn.Linear(2, 2))
    with pytest.raises(ag.ArgumentTypeError, match="model must be"):
        ag.Monitor([ag.AgileReLU(2)])  # type: ignore[arg-type]


def test_no_warning_at_rest():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = _network()
        optimizer = torch.optim.Adam(ag.param_groups(model, 1e-3))
        with ag.Monitor(model, optimizer=optimizer, activations_every=5):
            _train(model, optimizer, 200)


def test_its_benchmark_takes_all_hooks_off_again():
    from agileact.bench.monitor import own_cost

    model = _network()
    assert own_cost(model, torch.randn(4, 3), repeats=1) > 0
    assert not model[1]._forward_pre_hooks
