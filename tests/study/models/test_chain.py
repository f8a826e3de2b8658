"""Activation and pooling in one go compute what the two steps compute."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import agileact as ag
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


@pytest.mark.parametrize("text", ["relu", "agile-relu"])
def test_a_hook_sees_what_it_would_in_any_chain(text: str):
    layers = [activation(text, 3), nn.MaxPool2d(2)]
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
