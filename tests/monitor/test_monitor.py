"""The monitor beside training: what it leaves alone, how it goes on, and who gets its numbers."""

from __future__ import annotations

import importlib
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import agileact as ag
from agileact.monitor import Record
from tests.monitor.networks import network, train, values


def test_training_is_the_same_with_and_without():
    runs = []
    for watched in (True, False):
        model = network()
        optimizer = torch.optim.Adam(ag.param_groups(model, 0.01))
        monitor = ag.Monitor(model, optimizer=optimizer, activations_every=2) if watched else None
        state = torch.random.get_rng_state()
        runs.append(train(model, optimizer, 20))
        assert torch.equal(state, torch.random.get_rng_state())
        if monitor:
            assert len(values(monitor, "1", "activation", "dead")) == 10
    for one, other in zip(*runs, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_closing_takes_all_hooks_off():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ag.Monitor(model, optimizer=optimizer, activations_every=1) as monitor:
        assert model[1]._forward_pre_hooks
        train(model, optimizer, 3)
    assert not model[1]._forward_pre_hooks
    assert not model[3]._forward_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    before = monitor.records
    train(model, optimizer, 1)
    assert monitor.records == before
    monitor.close()
    with pytest.raises(ag.ArgumentError, match="closed"):
        monitor.step()


def test_a_resumed_run_continues(tmp_path: Path):
    def make() -> tuple[Any, Any, ag.Monitor]:
        model = network()
        optimizer = torch.optim.SGD(ag.param_groups(model, 0.05, activation_lr=1.0))
        return (
            model,
            optimizer,
            ag.Monitor(model, optimizer=optimizer, activations_every=3, max_records=10, window=4, alerts=False),
        )

    model, optimizer, whole = make()
    train(model, optimizer, 30)
    model, optimizer, first = make()
    train(model, optimizer, 12)
    torch.save({"model": model.state_dict(), "monitor": first.state_dict()}, tmp_path / "run.pt")
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    model, optimizer, second = make()
    model.load_state_dict(saved["model"])
    second.load_state_dict(saved["monitor"])
    train(model, optimizer, 18)
    assert second.records == whole.records


def test_a_state_of_another_model_is_refused():
    monitor = ag.Monitor(network())
    with pytest.raises(ag.ArgumentError, match=r"state has the layers \['model'\], the model has \['1', '3'\]"):
        monitor.load_state_dict(ag.Monitor(ag.AgileReLU(1)).state_dict())
    state = monitor.state_dict()
    state["parameters"]["values"] = state["parameters"]["values"][:, :3]
    with pytest.raises(ag.ArgumentError, match="rows have 28 numbers"):
        monitor.load_state_dict(state)


@pytest.mark.parametrize("watched_first", [True, False])
def test_a_compiled_model_still_compiles_whole_and_is_watched(watched_first: bool):
    model = network()
    compiled: Any = torch.compile(model, fullgraph=True, backend="eager")
    x = torch.randn(4, 3)
    if not watched_first:
        compiled(x)
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.1))
    monitor = ag.Monitor(compiled, optimizer=optimizer, activations_every=1)
    assert monitor.layers == ("1", "3")
    expected = network()(x)
    for _ in range(3):
        optimizer.zero_grad()
        y = compiled(x)
        if expected is not None:
            torch.testing.assert_close(y, expected)
            expected = None
        y.sum().backward()
        optimizer.step()
    assert list(values(monitor, "1", "scale", "max")) == [0, 1, 2, 3]


def test_lazy_modules_are_watched_from_the_first_step_on():
    model = nn.Sequential(nn.LazyLinear(3), ag.AgileReLU())
    monitor = ag.Monitor(model)
    with pytest.raises(ag.ArgumentError, match="layer '1' has no parameters yet"):
        monitor.step()
    model(torch.ones(2, 2))
    monitor.step()
    assert list(values(monitor, "1", "scale", "mean").values()) == [1.0]


def test_dtypes_may_be_mixed():
    model: Any = nn.Sequential(ag.AgileReLU(2, dtype=torch.bfloat16), ag.AgileReLU(3, dtype=torch.float64))
    with torch.no_grad():
        model[1].scale.fill_(1 / 3)
    monitor = ag.Monitor(model)
    assert values(monitor, "1", "scale", "max") == {0: 1 / 3}
    assert values(monitor, "0", "scale", "max") == {0: 1.0}


def test_dataframe_is_tidy():
    pandas = importlib.import_module("pandas")
    model = network()
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
        model = network()
        optimizer = torch.optim.Adam(ag.param_groups(model, 1e-3))
        with ag.Monitor(model, optimizer=optimizer, activations_every=5):
            train(model, optimizer, 200)


def test_its_benchmark_takes_all_hooks_off_again():
    from agileact.bench.monitor import own_cost

    model = network()
    assert own_cost(model, torch.randn(4, 3), repeats=1) > 0
    assert not model[1]._forward_pre_hooks
