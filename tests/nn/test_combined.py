"""CombinedAgile: the start, what tells the terms apart, one term, the order of the parameters."""

from __future__ import annotations

import pytest
import torch

import agileact as ag
from tests.cases import CASES, IDS, Case


@pytest.mark.parametrize("terms", [1, 2, 3, 5])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_starts_as_f(case: Case, terms: int):
    for dtype in (torch.float32, torch.bfloat16):
        x = (4 * torch.randn(9, 3, 4)).to(dtype)
        assert torch.equal(ag.CombinedAgile(case.base, 3, terms, **case.options)(x), case.native(x))


@pytest.mark.parametrize("granularity", ["channel", "layer", "element"])
def test_one_term_is_agile(granularity):
    size = {"channel": 3, "layer": 1, "element": 12}[granularity]
    one = ag.CombinedAgile("silu", size, 1, granularity=granularity)
    plain = ag.Agile("silu", size, granularity=granularity)
    with torch.no_grad():
        one.scale.copy_(torch.linspace(-1, 2, size))
        one.location.copy_(torch.linspace(1, -0.5, size))
    plain.load_state_dict(one.state_dict())
    x = torch.randn(5, 3, 4)
    outs = [module(x) for module in (one, plain)]
    assert torch.equal(*outs)
    gradients = [
        torch.autograd.grad(out.square().sum(), (m.scale, m.location))
        for out, m in zip(outs, (one, plain), strict=True)
    ]
    for first, second in zip(*gradients, strict=True):
        assert torch.equal(first, second)


def test_parameters_are_term_after_term():
    module = ag.CombinedAgile("tanh", 2, terms=3, spread=0.5)
    assert module.scale.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert module.location.tolist() == [0.0, 0.0, 0.5, 0.5, -0.5, -0.5]
    assert module.scale_by_term.shape == module.location_by_term.shape == (3, 2)
    with torch.no_grad():
        module.scale_by_term[1, 0] = 7.0
    assert module.scale[2] == 7.0
    x = torch.randn(4, 2)
    expected = sum(a * torch.tanh(x - b) for a, b in zip(module.scale_by_term, module.location_by_term, strict=True))
    torch.testing.assert_close(module(x), expected)


def test_start_is_distinct_and_alternates():
    module = ag.CombinedAgile("relu", 1, terms=6, spread=2.0)
    assert module.location.tolist() == [0.0, 2.0, -2.0, 4.0, -4.0, 6.0]
    module.location.data.fill_(3.0)
    module.reset_parameters()
    assert module.location.tolist() == [0.0, 2.0, -2.0, 4.0, -4.0, 6.0]


@pytest.mark.parametrize("base", ["relu", "sigmoid", "gelu", "identity"])
def test_the_first_step_tells_the_terms_apart(base):
    torch.manual_seed(0)
    module = ag.CombinedAgile(base, 4, terms=4)
    x, target = torch.randn(200, 4), torch.randn(200, 4)
    optimizer = torch.optim.SGD(ag.param_groups(module, lr=0.1))
    for step in range(2):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(module(x), target).backward()
        assert module.scale.grad is not None
        assert module.location.grad is not None
        gradients = module.scale.grad.view(4, 4)
        moving = module.location.grad.view(4, 4)
        for one in range(4):
            for other in range(one):
                assert not torch.allclose(gradients[one], gradients[other], rtol=1e-3)
        # A term of scale 0 holds its location in the first step and moves it in the second.
        assert bool((moving[1:] == 0).all()) == (step == 0)
        optimizer.step()
    for one in range(1, 4):
        for other in range(1, one):
            assert not torch.allclose(module.scale_by_term[one], module.scale_by_term[other], rtol=1e-3)


def test_fits_what_one_term_cannot():
    torch.manual_seed(0)
    x = torch.linspace(-3, 3, 200).view(-1, 1)
    target = torch.relu(x + 1) - 2 * torch.relu(x) + torch.relu(x - 1)  # a tent
    losses = []
    for terms in (1, 4):
        module = ag.CombinedAgile("relu", 1, terms)
        optimizer = torch.optim.Adam(ag.param_groups(module, lr=0.05))
        for _ in range(600):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(module(x), target)
            loss.backward()
            optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < 1e-3 < 5e-2 < losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": 0}, "terms must be at least 1, not 0"),
        ({"terms": 2.0}, "terms must be an integer, not 2.0 of type float"),
        ({"terms": True}, "terms must be an integer"),
        ({"spread": 0.0}, "spread must be"),
        ({"spread": float("nan")}, "spread must be"),
        ({"spread": float("inf")}, "spread must be"),
        ({"spread": "wide"}, "spread must be a number, not 'wide' of type str"),
        ({"dtype": torch.int32}, "dtype must be a floating-point dtype, not torch.int32"),
        ({"dtype": "float32"}, "dtype must be a floating-point dtype, not 'float32'"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises((ag.ArgumentError, ag.ArgumentTypeError), match=message):
        ag.CombinedAgile("relu", 3, **options)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (ag.CombinedAgile("relu", 64, terms=3), "CombinedAgile('relu', 64, terms=3)"),
        (ag.CombinedAgile("elu", 4, spread=0.5, alpha=2), "CombinedAgile('elu', 4, terms=2, spread=0.5, alpha=2.0)"),
        (ag.CombinedAgile("relu", granularity="layer"), "CombinedAgile('relu', terms=2, granularity='layer')"),
        (ag.CombinedAgile("relu"), "CombinedAgile('relu', None, terms=2)"),
    ],
)
def test_repr(module, text):
    assert repr(module) == text
    assert repr(eval(text, vars(ag).copy())) == text
