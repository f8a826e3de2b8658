"""Modules whose number of parameters is left open behave as the lazy modules of torch do."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parameter import Parameter, UninitializedParameter, is_lazy

import agileact as ag

MAKERS = [lambda **options: ag.AgileELU(**options), lambda **options: ag.CombinedAgile("tanh", terms=3, **options)]
KINDS = ["agile", "combined"]


@pytest.fixture(params=MAKERS, ids=KINDS)
def make(request: pytest.FixtureRequest) -> Any:
    return request.param


def _assert_ordinary(module: Any, size: int) -> None:
    assert module.num_parameters == size
    assert type(module.scale) is Parameter
    assert not module.has_uninitialized_params()
    assert not module._forward_pre_hooks
    assert not hasattr(module, "_initialize_hook")
    assert not hasattr(module, "_load_hook")


def test_first_forward_makes_the_parameters(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = make()
    assert is_lazy(module.scale)
    assert module.num_parameters is None
    assert repr(module).endswith("(None)") or "None" in repr(module)
    kind = type(module)
    x = torch.randn(4, 3, 5)
    out = module(x)
    _assert_ordinary(module, 3)
    assert type(module) is kind
    assert torch.equal(out, module(x))
    assert torch.equal(out, make(num_parameters=3)(x))
    with pytest.raises(ag.ArgumentError, match="4 channels"):
        module(torch.randn(2, 4))


@pytest.mark.parametrize(
    ("options", "shape", "size"),
    [
        ({"dim": -1}, (4, 3, 5), 5),
        ({"granularity": "element"}, (4, 3, 5), 15),
        ({"granularity": "element"}, (7,), 7),
        ({}, (7,), 7),
    ],
)
def test_size_follows_granularity_and_axis(make, options, shape, size):
    module = make(**options)
    module(torch.zeros(shape))
    _assert_ordinary(module, size)


def test_a_layer_is_never_lazy(make):
    assert make(granularity="layer").num_parameters == 1


def test_dtype_and_device_given_before_stay(make):
    module = make(dtype=torch.float64)
    assert module.scale.dtype == torch.float64
    module = module.to(torch.bfloat16)
    module(torch.zeros(2, 3))
    assert module.scale.dtype == module.location.dtype == torch.bfloat16


def test_a_first_forward_in_inference_mode_leaves_trainable_parameters(make):
    module = make()
    with torch.inference_mode():
        module(torch.zeros(2, 3))
    _assert_ordinary(module, 3)
    module(torch.randn(2, 3)).sum().backward()
    assert module.scale.grad is not None


def test_no_grad_and_eval_do_as_well(make):
    module = make().eval()
    with torch.no_grad():
        module(torch.zeros(2, 3))
    assert module.scale.requires_grad
    assert module.scale.is_leaf


def test_state_of_an_initialised_module_loads(make):
    source, target = make(num_parameters=3), make()
    with torch.no_grad():
        source.scale.fill_(2.5)
    target.load_state_dict(source.state_dict())
    assert target.num_parameters == 3
    x = torch.randn(4, 3)
    assert torch.equal(target(x), source(x))
    _assert_ordinary(target, 3)


def test_uninitialised_state_saves_and_loads(make):
    source, target = make(), make()
    state = source.state_dict()
    assert isinstance(state["scale"], UninitializedParameter)
    target.load_state_dict(state)
    assert target.has_uninitialized_params()
    with pytest.raises(RuntimeError, match="uninitialized"):
        make(num_parameters=3).load_state_dict(state)


def test_an_optimizer_refuses_it(make):
    with pytest.raises(ag.ArgumentError, match="run one batch through it first"):
        ag.param_groups(nn.Sequential(make()), lr=0.1)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_before_and_after(make, duplicate):
    module = make(dtype=torch.float64)
    other = duplicate(module)
    assert is_lazy(other.scale)
    assert other.scale.dtype == torch.float64
    other(torch.zeros(2, 3))
    _assert_ordinary(other, 3)
    assert is_lazy(module.scale)
    _assert_ordinary(duplicate(other), 3)


def test_whole_model_saved_before_it_is_initialised(make):
    buffer = io.BytesIO()
    torch.save(nn.Sequential(make()), buffer)
    buffer.seek(0)
    model = torch.load(buffer, weights_only=False)
    model(torch.zeros(2, 3))
    _assert_ordinary(model[0], 3)


def test_in_a_model_between_other_lazy_layers(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.LazyConv2d(6, 3), make(), nn.Flatten(), nn.LazyLinear(4), make())
    model(torch.zeros(2, 3, 5, 5))
    assert model[1].num_parameters == 6
    assert model[4].num_parameters == 4
    ag.param_groups(model, lr=0.1)


def test_reset_before_there_are_parameters_does_nothing(make):
    module = make()
    module.reset_parameters()
    assert module.has_uninitialized_params()


def test_compiled_before_the_first_forward(make):
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(3, 5), make())
    x = torch.randn(2, 3)
    out = torch.compile(model, backend="eager", fullgraph=True)(x)
    _assert_ordinary(model[1], 5)
    torch.testing.assert_close(out, model(x))


def test_data_parallel_replication_needs_parameters(make):
    module = make()
    with pytest.raises(RuntimeError, match="uninitialized"):
        module._replicate_for_data_parallel()
    module(torch.zeros(2, 3))
    assert module._replicate_for_data_parallel() is not None
