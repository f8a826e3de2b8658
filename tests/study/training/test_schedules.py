"""Schedules, clipping, smoothing, options and early stopping: as a plain loop does it, and no part of older trials."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from agileact import ArgumentError
from agileact.study import models
from agileact.study.data.objective import Objective
from agileact.study.spec.arms import arm
from agileact.study.spec.trial import ArmSpec, Budget, TrialSpec
from agileact.study.training import optimizers
from agileact.study.training.loop import Measured, batches
from agileact.study.training.run import run_trial
from agileact.study.training.setup import build_network, build_optimizer
from agileact.study.training.stacked import stackable
from tests.study.builders import make_data, make_spec

NEW: dict[str, Any] = {
    "schedule": "cosine",
    "warmup": 0.25,
    "clip_norm": 0.1,
    "label_smoothing": 0.1,
    "optimizer_options": (("betas", (0.8, 0.95)), ("eps", 1e-6)),
}


def trained(**fields: Any) -> TrialSpec:
    spec = make_spec(iterations=8, evaluate_every=4, probe_every=0)
    return dataclasses.replace(spec, arm=dataclasses.replace(spec.arm, **fields))


def rates(schedule: str, warmup: float, iterations: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    steps = optimizers.scheduler(optimizer, schedule, warmup, iterations)
    found = []
    for _ in range(iterations):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if steps is not None:
            steps.step()
    return found


@pytest.mark.parametrize("iterations", [1, 2, 10, 41])
@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_rates_are_those_of_the_formulas(warmup: float, iterations: int):
    rise = math.ceil(warmup * iterations)
    fall = {"constant": lambda s: 1.0, "linear": lambda s: 1 - s, "cosine": lambda s: math.cos(math.pi * s / 2) ** 2}
    for name, shape in fall.items():
        expected = [
            2.0 * ((t + 1) / rise if t < rise else shape((t - rise) / (iterations - rise))) for t in range(iterations)
        ]
        assert rates(name, warmup, iterations) == pytest.approx(expected, abs=1e-12)
    cycle = rates("one-cycle", warmup, iterations)
    if iterations > 2:  # else there is no room for a rise
        assert cycle[0] == pytest.approx(2.0 / 25)
        assert max(cycle) == pytest.approx(2.0, rel=0.05)
        assert cycle[-1] < 1e-3
        assert cycle.index(max(cycle)) == pytest.approx((warmup or 0.3) * iterations - 1, abs=1)


def test_a_trial_agrees_with_a_plain_loop():
    spec, data = trained(**NEW), make_data()
    result = run_trial(spec, data)
    # The same network, stepped by hand.
    model = models.build(spec.task.model, spec.arm, input_shape=(1, 8, 8), classes=4, seed=0)
    groups = [{"params": [p], "lr": 0.01} for p in model.parameters()]
    optimizer = torch.optim.Adam(groups, betas=(0.8, 0.95), eps=1e-6)
    stream, losses = batches(60, 10, 0), []
    for t in range(8):
        factor = (t + 1) / 2 if t < 2 else (1 + math.cos(math.pi * (t - 2) / 6)) / 2
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * factor
        chosen = next(stream)
        output, y = model(data.train_x[chosen]), data.train_y[chosen]
        target = 0.9 * torch.nn.functional.one_hot(y, 4) + 0.1 / 4
        loss = -(target * output.log_softmax(1)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
        for p in model.parameters():
            if p.grad is not None:
                p.grad.mul_(min(1.0, 0.1 / norm))
        optimizer.step()
        losses.append(float(loss.detach()))
    assert result.curve.train_loss[1:] == pytest.approx([sum(losses[:4]) / 4, sum(losses[4:]) / 4], rel=1e-4)
    # What is measured has no smoothing.
    measured = float(cross_entropy(model(data.test_x), data.test_y).detach())
    assert result.curve.test_loss[-1] == pytest.approx(measured, rel=1e-4)


def test_each_field_is_part_of_the_identity_and_none_is_at_its_default():
    plain = make_spec()
    specs = [plain]
    for name, value in NEW.items():
        assert name not in plain.to_json()
        specs.append(dataclasses.replace(plain, arm=dataclasses.replace(plain.arm, **{name: value})))
    budget = dataclasses.replace(plain.task.budget, patience=3)
    assert "patience" not in plain.to_json()
    specs.append(dataclasses.replace(plain, task=dataclasses.replace(plain.task, budget=budget)))
    assert len({spec.key for spec in specs}) == len(specs)
    assert [TrialSpec.from_json(spec.to_json()) for spec in specs] == specs
    # As it was before these fields were there.
    assert plain.key == "175d069547ea4692"


def test_a_trial_without_progress_stops_and_keeps_its_best():
    data = make_data()
    spec = make_spec(iterations=200, evaluate_every=2, probe_every=0, patience=3, test_curve=False)
    # Of a rate so large that the first evaluations are the best.
    spec = dataclasses.replace(spec, arm=dataclasses.replace(spec.arm, optimizer="sgd", lr=3.0))
    result = run_trial(spec, data)
    losses = result.curve.validation_loss
    best = losses.index(min(losses))
    assert result.status == "finished"
    assert len(losses) == best + 1 + 3 < 100
    assert result.selected_iteration == result.curve.iteration[best]
    assert result.selected_test_loss is not None
    whole = run_trial(
        dataclasses.replace(
            spec, task=dataclasses.replace(spec.task, budget=dataclasses.replace(spec.task.budget, patience=0))
        ),
        data,
    )
    assert whole.curve.validation_loss[: len(losses)] == losses
    assert len(whole.curve.iteration) == 101


def test_patience_counts_evaluations_since_the_lowest():
    measured = Measured(make_spec(patience=2), ())
    ends = []
    for index, loss in enumerate([3.0, 2.0, 2.5, 1.9, 2.0, 1.9]):
        measured.note(index, 1.0, (loss, None))
        ends.append(measured.ends)
    # A loss as low as the lowest is no progress.
    assert ends == [False, False, False, False, False, True]


def test_what_a_stack_cannot_do_runs_alone():
    from agileact.study.spec.tasks import task

    mlp = task("paper-mlp").spec
    assert stackable(TrialSpec(mlp, arm("relu+cosine+warmup=0.1+label-smoothing=0.1").spec, 0))
    assert stackable(TrialSpec(mlp, arm("relu+clip-norm=1").spec, 0))
    patient = dataclasses.replace(mlp, budget=dataclasses.replace(mlp.budget, patience=5))
    assert not stackable(TrialSpec(patient, arm("relu").spec, 0))


def test_folded_updates_follow_the_agile_network_along_a_schedule():
    # No max pooling behind a scale that may turn negative: a fully connected network.
    from agileact.study.data import dataset as data_room
    from agileact.study.spec.tasks import task

    base = task("digits-mlp").spec
    budget = Budget(20, 20, 5, 0, test_curve=False)
    losses = []
    for name in ("agile-tanh+cosine+warmup=0.2", "tanh+folded-updates+cosine+warmup=0.2"):
        spec = TrialSpec(dataclasses.replace(base, budget=budget), arm(name, optimizer="sgd", lr=0.1).spec, 0)
        losses.append(run_trial(spec, data_room.load(base.data)).curve.validation_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: ArmSpec((), schedule="cosin"), "schedule must be .*did you mean 'cosine'"),
        (lambda: ArmSpec((), warmup=1.0), "warmup must be at least 0 and less than 1, not 1.0"),
        (lambda: ArmSpec((), label_smoothing=-0.1), "label_smoothing must be at least 0 and less than 1"),
        (lambda: ArmSpec((), clip_norm=0.0), "clip_norm must be greater than 0"),
        (lambda: Budget(1, patience=-1), "patience must be at least 0"),
        (
            lambda: run_trial(trained(optimizer_options=(("beta", 1),)), make_data()),
            "unknown option of the optimizer 'adam': 'beta'; did you mean 'betas'",
        ),
        (
            lambda: run_trial(trained(optimizer_options=(("betas", (2.0, 0.9)),)), make_data()),
            "the optimizer 'adam' does not take betas=.*Invalid beta",
        ),
        (
            lambda: run_trial(trained(optimizer_options=(("lr", 1.0),)), make_data()),
            "unknown option of the optimizer 'adam': 'lr'",
        ),
        (
            lambda: run_trial(trained(activations=(("*", "relu"),), updates="folded", clip_norm=1.0), make_data()),
            "clip_norm does not go with folded updates",
        ),
        (lambda: Objective("regression").smoothed(0.1), "label_smoothing is for classes"),
    ],
)
def test_what_does_not_fit_is_refused(make, part):
    with pytest.raises(ArgumentError, match=part):
        make()


def test_fp32_rates_of_every_group_follow_the_schedule():
    spec = trained(schedule="linear", activation_lr=0.03)
    model = build_network(
        spec.task.model, spec.arm, input_shape=(1, 8, 8), classes=4, seed=0, sample=lambda: make_data().train_x
    )
    optimizer = build_optimizer(model, spec.arm)
    assert isinstance(optimizer, torch.optim.Optimizer)
    before = [group["lr"] for group in optimizer.param_groups]
    steps = optimizers.scheduler(optimizer, "linear", 0.0, 4)
    optimizer.step()
    assert steps is not None
    steps.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.75 * rate for rate in before])
