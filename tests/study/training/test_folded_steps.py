"""The folded updates against the agile network itself: the same path in other coordinates."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from agileact import ArgumentError
from agileact.nn import Agile
from agileact.optim import param_groups
from agileact.study import models
from agileact.study.spec.activation_names import PlainActivation
from agileact.study.spec.trial import ArmSpec, ModelSpec, freeze
from agileact.study.training import optimizers
from agileact.study.training.folded_steps import FoldedOptimizer, fold_into, units

CNN = ModelSpec("cnn", freeze({"filters": (4, 3), "nodes": (6, 5)}))


def network(conv, fc):
    arm = ArmSpec(freeze({"conv": conv, "fc": fc}))
    return models.build(CNN, arm, input_shape=(1, 8, 8), classes=4, seed=3).double()


def batches(count=25):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        x = torch.rand(12, 1, 8, 8, generator=generator, dtype=torch.float64)
        yield x, torch.randint(0, 4, (12,), generator=generator)


def train(model, optimizer):
    losses = []
    for x, y in batches():
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    ("optimizer", "lr", "rate"), [("sgd", 0.05, 0.02), ("adam", 0.01, 0.003), ("momentum", 0.02, 0.02)]
)
def test_the_plain_network_follows_the_agile_ones_path(optimizer, lr, rate):
    agile, plain = network("agile-sigmoid", "agile-relu"), network("sigmoid", "relu")
    expected = train(agile, optimizers.build(optimizer, param_groups(agile, lr, activation_lr=rate)))
    steps = FoldedOptimizer(
        plain, lambda groups: optimizers.build(optimizer, groups), lr=lr, scale_lr=rate, location_lr=rate
    )
    losses = train(plain, steps)
    assert losses == pytest.approx(expected, rel=1e-9)
    moved = [module.scale for module in agile.modules() if isinstance(module, Agile)]
    assert max(float((scale.detach() - 1).abs().max()) for scale in moved) > 1e-3
    twin = network("sigmoid", "relu")
    own = train(twin, optimizers.build(optimizer, [{"params": list(twin.parameters()), "lr": lr}]))
    assert losses != pytest.approx(own, rel=1e-6)


def test_one_step_at_the_start_is_the_formula_of_the_docs():
    plain = network("sigmoid", "relu")
    before = copy.deepcopy(plain)
    steps = FoldedOptimizer(
        plain, lambda groups: optimizers.build("sgd", groups), lr=1e-4, scale_lr=3e-4, location_lr=2e-4
    )
    x, y = next(iter(batches()))
    cross_entropy(plain(x), y).backward()
    gradients = {name: p.grad.clone() for name, p in plain.named_parameters() if p.grad is not None}
    steps.step()
    for name, parameter in plain.named_parameters():
        old, gradient = before.get_parameter(name).detach(), gradients[name]
        moved = parameter.detach() - old
        if name.endswith("bias") and name != "output.bias":
            expected = -(1e-4 + 2e-4) * gradient
        elif name.endswith("weight") and name in ("conv2.weight", "fc2.weight", "output.weight"):
            inputs = (gradient * old).transpose(0, 1).flatten(1).sum(1)
            expected = -1e-4 * gradient - 3e-4 * inputs.view(1, -1, *[1] * (old.ndim - 2)) * old
        elif name == "fc1.weight":  # behind pooling and flattening: four places to a channel
            inputs = (gradient * old).sum(0).view(3, 4).sum(1).repeat_interleave(4)
            expected = -1e-4 * gradient - 3e-4 * inputs * old
        else:
            expected = -1e-4 * gradient
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-12)


def test_resetting_forgets_the_scale():
    kept, reset = network("sigmoid", "relu"), network("sigmoid", "relu")
    losses = []
    for model, forget in ((kept, False), (reset, True)):
        steps = FoldedOptimizer(
            model, lambda groups: optimizers.build("sgd", groups), lr=0.1, scale_lr=0.1, location_lr=0.1, reset=forget
        )
        losses.append(train(model, steps))
    assert losses[0][:2] == pytest.approx(losses[1][:2], rel=1e-9)
    assert losses[0][-1] != pytest.approx(losses[1][-1], rel=1e-6)


def test_folding_keeps_the_outputs():
    agile, plain = network("agile-tanh", "agile-gelu"), network("tanh", "gelu")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in agile.modules():
            if isinstance(module, Agile):
                module.scale.copy_(torch.rand(module.scale.shape, generator=generator) + 0.5)
                module.location.copy_(torch.randn(module.scale.shape, generator=generator))
    fold_into(agile, plain)
    x, _ = next(iter(batches()))
    torch.testing.assert_close(plain(x), agile(x))
    with torch.no_grad():
        agile.get_submodule("conv1_activation").scale.fill_(-1.0)
    with pytest.raises(ArgumentError, match="'conv1_activation' is negative: it does not fold through max pooling"):
        fold_into(agile, plain)


def test_units_are_found_in_order():
    found = units(network("relu", "relu"))
    assert [unit.name for unit in found] == [f"{name}_activation" for name in ("conv1", "conv2", "fc1", "fc2")]
    assert [unit.channels for unit in found] == [4, 3, 6, 5]


@pytest.mark.parametrize(
    ("model", "part"),
    [
        (nn.Linear(1, 1), "sequential network, not a Linear"),
        (nn.Sequential(nn.Linear(2, 2), PlainActivation("relu")), "no layer follows"),
        (nn.Sequential(PlainActivation("relu"), nn.Linear(2, 2)), "does not follow a layer with a bias"),
        (nn.Sequential(nn.Linear(2, 2, bias=False), PlainActivation("relu"), nn.Linear(2, 2)), "with a bias"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), PlainActivation("relu"), nn.Linear(2, 2)),
            "stands in the way",
        ),
        (nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), "groups"),
    ],
)
def test_what_cannot_be_folded_is_refused(model, part):
    with pytest.raises(ArgumentError, match=part):
        units(model)


def test_folded_updates_want_plain_activations():
    with pytest.raises(ArgumentError, match="all plain"):
        FoldedOptimizer(network("agile-relu", "relu"), torch.optim.SGD, lr=0.1, scale_lr=0.1, location_lr=0.1)
