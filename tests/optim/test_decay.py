"""decay_activations: what decays towards what, and when."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import agileact as ag


def _pulled(model: nn.Module, x: Tensor) -> None:
    """One backward pass whose gradients are all zero."""
    model.zero_grad()
    (0 * model(x)).sum().backward()


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adam"])
def test_decay_pulls_towards_the_start(name):
    model: Any = nn.Sequential(nn.Linear(2, 3), ag.AgileReLU(3), ag.CombinedAgile("tanh", 3, terms=2, spread=0.5))
    groups = ag.param_groups(model, 0.1, activation_lr=0.2, activation_decay=0.5)
    optimizer = getattr(torch.optim, name)(groups)
    ag.decay_activations(optimizer, model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
    _pulled(model, torch.randn(4, 2))
    optimizer.step()
    near = 1 - 0.2 * 0.5
    torch.testing.assert_close(model[1].scale.detach(), torch.full((3,), 1 + near * 2))
    torch.testing.assert_close(model[1].location.detach(), torch.full((3,), near * 3))
    expected = torch.tensor([1 + near * 2, near * 3]).repeat_interleave(3)
    torch.testing.assert_close(model[2].scale.detach(), expected)
    expected = torch.tensor([near * 3, 0.5 + near * 2.5]).repeat_interleave(3)
    torch.testing.assert_close(model[2].location.detach(), expected)
    assert torch.equal(model[0].weight, torch.full((3, 2), 3.0))


def test_decay_comes_on_top_of_the_step():
    model, twin = ag.AgileSigmoid(3), ag.AgileSigmoid(3)
    with torch.no_grad():
        for module in (model, twin):
            module.scale.fill_(2.0)
    x = torch.randn(5, 3)
    optimizers = [
        torch.optim.AdamW(ag.param_groups(module, 0.1, activation_decay=decay))
        for module, decay in ((model, 0.3), (twin, 0.0))
    ]
    ag.decay_activations(optimizers[0], model)
    for module, optimizer in zip((model, twin), optimizers, strict=True):
        module(x).sum().backward()
        optimizer.step()
    stepped = twin.scale.detach()
    torch.testing.assert_close(model.scale.detach(), stepped - 0.1 * 0.3 * (stepped - 1))


def test_decay_follows_a_schedule():
    model = ag.AgileReLU(1)
    optimizer = torch.optim.SGD(ag.param_groups(model, 1.0, activation_decay=0.5))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    ag.decay_activations(optimizer, model)
    with torch.no_grad():
        model.scale.fill_(3.0)
    expected = 3.0
    for lr in (1.0, 0.1, 0.01):
        _pulled(model, torch.zeros(1, 1))
        optimizer.step()
        scheduler.step()
        expected -= lr * 0.5 * (expected - 1)
        assert model.scale.item() == pytest.approx(expected)
    optimizer.param_groups[0]["activation_decay"] = 0.0
    _pulled(model, torch.zeros(1, 1))
    optimizer.step()
    assert model.scale.item() == pytest.approx(expected)


def test_decay_leaves_alone_what_has_no_gradient_and_ends_when_removed():
    model = ag.AgileReLU(1)
    optimizer = torch.optim.SGD(ag.param_groups(model, 1.0, activation_decay=0.5))
    handle = ag.decay_activations(optimizer, model)
    with torch.no_grad():
        model.scale.fill_(3.0)
    optimizer.step()
    assert model.scale.item() == 3.0
    handle.remove()
    _pulled(model, torch.zeros(1, 1))
    optimizer.step()
    assert model.scale.item() == 3.0


def test_decay_takes_a_learning_rate_in_a_tensor():
    model = ag.AgileReLU(1)
    optimizer = torch.optim.SGD(ag.param_groups(model, torch.tensor(0.5), activation_decay=0.5))
    ag.decay_activations(optimizer, model)
    with torch.no_grad():
        model.scale.fill_(3.0)
    _pulled(model, torch.zeros(1, 1))
    optimizer.step()
    assert model.scale.item() == pytest.approx(2.5)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_state_round_trip_continues_with_the_same_numbers(name):
    def make() -> tuple[nn.Module, Any]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(2, 3), ag.CombinedAgile("sigmoid", 3))
        groups = ag.param_groups(model, 0.1, activation_lr=0.05, weight_decay=0.01, activation_decay=0.2)
        optimizer = getattr(torch.optim, name)(groups)
        ag.decay_activations(optimizer, model)
        return model, optimizer

    def steps(model: nn.Module, optimizer: Any, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.linspace(-1, 1, 8).view(4, 2)).square().sum().backward()
            optimizer.step()

    whole, whole_optimizer = make()
    steps(whole, whole_optimizer, 6)
    first, first_optimizer = make()
    steps(first, first_optimizer, 3)
    second, second_optimizer = make()
    second.load_state_dict(first.state_dict())
    second_optimizer.load_state_dict(first_optimizer.state_dict())
    assert [group["name"] for group in second_optimizer.param_groups] == ["weights", "scale", "location"]
    steps(second, second_optimizer, 3)
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_decay_needs_groups_that_decay():
    model = ag.AgileReLU(2)
    with pytest.raises(ag.ArgumentError, match="no group with an 'activation_decay'"):
        ag.decay_activations(torch.optim.SGD(model.parameters()), model)
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.1, activation_decay=0.1))
    with pytest.raises(ag.ArgumentError, match="is model the one whose parameters the optimizer has"):
        ag.decay_activations(optimizer, copy.deepcopy(model))
    with pytest.raises(ag.ArgumentTypeError, match=r"model must be a torch\.nn\.Module, not float"):
        ag.decay_activations(optimizer, 0.1)  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentTypeError, match=r"optimizer must be a torch\.optim\.Optimizer, not AgileReLU"):
        ag.decay_activations(model, optimizer)  # type: ignore[arg-type]


def test_a_second_call_replaces_the_first():
    model: Any = ag.AgileReLU(3)
    optimizer = torch.optim.SGD(ag.param_groups(model, 0.1, activation_decay=0.5))
    first = ag.decay_activations(optimizer, model)
    second = ag.decay_activations(optimizer, model)
    with torch.no_grad():
        model.scale.fill_(3.0)
    _pulled(model, torch.randn(4, 3))
    optimizer.step()
    torch.testing.assert_close(model.scale.detach(), torch.full((3,), 1 + 2 * (1 - 0.1 * 0.5)))
    first.remove()  # which is over, and takes nothing of the second with it
    optimizer.step()
    torch.testing.assert_close(model.scale.detach(), torch.full((3,), 1 + 2 * (1 - 0.1 * 0.5) ** 2))
    second.remove()
    optimizer.step()
    torch.testing.assert_close(model.scale.detach(), torch.full((3,), 1 + 2 * (1 - 0.1 * 0.5) ** 2))


def test_each_optimizer_has_a_decay_of_its_own():
    models: list[Any] = [ag.AgileReLU(3), ag.AgileReLU(3)]
    optimizers = [torch.optim.SGD(ag.param_groups(model, 0.1, activation_decay=0.5)) for model in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        ag.decay_activations(optimizer, model)
    for model, optimizer in zip(models, optimizers, strict=True):
        with torch.no_grad():
            model.scale.fill_(3.0)
        _pulled(model, torch.randn(4, 3))
        optimizer.step()
        torch.testing.assert_close(model.scale.detach(), torch.full((3,), 1 + 2 * (1 - 0.1 * 0.5)))
