"""Random networks: converted without another bit, nothing missed in silence, and back again."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from torch import nn

import agileact as ag
from agileact.transforms.trace.recording import tensors
from tests.transforms.converting import bits
from tests.transforms.random_models import Drawn, networks, set_pairs


def check(drawn: Drawn) -> None:
    model, x = drawn.model, drawn.example
    kinds, names = [type(one) for one in model.modules()], list(model.state_dict())
    agile, report = ag.convert(model, example_inputs=x)
    for training in (False, True):
        one, other = (list(tensors(copy.deepcopy(each).train(training)(x))) for each in (model, agile))
        assert len(one) == len(other) > 0
        for before, after in zip(one, other, strict=True):
            assert torch.equal(bits(before), bits(after)), str(report)
    assert all(site.reason for site in report.skipped)
    for index, part in enumerate(model.parts):
        here = [site for site in report.sites if f"{site.name}.".startswith(f"parts.{index}.")]
        assert here, f"{type(part).__name__} {index} is missed\n{report}"
        if type(part).__name__ in ("Layers", "Functional", "Loop", "Shared", "TwoNames", "Listed", "Formula"):
            assert all(site.status == "converted" for site in here), f"{type(part).__name__} {index}\n{report}"
    made = {id(module) for module in agile.modules() if isinstance(module, ag.AgileModule)}
    assert len(made) == len(report.converted)
    # Every pair is used: with other numbers other results, or the activation has a constant before it.
    set_pairs(agile, drawn.seed)
    agile.eval()(x)
    for module in agile.modules():
        if isinstance(module, ag.AgileModule):
            module.zero_grad()
    sum(y.sum() for y in tensors(agile.train()(x))).backward()  # type: ignore[union-attr]
    for name, module in agile.named_modules():
        if isinstance(module, ag.AgileModule):
            assert module.scale.grad is not None, f"{name} does not run\n{report}"
    plain = ag.revert(agile)
    assert [type(one) for one in plain.modules()] == kinds
    assert list(plain.state_dict()) == names
    assert isinstance(plain, nn.Module)


@given(networks())
@settings(max_examples=40, deadline=None)
def test_random_networks(drawn: Drawn):
    check(drawn)


@pytest.mark.slow
@given(networks())
@settings(max_examples=2000, deadline=None)
def test_many_random_networks(drawn: Drawn):
    check(drawn)
