from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

import agileact as ag
from agileact import bases
from agileact.transforms import restore_site
from agileact.transforms.edit.plain_modules import plain_module
from agileact.transforms.edit.revert import original_module
from tests.cases import CASES, IDS, Case
from tests.transforms.converting import Attribute, Block, Functional


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_plain_module_of_every_base(case: Case):
    module = ag.Agile(case.base, 4, **case.options).eval()
    plain = plain_module(module)
    x = torch.randn(3, 4)
    assert torch.equal(plain(x), bases.get(case.base).function(x, **module.options))
    assert not plain.training
    assert "agileact" not in type(plain).__module__
    assert torch.equal(pickle.loads(pickle.dumps(plain))(x), plain(x))


@pytest.mark.usefixtures("_clean_registry")
def test_the_plain_module_of_a_registered_base_is_a_graph():
    ag.register_base(
        "plain_snake",
        lambda x, frequency: x + torch.sin(frequency * x) ** 2 / frequency,
        options={"frequency": 1.0},
        replace=True,
    )
    plain = plain_module(ag.Agile("plain_snake", 4, frequency=2.0))
    x = torch.randn(3, 4)
    assert torch.equal(plain(x), x + torch.sin(2.0 * x) ** 2 / 2.0)
    assert isinstance(plain, torch.fx.GraphModule)
    ag.register_base("plain_branch", lambda x: x if x.sum() > 0 else x * 1.0, replace=True)
    with pytest.raises(ag.ConversionError, match="tracing it failed"):
        plain_module(ag.Agile("plain_branch", 4))


def test_the_plain_module_of_pooling_and_wrapped():
    plain = plain_module(ag.AgileMaxPool2d(3, 2, base="silu", padding=1))
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(plain(x), nn.functional.max_pool2d(nn.functional.silu(x), 2, padding=1))
    inner = nn.ReLU()
    assert plain_module(ag.AgileWrapped(inner, 3)) is inner
    assert torch.equal(plain_module(ag.AgileWrapped(torch.sin, 3))(x), torch.sin(x))


def test_revert_of_modules_written_by_hand():
    model = nn.Sequential(nn.Linear(3, 4), ag.AgileELU(4, alpha=0.5), ag.CombinedAgile("relu", 4, terms=2))
    seen: list[str] = []
    model[1].register_forward_hook(lambda module, args, output: seen.append(type(module).__name__))
    plain = ag.revert(model, inplace=True)
    assert plain is model
    assert repr(list(model)[1:]) == "[ELU(alpha=0.5), ReLU()]"
    model(torch.randn(2, 3))
    assert seen == ["ELU"]
    assert isinstance(ag.revert(ag.AgileTanh(3)), nn.Tanh)
    assert repr(ag.revert(nn.Linear(2, 3))) == repr(nn.Linear(2, 3))


def test_one_site_at_a_time():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Block(), nn.Flatten(), nn.Linear(16, 5), Functional())
    x = torch.randn(2, 3, 2, 2)
    agile, report = ag.convert(model, example_inputs=x)
    names = [site.name for site in report.converted]
    assert len(names) == 7
    for order in (names, names[::-1]):
        agile, _ = ag.convert(model, example_inputs=x)
        for name in order:
            assert torch.equal(agile(x), model(x))
            restore_site(agile, name)
            assert not isinstance(dict(agile.named_modules()).get(name), ag.AgileModule)
        assert torch.equal(agile(x), model(x))
        assert [type(module) for module in agile.modules()] == [type(module) for module in model.modules()]


@pytest.mark.parametrize("model", [Functional(), Attribute()], ids=["call", "attribute"])
def test_a_residual_takes_the_place(model: nn.Module):
    x = torch.randn(4, 5 if isinstance(model, Functional) else 3)
    agile, report = ag.convert(model, example_inputs=x)
    name = report.converted[0].name
    residual = nn.Threshold(1e6, 0.0)
    restore_site(agile, name, residual)
    assert agile.get_submodule(name) is residual
    assert not torch.equal(agile(x), model(x))
    for site in report.converted[1:]:
        restore_site(agile, site.name)
    assert agile.get_submodule(name) is residual
    assert not any(isinstance(module, ag.AgileModule) for module in agile.modules())


def test_restoring_keeps_a_function_that_was_put_in():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.randn(2, 3)
    agile, _ = ag.convert(model, base="tanh", example_inputs=x)
    assert isinstance(original_module(agile[1]), nn.Tanh)  # type: ignore[index]
    assert isinstance(ag.revert(agile)[1], nn.ReLU)  # type: ignore[index]
    restore_site(agile, "1")
    assert isinstance(agile[1], nn.Tanh)  # type: ignore[index]
    functional, _ = ag.convert(Attribute(), base="tanh", example_inputs=x)
    restore_site(functional, "activation")
    assert isinstance(functional.activation, nn.Tanh)


def test_what_is_no_site():
    model = nn.Sequential(nn.Linear(3, 4), ag.AgileReLU(4))
    with pytest.raises(ag.ArgumentError, match="no module '7'"):
        restore_site(model, "7")
    with pytest.raises(ag.ArgumentError, match="is a Linear, not an agile module"):
        restore_site(model, "0")
    with pytest.raises(ag.ArgumentError, match="the model itself"):
        restore_site(ag.AgileReLU(4), "")
