"""Learned activations as they are kept in a result."""

from __future__ import annotations

import torch
from torch import nn

import agileact as ag
from agileact import baselines
from agileact.study.training.shapes import sampled, shapes


def test_rows_are_the_formula():
    module = ag.AgileTanh(3)
    with torch.no_grad():
        module.scale.copy_(torch.tensor([0.5, -1.0, 2.0]))
        module.location.copy_(torch.tensor([0.0, 1.0, -0.25]))
    model = nn.Sequential(nn.Linear(2, 3), module, nn.Linear(3, 1))
    start = sampled(nn.Sequential(nn.Linear(2, 3), ag.AgileTanh(3)))
    (shape,) = shapes(model, start).values()
    x = torch.tensor(shape.x, dtype=torch.float64)
    for row, a, b in zip(shape.after, shape.scale, shape.location, strict=True):
        expected = a * torch.tanh(x - b)
        torch.testing.assert_close(torch.tensor(row, dtype=torch.float64), expected, rtol=1e-3, atol=1e-5)
    assert (shape.scale, shape.location) == ([0.5, -1.0, 2.0], [0.0, 1.0, -0.25])
    assert len(shape.before) == 1, "all channels are alike at the start"


def test_every_axis_and_every_kind():
    model = nn.ModuleDict(
        {
            "last": ag.Agile("relu", 4, dim=-1),
            "third": ag.Agile("relu", 4, dim=2),
            "layer": ag.Agile("relu", 1, granularity="layer"),
            "combined": ag.CombinedAgile("relu", 4, terms=2),
            "prelu": baselines.build("prelu", 4),
            "plain": nn.ReLU(),
        }
    )
    with torch.no_grad():
        for module in model.values():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.arange(parameter.numel()))
    found = sampled(model)
    assert {name: len(rows) for name, rows in found.items()} == {
        "last": 4,
        "third": 4,
        "layer": 1,
        "combined": 4,
        "prelu": 4,
    }


def test_a_wide_layer_keeps_an_even_choice():
    module = ag.AgileReLU(5000)
    with torch.no_grad():
        module.scale.copy_(torch.arange(5000.0))
    (shape,) = shapes(nn.Sequential(module), {"0": [[0.0]]}).values()
    assert shape.scale == []
    last = [row[-1] for row in shape.after]
    assert len(last) == 32
    assert last[0] == 0.0
    assert last[-1] == float(f"{4999 * 6:.4g}")
