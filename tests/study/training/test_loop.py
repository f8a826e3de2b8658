from __future__ import annotations

import dataclasses
import math
import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from agileact.study import models
from agileact.study.spec.trial import ArmSpec, ModelSpec
from agileact.study.training.loop import batches, evaluate, saved_bytes
from agileact.study.training.run import run_trial
from tests.study.builders import make_data, make_spec


def deterministic_part(result):
    return dataclasses.replace(result, seconds=0.0, seconds_per_iteration=0.0)


def test_same_seed_same_bits_and_other_seed_other_bits():
    data = make_data()
    first = deterministic_part(run_trial(make_spec(), data))
    assert deterministic_part(run_trial(make_spec(), data)) == first
    assert deterministic_part(run_trial(make_spec(seed=1), data)).curve != first.curve


def test_the_number_of_threads_of_the_caller_changes_nothing():
    data = make_data()
    before = torch.get_num_threads()
    first = deterministic_part(run_trial(make_spec(), data))
    try:
        torch.set_num_threads(2)
        assert deterministic_part(run_trial(make_spec(), data)) == first
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("fc", ["sigmoid", "agile-sigmoid"])
def test_the_engine_agrees_with_a_plain_loop(fc):
    """The oracle is a loop as one would write it: torch's modules, a formula for a f(x - b), torch's SGD."""
    data = make_data()
    spec = make_spec(fc=fc, iterations=8, evaluate_every=4, probe_every=3)
    spec = dataclasses.replace(spec, arm=ArmSpec(spec.arm.activations, "sgd", lr=0.1, activation_lr=0.3))
    result = run_trial(spec, data)

    built = models.build(spec.task.model, spec.arm, input_shape=(1, 8, 8), classes=4, seed=0)
    conv1, conv2 = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)
    fc1, output = nn.Linear(8, 5), nn.Linear(5, 4)
    a, b = torch.ones(5, requires_grad=True), torch.zeros(5, requires_grad=True)
    layers = {"conv1": conv1, "conv2": conv2, "fc1": fc1, "output": output}
    for name, layer in layers.items():
        layer.load_state_dict(built.get_submodule(name).state_dict())

    def forward(x):
        x = torch.max_pool2d(torch.relu(conv1(x)), 2)
        x = torch.max_pool2d(torch.relu(conv2(x)), 2).flatten(1)
        x = a / (1 + torch.exp(-(fc1(x) - b)))
        return output(x)

    weights = [p for layer in layers.values() for p in layer.parameters()]
    groups = [{"params": weights, "lr": 0.1}]
    if fc == "agile-sigmoid":
        groups.append({"params": [a, b], "lr": 0.3})
    optimizer = torch.optim.SGD(groups)
    stream = batches(60, 10, 0)
    losses, curve = [], {0: float(cross_entropy(forward(data.test_x), data.test_y).detach())}
    for iteration in range(1, 9):
        chosen = next(stream)
        loss = cross_entropy(forward(data.train_x[chosen]), data.train_y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if iteration % 4 == 0:
            curve[iteration] = float(cross_entropy(forward(data.test_x), data.test_y).detach())
    assert result.curve.iteration == list(curve)
    assert result.curve.test_loss == pytest.approx(list(curve.values()), rel=1e-5)
    assert result.curve.train_loss[1:] == pytest.approx([sum(losses[:4]) / 4, sum(losses[4:]) / 4], rel=1e-5)
    assert result.probe.iteration == [1, 4, 7]
    assert result.probe.before == pytest.approx([losses[0], losses[3], losses[6]], rel=1e-5)


def test_the_probe_moves_weights_first_then_activations():
    data = make_data()
    frozen = run_trial(make_spec(fc="sigmoid"), data).probe
    assert frozen.after_weights == frozen.after_activations
    spec = make_spec(iterations=1, evaluate_every=1, probe_every=1)
    still = dataclasses.replace(spec, arm=dataclasses.replace(spec.arm, activation_lr=0.0))
    moving = run_trial(spec, data)
    resting = run_trial(still, data)
    # One step: with scale and location at rest, the loss after it is the loss after the weights' half of it.
    assert moving.probe.after_weights == resting.probe.after_activations
    assert moving.probe.after_weights != moving.probe.after_activations
    assert moving.probe.before == resting.probe.before


def test_probing_does_not_change_the_training():
    data = make_data()
    assert run_trial(make_spec(probe_every=1), data).curve == run_trial(make_spec(probe_every=0), data).curve


def test_selection_takes_the_lowest_validation_loss_and_best_the_lowest_test_loss():
    result = run_trial(make_spec(iterations=40), make_data())
    curve = result.curve
    chosen = curve.validation_loss.index(min(curve.validation_loss))
    assert result.selected_iteration == curve.iteration[chosen]
    assert result.selected_test_loss == curve.test_loss[chosen]
    assert result.selected_test_accuracy == curve.test_accuracy[chosen]
    assert result.best_test_loss == min(curve.test_loss)
    assert result.best_test_loss < curve.test_loss[0]


def test_touching_the_test_set_once_gives_the_same_selected_loss():
    data = make_data()
    every = run_trial(make_spec(iterations=30), data)
    once = run_trial(make_spec(iterations=30, test_curve=False), data)
    assert once.curve.test_loss == []
    assert once.best_test_loss is None
    assert once.selected_iteration == every.selected_iteration
    assert once.selected_test_loss == every.selected_test_loss
    assert once.selected_test_accuracy == every.selected_test_accuracy


def test_a_diverged_trial_says_so_and_keeps_what_was_finite():
    spec = make_spec(iterations=50)
    spec = dataclasses.replace(spec, arm=ArmSpec(spec.arm.activations, "sgd", lr=1e30))
    result = run_trial(spec, make_data())
    assert result.status == "diverged"
    assert result.curve.iteration[-1] < 50
    assert result.best_test_loss is not None
    assert math.isfinite(result.best_test_loss)


def test_layers_are_traced_in_order_from_their_start():
    result = run_trial(make_spec(conv="agile-relu"), make_data())
    assert list(result.layers) == ["conv1", "conv2", "fc1"]
    for trace in result.layers.values():
        assert len(trace.scale_min) == len(result.curve.iteration)
        assert (trace.scale_min[0], trace.scale_max[0]) == (1.0, 1.0)
        assert (trace.location_min[0], trace.location_max[0]) == (0.0, 0.0)
        assert trace.scale_min[-1] < trace.scale_max[-1]


def test_every_sample_is_drawn_once_a_pass_also_when_the_batch_does_not_divide():
    stream = batches(10, 4, seed=0)
    drawn = torch.cat([next(stream) for _ in range(5)])
    assert sorted(drawn[:10].tolist()) == list(range(10))
    assert sorted(drawn[10:].tolist()) == list(range(10))


def test_evaluation_counts_a_short_last_batch_right():
    data = make_data()
    model = models.build(make_spec().task.model, make_spec().arm, input_shape=(1, 8, 8), classes=4, seed=0)
    x, y = data.train_x.repeat(9, 1, 1, 1), data.train_y.repeat(9)
    loss, accuracy = evaluate(model, x, y)
    with torch.no_grad():
        output = model(x).double()
    assert loss == pytest.approx(float(cross_entropy(output, y)), rel=1e-5)
    assert accuracy == pytest.approx(float((output.argmax(1) == y).double().mean()))


def test_progress_is_reported_at_least_at_the_end():
    seen = []
    run_trial(make_spec(), make_data(), lambda iteration, loss: seen.append((iteration, loss)))
    assert seen[-1][0] == 6
    assert math.isfinite(seen[-1][1])


def test_memory_for_the_backward_pass_is_measured_without_a_trace():
    spec, data = make_spec(conv="relu", fc="relu"), make_data()
    model = models.build(spec.task.model, spec.arm, input_shape=(1, 8, 8), classes=4, seed=0)
    normalised = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Tanh(), nn.Linear(5, 4)
    )
    state, before = torch.get_rng_state(), {k: v.clone() for k, v in normalised.state_dict().items()}
    assert saved_bytes(normalised, data.train_x[:10]) > 4 * 10 * 5 * 2
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in normalised.state_dict().items())
    assert saved_bytes(model, data.train_x[:20]) > 1.5 * saved_bytes(model, data.train_x[:10])
    assert run_trial(spec, data).saved_bytes == saved_bytes(model, data.train_x[:10])


@pytest.mark.parametrize("case", ["finished", "test curve", "diverged", "patience"])
def test_evaluated_aside_a_trial_is_the_same_to_the_bit(case: str):
    changes: dict[str, Any] = {"test_curve": case == "test curve", "patience": 2 * (case == "patience")}
    spec = make_spec(iterations=12, probe_every=0, **changes)
    if case in ("diverged", "patience"):
        rate = 1e30 if case == "diverged" else 3.0
        spec = dataclasses.replace(spec, arm=dataclasses.replace(spec.arm, optimizer="sgd", lr=rate))
    results = [run_trial(spec, make_data(), aside=aside) for aside in (False, True)]
    own, other = (dataclasses.replace(one, seconds=0.0, seconds_per_iteration=0.0).to_json() for one in results)
    assert own == other
    assert (len(results[0].curve.iteration) == 7) == (case in ("finished", "test curve"))


def test_what_fails_aside_fails_the_trial(monkeypatch: pytest.MonkeyPatch):
    from agileact.study.training import loop

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(threading.current_thread().name)

    trial = loop.Trial(make_spec(probe_every=0), make_data(), None, aside=True)
    monkeypatch.setattr(trial, "_evaluations", broken)
    with pytest.raises(RuntimeError, match="ThreadPoolExecutor"):
        trial.run()
    # Its thread has ended with it.
    assert not [one for one in threading.enumerate() if one.name.startswith("ThreadPoolExecutor")]


def test_code_of_the_user_is_not_evaluated_aside():
    from agileact.study.training.loop import evaluates_aside

    spec = make_spec()
    own = dataclasses.replace(spec.arm, activations=(("conv", "tests.study.activations_of_a_user:Slope"),))
    task = spec.task
    others = [
        dataclasses.replace(spec, arm=own),
        dataclasses.replace(spec, task=dataclasses.replace(task, model=ModelSpec("custom", (("target", "a:b"),)))),
        make_spec(device="cuda"),
        dataclasses.replace(
            spec, task=dataclasses.replace(task, data=dataclasses.replace(task.data, options=(("metric", "a:b"),)))
        ),
    ]
    assert [evaluates_aside(one) for one in (spec, *others)] == [True, False, False, False, False]
