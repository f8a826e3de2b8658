from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import agileact as ag


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x).square()


class Widening(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().sin()


def oracle(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] * torch.clamp(x - b[:, None], min=0) ** 2).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("granularity", ["channel", "layer", "element"])
def test_starts_as_the_module_bit_for_bit(dtype: torch.dtype, granularity: str):
    x = torch.cat(
        [torch.randn(4, 3, 5), torch.tensor([0.0, -0.0, float("inf"), float("nan"), -1.0]).expand(4, 1, 5)], 1
    )
    x = x.to(dtype)
    size = {"channel": 4, "layer": None, "element": 20}[granularity]
    module = ag.AgileWrapped(nn.Hardswish(), size, granularity=granularity, dtype=dtype)  # type: ignore[arg-type]
    y, expected = module(x), nn.functional.hardswish(x)
    assert y.dtype == dtype
    assert torch.equal(y.nan_to_num(7), expected.nan_to_num(7))
    assert torch.equal(y.signbit() & ~y.isnan(), expected.signbit() & ~y.isnan())


def test_values_and_gradients():
    x = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    module = ag.AgileWrapped(Squared(), 4, dtype=torch.float64)
    with torch.no_grad():
        module.scale.normal_()
        module.location.normal_()
    a, b = (parameter.detach().clone().requires_grad_() for parameter in (module.scale, module.location))
    torch.testing.assert_close(module(x), oracle(x, a, b))
    ours = torch.autograd.grad(module(x).cos().sum(), [x, module.scale, module.location])
    theirs = torch.autograd.grad(oracle(x, a, b).cos().sum(), [x, a, b])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_terms_are_a_sum():
    module = ag.AgileWrapped(torch.sigmoid, 3, terms=2, spread=0.5)
    x = torch.randn(5, 3)
    assert torch.equal(module(x), torch.sigmoid(x))
    with torch.no_grad():
        module.scale[3:] = 2.0
    torch.testing.assert_close(module(x), torch.sigmoid(x) + 2 * torch.sigmoid(x - 0.5))


def test_the_result_has_the_dtype_of_the_module():
    module = ag.AgileWrapped(Widening(), 3, dtype=torch.bfloat16)
    x = torch.randn(5, 3).bfloat16()
    assert torch.equal(module(x), x.float().sin())


def test_lazy_repr_copies_and_state():
    module = ag.AgileWrapped(Squared(), dim=-1)
    assert repr(module) == "AgileWrapped(\n  None, dim=-1\n  (function): Squared()\n)"
    module(torch.randn(2, 5, 6))
    assert module.num_parameters == 6
    assert repr(ag.AgileWrapped(torch.sin, 3, terms=2, spread=2.0)) == "AgileWrapped(sin, 3, terms=2, spread=2.0)"
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert list(other.state_dict()) == ["scale", "location"]
        assert other.base == "Squared"


def test_nothing_is_assumed_of_the_function():
    facts = ag.AgileWrapped(torch.cos, 3).facts
    assert (facts.monotone, facts.positively_homogeneous, facts.odd) == (None, False, False)
    assert facts.value_at_zero == 1.0
    assert ag.AgileReLU(3).facts.positively_homogeneous


def test_parameter_groups_know_it():
    model = nn.Sequential(nn.Linear(2, 3), ag.AgileWrapped(Squared(), 3))
    assert [group["name"] for group in ag.param_groups(model, lr=0.1)] == ["weights", "scale", "location"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"function": 3}, ag.ArgumentTypeError, "module or a function"),
        ({"function": nn.ReLU}, ag.ArgumentTypeError, r"not its class: ReLU\(...\)"),
        ({"terms": 2, "spread": 0.0}, ag.ArgumentError, "terms would stay equal"),
        ({"spread": "wide"}, ag.ArgumentTypeError, "spread must be a number"),
        ({"terms": 0}, ag.ArgumentError, "terms"),
        ({"terms": True}, ag.ArgumentTypeError, "terms"),
        ({"num_parameters": 0}, ag.ArgumentError, "num_parameters"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, error, words: str):
    with pytest.raises(error, match=words):
        ag.AgileWrapped(**{"function": torch.sin, "num_parameters": 3, **arguments})


def test_a_function_that_is_not_elementwise():
    with pytest.raises(ag.ArgumentError, match="keep the shape"):
        ag.AgileWrapped(torch.sum, 3)(torch.randn(2, 3))
    with pytest.raises(ag.ArgumentTypeError, match="must return a tensor: print returned NoneType"):
        ag.AgileWrapped(print, 3)(torch.randn(2, 3))  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentError, match="3 channels"):
        ag.AgileWrapped(torch.sin, 4)(torch.randn(2, 3))
