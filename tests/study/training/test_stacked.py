"""Trials in a stack: as alone, whatever the stack."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

from agileact._common.errors import ArgumentError
from agileact.study.data import dataset as data_room
from agileact.study.models.stack import StackedNetwork
from agileact.study.spec.arms import arm
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import Budget, DataSpec, ModelSpec, TaskSpec, TrialSpec, freeze
from agileact.study.training.run import run_trial
from agileact.study.training.stacked import run_stack, stackable, stacks

ARMS = (
    "relu",
    "agile-sigmoid",
    "agile-tanh+calibrated",
    "combined-relu:terms=2",
    "agile-relu+scale-only+positive",
    "agile-relu+activation-decay=0.1+weight-decay=0.01",
    "prelu",
    "pau",
    "relu+batchnorm",
    "agile-sigmoid+batchnorm",
    "relu+folded-start",
    "relu+widened",
    "agile-relu+cosine+warmup=0.2+label-smoothing=0.1",
    "prelu+one-cycle",
    "tests.study.activations_of_a_user:Slope",
    "tests.study.activations_of_a_user:Scaled+weight-decay=0.01",
    "tests.study.activations_of_a_user:cubed",
)


def make(name: str, *, data: str = "digits", seeds: int = 3, **changes: object) -> list[TrialSpec]:
    budget = Budget(**{"iterations": 25, "batch_size": 20, "evaluate_every": 10, "test_curve": False, **changes})  # type: ignore[arg-type]
    task = TaskSpec(DataSpec(data, 60), ModelSpec("mlp", freeze({"nodes": (9, 7)})), budget)
    return [TrialSpec(task, arm(name, lr=0.01).spec, seed) for seed in range(seeds)]


def numbers(result: TrialResult) -> dict[str, object]:
    """Return everything that is no time."""
    raw = json.loads(result.to_json())
    return {name: value for name, value in raw.items() if name not in ("seconds", "seconds_per_iteration")}


# By vmap too, which is meant for a GPU and gives the same numbers on the CPU.
@pytest.mark.parametrize("mapped", [False, True], ids=["written-out", "mapped"])
@pytest.mark.parametrize("name", ARMS)
def test_the_same_bits_again_and_the_numbers_of_a_trial_alone(name: str, mapped: bool):
    specs = make(name)
    data = data_room.load(specs[0].task.data)
    together = run_stack(specs, data, mapped=mapped)
    again = run_stack(specs, data, mapped=mapped)
    assert [numbers(result) for result in together] == [numbers(result) for result in again]
    # A bias before batch normalisation has a gradient of rounding alone, of which Adam makes steps.
    tolerance = 2e-2 if "batchnorm" in name else 2e-4
    for spec, stacked in zip(specs, together, strict=True):
        alone = run_trial(spec, data)
        assert stacked.curve.iteration == alone.curve.iteration
        # Training carries the last bits of sums on: what is compared is short.
        assert stacked.curve.validation_loss == pytest.approx(alone.curve.validation_loss, rel=tolerance)
        assert stacked.curve.train_loss == pytest.approx(alone.curve.train_loss, rel=tolerance)
        assert stacked.selected_test_loss == pytest.approx(alone.selected_test_loss, rel=tolerance)
        assert stacked.parameters == alone.parameters
        assert stacked.saved_bytes == alone.saved_bytes
        assert stacked.layers.keys() == alone.layers.keys()
        assert stacked.shapes.keys() == alone.shapes.keys()
        for layer, shape in stacked.shapes.items():
            ours, theirs = torch.tensor(shape.after), torch.tensor(alone.shapes[layer].after)
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


def test_the_paper_s_widths_too():
    task = TaskSpec(DataSpec("mnist5k-split"), ModelSpec("mlp"), Budget(12, evaluate_every=4))
    specs = [TrialSpec(task, arm("agile-sigmoid", lr=0.01).spec, seed) for seed in range(4)]
    data = data_room.load(task.data)
    together = run_stack(specs, data)
    alone = run_trial(specs[3], data)
    assert together[3].curve.test_loss == pytest.approx(alone.curve.test_loss, rel=1e-4)
    assert together[3].best_test_loss == pytest.approx(alone.best_test_loss, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("cnn", "relu"),
        ("cnn", "agile-relu"),
        ("cnn", "agile-sigmoid+batchnorm"),
        ("cnn", "prelu"),
        ("resnet", "agile-relu"),
    ],
)
def test_convolutions_by_vmap(model: str, name: str):
    options = {"filters": (4, 3), "nodes": (5,)} if model == "cnn" else {"widths": (4, 6), "blocks": 1}
    budget = Budget(6, batch_size=10, evaluate_every=6)
    task = TaskSpec(DataSpec("mnist5k-split"), ModelSpec(model, freeze(options)), budget)
    specs = [TrialSpec(task, arm(name, lr=0.01).spec, seed) for seed in range(3)]
    data = data_room.load(task.data)
    together = run_stack(specs, data, mapped=True)
    for spec, stacked in zip(specs, together, strict=True):
        alone = run_trial(spec, data)
        assert stacked.curve.test_loss == pytest.approx(
            alone.curve.test_loss, rel=2e-2 if "batchnorm" in name else 1e-3
        )
        assert stacked.layers.keys() == alone.layers.keys()
        assert stacked.shapes.keys() == alone.shapes.keys()
        assert stacked.parameters == alone.parameters


def test_a_regression_and_a_test_that_is_not_touched():
    specs = make("agile-tanh", data="diabetes", use_test=False)
    data = data_room.load(specs[0].task.data)
    for spec, stacked in zip(specs, run_stack(specs, data), strict=True):
        alone = run_trial(spec, data)
        assert stacked.curve.validation_loss == pytest.approx(alone.curve.validation_loss, rel=2e-4)
        assert (stacked.selected_test_loss, stacked.curve.validation_accuracy, stacked.shapes) == (None, [], {})


def test_one_that_diverges_ends_and_leaves_the_others_alone():
    specs = make("relu", iterations=40)
    data = data_room.load(specs[0].task.data)
    whole = run_stack(specs, data)
    seen = []

    from agileact.study.training import stacked

    run = stacked._Stack(specs, data, lambda spec, iteration, loss: seen.append((spec.seed, iteration)))
    with torch.no_grad():
        run.model.part(1)["fc1.weight"].fill_(float("inf"))
    results = run.run()
    assert [result.status for result in results] == ["finished", "diverged", "finished"]
    # To the bit: a network's numbers do not depend on those of its neighbours.
    assert numbers(results[0]) == numbers(whole[0])
    assert numbers(results[2]) == numbers(whole[2])
    assert results[1].curve.iteration == [0, 10]
    assert {seed for seed, iteration in seen if iteration == 40} == {0, 2}


def test_what_is_stacked():
    specs = make("relu", seeds=25)
    others = make("agile-relu", seeds=2)
    alone = [
        make("relu+folded-updates")[0],
        make("relu+bias-lr=2")[0],
        make("relu", probe_every=5)[0],
        make("relu", precision="bf16")[0],
        make("relu", device="cuda", processes=2)[0],
        dataclasses.replace(specs[0], task=dataclasses.replace(specs[0].task, model=ModelSpec("cnn"))),
    ]
    assert not any(map(stackable, alone))
    assert stacks([*specs, *alone, *others]) == [
        specs[:10],
        specs[10:20],
        specs[20:],
        *([spec] for spec in alone),
        others,
    ]
    # A GPU has room beside convolutions.
    assert len(stacks([dataclasses.replace(alone[-1], seed=seed) for seed in range(3)])) == 3
    on_gpu = dataclasses.replace(alone[-1].task, budget=Budget(25, device="cuda"))
    assert len(stacks([dataclasses.replace(alone[-1], task=on_gpu, seed=seed) for seed in range(3)])) == 1
    # What a study lacks after whole stacks were stored is stacked as it would have been.
    assert stacks(specs[10:]) == stacks(specs)[1:]


def test_what_cannot_be_stacked_is_an_error():
    with pytest.raises(ArgumentError, match="'0', a Conv2d"):
        StackedNetwork([nn.Sequential(nn.Conv2d(1, 1, 1))], {})
