"""Trials in a stack: as alone, whatever the stack."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import pytest
import torch
from torch import nn

from agileact._common.errors import ArgumentError
from agileact.study.data import dataset as data_room
from agileact.study.data.dataset import DataSet
from agileact.study.models.stack import StackedNetwork
from agileact.study.running.executors import Advanced, FinishedTogether, Started
from agileact.study.running.executors.local import LocalExecutor
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
    "relu+layernorm",
    "agile-sigmoid+standardized",
    "agile-tanh+length-one+direction-turn=1",
    "agile-relu+centred-start+activation-decay=0.1+positive",
    "agile-relu+hidden-standardized+location-only",
    "agile-relu+weight-standardized",
    "agile-sigmoid+nf",
    "tests.study.activations_of_a_user:Slope",
    "tests.study.activations_of_a_user:Scaled+weight-decay=0.01",
    "tests.study.activations_of_a_user:cubed",
)


def make(name: str, *, data: str = "digits", seeds: int = 3, **changes: object) -> list[TrialSpec]:
    budget = Budget(**{"iterations": 25, "batch_size": 20, "evaluate_every": 10, "test_curve": False, **changes})  # type: ignore[arg-type]
    task = TaskSpec(DataSpec(data, 60), ModelSpec("mlp", freeze({"nodes": (9, 7)})), budget)
    return [TrialSpec(task, arm(name, lr=0.01).spec, seed) for seed in range(seeds)]


def of(specs: list[TrialSpec], data: DataSet) -> dict[DataSpec, DataSet]:
    """Return the same data under each name that trials have for it."""
    return {spec.task.data: data for spec in specs}


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
    together, again = (run_stack(specs, of(specs, data), mapped=mapped) for _ in range(2))
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
        assert stacked.directions.keys() == alone.directions.keys()
        for layer, trace in stacked.directions.items():
            assert trace.turn_median == pytest.approx(alone.directions[layer].turn_median, rel=1e-2)
            assert trace.turn_max == pytest.approx(alone.directions[layer].turn_max, rel=1e-2)


def test_the_paper_s_widths_too():
    task = TaskSpec(DataSpec("mnist5k-split"), ModelSpec("mlp"), Budget(12, evaluate_every=4))
    specs = [TrialSpec(task, arm("agile-sigmoid", lr=0.01).spec, seed) for seed in range(4)]
    data = data_room.load(task.data)
    together = run_stack(specs, of(specs, data))
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
    together = run_stack(specs, of(specs, data), mapped=True)
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
    for spec, stacked in zip(specs, run_stack(specs, of(specs, data)), strict=True):
        alone = run_trial(spec, data)
        assert stacked.curve.validation_loss == pytest.approx(alone.curve.validation_loss, rel=2e-4)
        assert (stacked.selected_test_loss, stacked.curve.validation_accuracy, stacked.shapes) == (None, [], {})


def test_one_that_diverges_ends_and_leaves_the_others_alone():
    specs = make("relu", iterations=40)
    data = data_room.load(specs[0].task.data)
    whole = run_stack(specs, of(specs, data))
    seen = []

    from agileact.study.training import stacked

    run = stacked._Stack(specs, of(specs, data), lambda spec, iteration, loss: seen.append((spec.seed, iteration)))
    with torch.no_grad():
        run.model.part(1)["fc1.weight"].fill_(float("inf"))
    results = run.run()
    assert [result.status for result in results] == ["finished", "diverged", "finished"]
    # To the bit: a network's numbers do not depend on those of its neighbours.
    assert numbers(results[0]) == numbers(whole[0])
    assert numbers(results[2]) == numbers(whole[2])
    assert results[1].curve.iteration == [0, 10]
    assert {seed for seed, iteration in seen if iteration == 40} == {0, 2}


def assert_as_alone(specs: list[TrialSpec], together: list[TrialResult], sets: dict[DataSpec, DataSet]) -> None:
    for spec, stacked in zip(specs, together, strict=True):
        alone = run_trial(spec, sets[spec.task.data])
        assert stacked.spec == spec
        assert stacked.curve.iteration == alone.curve.iteration
        assert stacked.curve.validation_loss == pytest.approx(alone.curve.validation_loss, rel=2e-4)
        assert stacked.curve.train_loss == pytest.approx(alone.curve.train_loss, rel=2e-4)
        assert stacked.selected_test_loss == pytest.approx(alone.selected_test_loss, rel=2e-4)
        assert stacked.shapes.keys() == alone.shapes.keys()
        for layer, shape in stacked.shapes.items():
            ours, theirs = torch.tensor(shape.after), torch.tensor(alone.shapes[layer].after)
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


ADAM = [
    {"lr": 0.01},
    {"lr": 0.001, "weight_decay": 0.1},
    {"lr": 0.03, "activation_lr": 0.003, "optimizer_options": (("betas", (0.8, 0.95)), ("eps", 1e-5))},
    {"lr": 0.01, "schedule": "cosine", "warmup": 0.2, "scale_lr": 0.1},
    {"lr": 0.02, "schedule": "one-cycle", "location_lr": 0.0},
    {"lr": 0.01, "schedule": "linear", "clip_norm": 0.5},
    {"lr": 0.004, "bias_lr_multiplier": 3.0, "label_smoothing": 0.2},
    {"lr": 0.01, "activation_decay": 0.5},
]
OTHERS = [
    {"optimizer": "adamw", "weight_decay": 0.2, "schedule": "cosine"},
    {"optimizer": "sgd", "lr": 0.3, "weight_decay": 0.01},
    {"optimizer": "momentum", "lr": 0.05, "optimizer_options": (("nesterov", True),)},
    {"optimizer": "nadam", "optimizer_options": (("decoupled_weight_decay", True),), "weight_decay": 0.2},
    {"optimizer": "rmsprop", "lr": 0.003, "optimizer_options": (("centered", True), ("momentum", 0.5))},
    {"optimizer": "adam", "optimizer_options": (("amsgrad", True),), "activation_lr": 0.03},
]


@pytest.mark.parametrize("mapped", [False, True], ids=["written-out", "mapped"])
@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("agile-sigmoid", ADAM),
        ("combined-relu:terms=2+positive", ADAM),
        ("agile-tanh", OTHERS),
        ("agile-sigmoid+hidden-standardized", ADAM),
        ("agile-relu+standardized", OTHERS),
        ("pau+batchnorm", [{"optimizer": "sgd", "lr": 0.1}, {"optimizer": "sgd", "lr": 0.01, "clip_norm": 1.0}]),
        ("tests.study.activations_of_a_user:Slope", [{"lr": 0.01}, {"lr": 0.03, "activation_lr": 0.1}]),
    ],
    ids=["adam", "terms", "others", "directions", "directions-others", "pau", "user"],
)
def test_points_of_a_search_in_a_stack_are_those_of_a_trial_alone(
    name: str, points: list[dict[str, Any]], mapped: bool
):
    (first,) = make(name, seeds=1)
    # Two seeds of each point, and the points of another one of them twice.
    if not name.startswith(("agile", "combined")):
        points = [{key: value for key, value in one.items() if key != "activation_decay"} for one in points]
    arms = [dataclasses.replace(first.arm, **one) for one in points]
    specs = [TrialSpec(first.task, one, seed) for seed in (0, 5) for one in arms]
    assert stacks(specs) == [specs]
    sets = of(specs, data_room.load(first.task.data))
    together = run_stack(specs, sets, mapped=mapped)
    assert [numbers(one) for one in together] == [numbers(one) for one in run_stack(specs, sets, mapped=mapped)]
    assert_as_alone(specs, together, sets)


def replicated(data: str) -> list[TrialSpec]:
    """Return trials of two rates and three divisions into training and validation samples."""
    (one,) = make("agile-tanh+calibrated", data=data, seeds=1)
    return [
        TrialSpec(
            dataclasses.replace(one.task, data=dataclasses.replace(one.task.data, split=split)),
            dataclasses.replace(one.arm, lr=lr),
            10 * split,
        )
        for lr, split in itertools.product((0.01, 0.03), range(3))
    ]


@pytest.mark.parametrize("data", ["digits", "diabetes"])
def test_replicates_are_in_one_stack_with_samples_of_their_own(data: str):
    specs = replicated(data)
    assert stacks(specs) == [specs]
    sets = {spec.task.data: data_room.load(spec.task.data) for spec in specs}
    assert_as_alone(specs, run_stack(specs, sets), sets)


@pytest.mark.slow
def test_a_worker_runs_a_stack_of_replicates_to_the_same_bits():
    specs = replicated("digits")
    sets = {spec.task.data: data_room.load(spec.task.data) for spec in specs}
    (last,) = [event for event in LocalExecutor(jobs=1).run(specs) if not isinstance(event, Started | Advanced)]
    assert isinstance(last, FinishedTogether)
    assert [numbers(one) for one in last.results] == [numbers(one) for one in run_stack(specs, sets)]


def test_a_point_that_diverges_leaves_the_others_alone_to_the_bit():
    # The compiled tanh takes a vector with a number that is none another way, whose last bits differ.
    (first,) = make("agile-relu", seeds=1, iterations=40)
    specs = [
        dataclasses.replace(first, arm=dataclasses.replace(first.arm, optimizer="sgd", lr=lr)) for lr in (0.1, 0.2, 0.3)
    ]
    sets = of(specs, data_room.load(first.task.data))
    whole = run_stack(specs, sets)

    from agileact.study.training import stacked

    run = stacked._Stack(specs, sets, None)
    with torch.no_grad():
        run.model.part(1)["fc1.weight"].fill_(float("nan"))
    results = run.run()
    assert [result.status for result in results] == ["finished", "diverged", "finished"]
    assert [numbers(results[i]) for i in (0, 2)] == [numbers(whole[i]) for i in (0, 2)]


def test_what_is_stacked():
    specs = make("relu", seeds=55)
    others = make("agile-relu", seeds=2)
    alone = [
        make("relu+folded-updates")[0],
        make("relu", probe_every=5)[0],
        make("relu", patience=5)[0],
        make("relu+weight-norm")[0],
        make("relu", precision="bf16")[0],
        make("relu", device="cuda", processes=2)[0],
        dataclasses.replace(specs[0], task=dataclasses.replace(specs[0].task, model=ModelSpec("cnn"))),
    ]
    assert not any(map(stackable, alone))
    assert stacks([*specs, *alone, *others]) == [
        specs[:24],
        specs[24:48],
        specs[48:],
        *([spec] for spec in alone),
        others,
    ]
    # A GPU has room beside convolutions.
    assert len(stacks([dataclasses.replace(alone[-1], seed=seed) for seed in range(3)])) == 3
    on_gpu = dataclasses.replace(alone[-1].task, budget=Budget(25, device="cuda"))
    assert len(stacks([dataclasses.replace(alone[-1], task=on_gpu, seed=seed) for seed in range(3)])) == 1
    # What a study lacks after whole stacks were stored is stacked as it would have been.
    assert stacks(specs[24:]) == stacks(specs)[1:]
    # Other networks, samples or lengths never share a stack.
    (one,) = make("relu", seeds=1)
    apart = [
        one,
        *make("relu", data="diabetes", seeds=1),
        *make("relu", iterations=26, seeds=1),
        *make("relu", use_test=False, seeds=1),
        *make("relu+batchnorm", seeds=1),
        *make("relu+widened", seeds=1),
        *make("agile-relu+scale-only", seeds=1),
        *make("agile-relu+positive", seeds=1),
    ]
    assert len(stacks(apart)) == len(apart)


def test_what_cannot_be_stacked_is_an_error():
    with pytest.raises(ArgumentError, match="'0', a Conv2d"):
        StackedNetwork([nn.Sequential(nn.Conv2d(1, 1, 1))], {})
