"""Activation and pooling in one go compute what the two steps compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import agileact as ag
from agileact.functional import agile_max_pool2d
from agileact.study.models import chain
from agileact.study.models.chain import Chain
from agileact.study.spec.activation_names import activation


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize(
    "text", ["relu", "sigmoid", "tanh", "gelu", "agile-relu", "agile-gelu", "combined-relu:terms=2", "prelu"]
)
def test_as_a_plain_chain(text: str, last: bool):
    layers = [activation(text, 3), nn.MaxPool2d(2), nn.Conv2d(3, 2, 1), activation("relu", 2)]
    with torch.no_grad():
        for parameter in layers[0].parameters():
            parameter.add_(torch.randn_like(parameter))  # also negative scales
    outputs, gradients = [], []
    for kind in (Chain, nn.Sequential):
        x = torch.randn(4, 3, 9, 8, generator=torch.Generator().manual_seed(1))
        if last:
            x = x.contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        model = kind(*layers)
        model.zero_grad()
        output = model(x)
        output.square().sum().backward()
        outputs.append(output)
        assert x.grad is not None
        gradients.append([x.grad, *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.fixture
def pooled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, torch.Tensor]]:
    """What is pooled in one pass, and the base that is evaluated in it."""
    seen: list[tuple[str, torch.Tensor]] = []

    def noted(x: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        seen.append((options["base"], x))
        return agile_max_pool2d(x, *arguments, **options)

    monkeypatch.setattr(chain, "agile_max_pool2d", noted)
    return seen


@pytest.mark.parametrize(
    ("module", "base", "first"),
    [
        (nn.ReLU(), "relu", True),
        (nn.Tanh(), "identity", True),
        (nn.LeakyReLU(0.1), "identity", True),
        (nn.LeakyReLU(-0.1), "identity", False),  # it falls below 0
        (nn.GELU(), "identity", False),
    ],
    ids=str,
)
def test_plain_modules_of_pytorch_are_taken_as_their_bases(module: nn.Module, base: str, first: bool, pooled):
    x = torch.randn(4, 3, 9, 8, generator=torch.Generator().manual_seed(1))
    x[0, 0, :2] = torch.tensor([0.0, -0.0, -1.0, torch.nan]).repeat(2)
    x = x.contiguous(memory_format=torch.channels_last)
    pooling = nn.MaxPool2d(2)
    output = Chain(module, pooling)(x)
    (found,) = pooled
    assert (found[0], found[1] is x) == (base, first)
    torch.testing.assert_close(output, pooling(module(x)), rtol=0, atol=0, equal_nan=True)
    given = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    assert torch.autograd.gradcheck(Chain(module, pooling), given.requires_grad_())


def test_what_works_in_place_does():
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    expected = x.relu()
    Chain(nn.ReLU(inplace=True), nn.MaxPool2d(2))(x)
    assert torch.equal(x, expected)


@pytest.mark.parametrize(("base", "left"), [("relu", "relu"), ("tanh", "identity")])
def test_a_chain_folds_and_takes_what_is_left_at_once(base: str, left: str, pooled):
    layers: Any = [nn.Conv2d(2, 4, 3), activation(f"agile-{base}", 4), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2)]
    with torch.no_grad():
        for parameter in layers[1].parameters():
            parameter.add_(torch.rand_like(parameter))
    x = torch.randn(5, 2, 8, 8).contiguous(memory_format=torch.channels_last)
    folded, report = ag.fold(Chain(*layers), x)
    assert [site.status for site in report.sites] == ["folded"]
    pooled.clear()
    output = folded(x)
    ((taken, z),) = pooled
    assert taken == left
    assert torch.equal(z, folded.get_submodule("0")(x))
    assert torch.equal(output, nn.Sequential(*folded.children())(x))
    z = nn.functional.conv2d(x.double(), layers[0].weight.double(), layers[0].bias.double())
    a, b = (layers[1].get_parameter(name).double().view(-1, 1, 1) for name in ("scale", "location"))
    z = nn.functional.max_pool2d(a * getattr(torch, base)(z - b), 2)
    want = nn.functional.conv2d(z, layers[3].weight.double(), layers[3].bias.double())
    torch.testing.assert_close(output.double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", [activation("relu", 3), activation("agile-relu", 3), nn.ReLU()], ids=str)
def test_a_hook_sees_what_it_would_in_any_chain(module: nn.Module):
    layers = [module, nn.MaxPool2d(2)]
    seen = []
    layers[0].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    Chain(*layers)(torch.randn(4, 3, 8, 8))
    assert seen == [(4, 3, 8, 8)]


def test_the_channel_axis_of_a_fused_relu_is_the_second():
    x = torch.randn(2, 3, 4, 5)
    module = ag.AgileReLU(5, dim=3)
    with torch.no_grad():
        module.scale.copy_(torch.arange(5.0))
    pooling = nn.MaxPool2d(2)
    assert torch.equal(Chain(module, pooling)(x), pooling(module(x)))
