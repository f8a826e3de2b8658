from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import agileact as ag
from agileact._common.errors import ArgumentError, ArgumentTypeError, FoldError
from agileact.integrations import AgileLogger, report
from agileact.integrations.tensorboard import add_histograms, add_shapes, shape

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))


def network() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), ag.AgileSigmoid(8), nn.Dropout(0.5), nn.Linear(8, 1))


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(ag.param_groups(model, lr=0.05, weight_decay=0.05))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    torch.manual_seed(3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


class Writer:
    """Records what a SummaryWriter is told."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, int]] = []
        self.histograms: list[tuple[str, list[float], int]] = []
        self.pictures: list[tuple[str, Any, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, step))

    def add_histogram(self, tag: str, values: torch.Tensor, step: int) -> None:
        self.histograms.append((tag, values.tolist(), step))

    def add_figure(self, tag: str, figure: Any, step: int) -> None:
        self.pictures.append((tag, figure, step))


class Run:
    """Takes rows as a run of Weights & Biases does: none of a step before its own."""

    def __init__(self) -> None:
        self.step = 0
        self.rows: dict[int, dict[str, float]] = {}
        self.defined: list[str] = []
        self.dropped = 0

    def define_metric(self, name: str, **options: Any) -> None:
        self.defined.append(name)

    def log(self, data: dict[str, float], step: int) -> None:
        if step < self.step:
            self.dropped += 1
        else:
            self.step = step
            self.rows.setdefault(step, {}).update(data)


def test_a_loop_is_watched_reported_and_folded():
    model, calls, writer = network(), [], Writer()
    optimizer = optimizer_of(model)
    with AgileLogger(
        model, lambda metrics, step: calls.append(step), writer, optimizer=optimizer, example_inputs=X, every_n_steps=2
    ) as watch:
        train(model, optimizer, 5)
        assert calls == [0, 1, 2, 3, 4]
    assert calls == [0, 1, 2, 3, 4, 5]
    assert len(writer.scalars) == len(set(writer.scalars))
    assert {step for _, step in writer.scalars} == set(range(6))
    assert [step for tag, _, step in writer.histograms if tag == "agileact/1/scale"] == [2, 4, 5]
    assert writer.histograms[-2][1] == model[1].scale.tolist()
    assert [step for _, _, step in writer.pictures] == [2, 4, 5]
    assert watch.folded is not None
    assert watch.fold_report is not None
    assert [type(layer) for layer in watch.folded.children()] == [nn.Linear, nn.Sigmoid, nn.Dropout, nn.Linear]
    torch.testing.assert_close(watch.folded.eval()(X), model.eval()(X), rtol=1e-5, atol=1e-5)
    train(model, optimizer, 1)
    assert calls[-1] == 5


def test_watching_changes_no_number_of_the_training():
    alone, watched = network(), network()
    plain = train(alone, optimizer_of(alone), 4)
    optimizer = optimizer_of(watched)
    with AgileLogger(watched, Writer(), optimizer=optimizer, example_inputs=X, every_n_steps=1):
        assert watched.training
        assert train(watched, optimizer, 4) == plain


def test_what_cannot_be_folded_is_an_error_before_the_training():
    model = network()
    with pytest.raises((FoldError, RuntimeError), match="shapes cannot be multiplied"):
        AgileLogger(model, optimizer=optimizer_of(model), example_inputs=torch.zeros(1, 3))


def test_after_an_error_what_was_seen_is_reported_and_nothing_folded():
    model, calls = network(), []
    optimizer = optimizer_of(model)
    watch = AgileLogger(model, lambda metrics, step: calls.append(step), optimizer=optimizer, example_inputs=X)
    with pytest.raises(ZeroDivisionError), watch:
        print(train(model, optimizer, 2)[0] / 0)
    assert calls == [0, 1, 2]
    assert watch.folded is None


def test_a_later_loop_goes_on_counting():
    model, calls = network(), []
    optimizer = optimizer_of(model)
    with AgileLogger(model, lambda metrics, step: None, optimizer=optimizer) as first:
        train(model, optimizer, 3)
    second = AgileLogger(model, lambda metrics, step: calls.append(step), optimizer=optimizer)
    second.load_state_dict(first.state_dict())
    with second:
        train(model, optimizer, 2)
    assert calls[-2:] == [4, 5]


def test_optimizers_that_do_harm_are_told_of():
    model = network()
    with pytest.warns(UserWarning, match=r"weight decay pulls 1\.scale and 1 more scales and locations to 0"):
        AgileLogger(model, optimizer=torch.optim.AdamW(model.parameters(), weight_decay=0.1))
    with pytest.warns(UserWarning, match=r"no optimizer holds 1\.scale and 1 more"):
        AgileLogger(model, optimizer=torch.optim.SGD(model[0].parameters(), lr=0.1))


def test_a_run_that_is_ahead_drops_nothing():
    model, run = network(), Run()
    optimizer = optimizer_of(model)
    with AgileLogger(model, run, optimizer=optimizer, every_n_steps=2):
        for step in range(5):
            train(model, optimizer, 1)
            run.log({"loss": 1.0}, step=step)
    assert run.dropped == 0
    assert [row for row in run.rows.values() if "loss" not in row] == []
    assert [row["agileact/step"] for row in run.rows.values() if "agileact/step" in row] == [2, 4, 5]
    assert run.defined == ["agileact/step", "agileact/*"]


def test_the_module_of_weights_and_biases_needs_a_run():
    module: Any = ModuleType("wandb")
    module.run, module.define_metric = None, print
    with pytest.raises(ArgumentError, match=r"call wandb\.init\(\) first"):
        report(ag.Monitor(network()), module)
    module.run = Run()
    assert report(ag.Monitor(network()), module) == 14
    assert module.run.rows[0]["agileact/1/scale/max"] == 1.0


def test_python_logging_gets_a_line_for_each_layer(caplog):
    with caplog.at_level(logging.INFO):
        report(ag.Monitor(network()), logging.getLogger("training"))
    assert caplog.messages == ["agileact step 0, layer 1: a 1 [1, 1], b 0 [0, 0]"]


def test_tensorboard_reads_back_what_was_written(tmp_path: Path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    model = network()
    with SummaryWriter(str(tmp_path)) as writer:
        assert add_histograms(writer, model, 3) == 2
        with torch.no_grad():
            model[1].scale[0] = float("nan")
        assert add_histograms(writer, model, 4) == 1
        assert add_shapes(writer, model, 4)
        assert not add_shapes(writer, nn.Linear(2, 2), 4)
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0}).Reload()
    assert [one.step for one in events.Histograms("agileact/1/location")] == [3, 4]
    assert events.Histograms("agileact/1/scale")[0].histogram_value.max == 1.0
    (picture,) = events.Images("agileact/shapes")
    assert (picture.step, picture.encoded_image_string[:4]) == (4, b"\x89PNG")


def test_shapes_follow_the_formula():
    x = torch.linspace(-2, 2, 9)
    module = ag.CombinedAgile("sigmoid", 3, terms=2)
    with torch.no_grad():
        module.scale.normal_(), module.location.normal_()
    plain, learned = shape(module, x)
    torch.testing.assert_close(plain, torch.sigmoid(x))
    a, b = module.scale.view(2, 3), module.location.view(2, 3)
    for unit in range(3):
        wanted = sum(a[j, unit] * torch.sigmoid(x - b[j, unit]) for j in range(2))
        torch.testing.assert_close(learned[unit], wanted)
    wrapped = ag.AgileWrapped(torch.tanh, 100)
    assert shape(wrapped, x)[1].shape == (32, 9)


@pytest.mark.parametrize(
    ("arguments", "kind", "part"),
    [
        ({"every_n_steps": 0}, ArgumentError, "every_n_steps must be at least 1, not 0"),
        ({"every_n_steps": 1.5}, ArgumentTypeError, "every_n_steps must be an integer, not 1.5"),
        ({"optimizer": 3}, ArgumentTypeError, "optimizer must be a torch.optim.Optimizer, not int"),
    ],
    ids=["none", "fraction", "optimizer"],
)
def test_bad_arguments_say_what_came(arguments, kind, part):
    model = network()
    with pytest.raises(kind, match=part):
        AgileLogger(model, **{"optimizer": optimizer_of(model), **arguments})
    with pytest.raises(ArgumentTypeError, match="logger must have"):
        AgileLogger(model, 3, optimizer=optimizer_of(model))
    with pytest.raises(ArgumentTypeError, match="writer must have add_histogram"):
        add_histograms(3, model, 0)
