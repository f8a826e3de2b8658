"""The activations of a user's own network, modules and functions, exchanged for those of an arm."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from agileact import ArgumentError
from agileact.baselines import ParametricActivation
from agileact.nn import Agile
from agileact.study import models
from agileact.study.spec.activation_names import PlainActivation
from agileact.study.spec.arms import arm
from agileact.study.spec.trial import ArmSpec, ModelSpec, freeze
from agileact.study.training.loop import evaluate
from tests.study import networks_of_a_user

HERE = networks_of_a_user.__name__
IMAGE = {"shape": (1, 8, 8), "classes": 4}


def build(name, activation="agile-relu", seed=0, shape=(8,), classes=3, **options):
    spec = ModelSpec("custom", freeze({"target": f"{HERE}:{name}", **options}))
    chosen = activation if isinstance(activation, dict) else {"*": activation}
    return models.build(spec, ArmSpec(freeze(chosen)), input_shape=shape, classes=classes, seed=seed)


def original(name, shape=(8,), classes=3, seed=0):
    spec = ModelSpec("custom", freeze({"target": f"{HERE}:{name}"}))
    return models.build(spec, arm("original").spec, input_shape=shape, classes=classes, seed=seed)


def samples(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_activations_are_exchanged_and_weights_come_from_the_seed():
    state = torch.get_rng_state()
    agile, plain, other = build("dense"), build("dense", "relu"), build("dense", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [(m.num_parameters, m.dim) for m in agile.modules() if isinstance(m, Agile)] == [(6, -1), (5, 1)]
    assert torch.equal(agile.get_parameter("0.weight"), plain.get_parameter("0.weight"))
    assert not torch.equal(agile.get_parameter("0.weight"), other.get_parameter("0.weight"))
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(agile.eval()(x), plain.eval()(x))


def test_the_original_arm_leaves_the_network_alone():
    spec = ModelSpec("custom", freeze({"target": f"{HERE}:dense"}))
    model = models.build(spec, arm("original").spec, input_shape=(8,), classes=3, seed=0)
    assert [type(m) for m in model.children()][1:5:3] == [nn.ReLU, nn.Tanh]


def test_the_channel_axis_is_that_of_the_layer_in_front():
    model = build("Mixed", {"first": "relu", "first*": "agile-relu", "second*": "swish"}, shape=(1, 8, 8), classes=4)
    first, second = model.get_submodule("first"), model.get_submodule("second")
    assert (first.num_parameters, first.dim) == (4, 1)
    assert (second.num_parameters, second.dim) == (7, -1)
    assert isinstance(model.get_submodule("last"), nn.Sigmoid)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 4)


def test_what_cannot_be_exchanged_is_refused():
    with pytest.raises(
        ArgumentError, match=r"channels of the activation 'softplus', which is not known \(where the channels of"
    ):
        build("NoChannels", **IMAGE)
    some = build("NoChannels", {"elu": "prelu", "softplus": "tanh"}, **IMAGE)  # nothing to learn, no channels to know
    assert (some.get_submodule("elu").num_parameters, some.get_submodule("elu").dim) == (3, 1)
    for name in ("agile-relu", "relu"):
        with pytest.raises(ArgumentError, match=r"cannot be exchanged: relu \(relu in outside, .* outside the methods"):
            build("Outside", name)
    with pytest.raises(
        ArgumentError, match=r"the arm names conv, but the activations of .* are called activation, act"
    ):
        build("Shared", {"conv": "relu"})


def test_functions_and_methods_are_exchanged_and_gates_are_not():
    kinds = {"agile-relu": Agile, "prelu": ParametricActivation, "gelu": PlainActivation}
    for name, kind in kinds.items():
        model = build("Functional", name, **IMAGE)
        found: dict[str, Any] = {key: module for key, module in model.named_modules() if isinstance(module, kind)}
        assert [*found] == ["relu", "relu_2", "tanh"]
        if name != "gelu":
            assert [(one.num_parameters, one.dim) for one in found.values()] == [(3, 1), (7, -1), (7, -1)]
    x = samples(5, 1, 8, 8)
    with torch.no_grad():
        h = F.gelu(F.gelu(model.dense(F.gelu(model.conv(x)).flatten(1))))
        assert torch.equal(model(x), model.output(h * torch.sigmoid(h.mean(1, keepdim=True))))
        part = build("Functional", {"tanh": "agile-tanh"}, **IMAGE)
        assert torch.equal(part(x), original("Functional", **IMAGE)(x))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))


def test_a_module_used_twice_becomes_one_for_each_place():
    agile = build("Shared")
    assert [name for name, module in agile.named_modules() if isinstance(module, Agile)] == [
        "activation",
        "activation_2",
    ]
    x = samples(4, 8)
    assert torch.equal(agile(x), original("Shared")(x))
    assert torch.equal(build("Shared", "relu")(x), original("Shared")(x))


def test_an_activation_that_learns_its_slope_is_exchanged_too_or_left():
    x = samples(4, 8)
    model = build("Learned", "relu")
    assert torch.equal(model(x), model.b(F.relu(model.a(x))))
    assert isinstance(original("Learned").slope, nn.PReLU)


@pytest.mark.parametrize("name", ["agile-gelu", "prelu", "tanh"])
def test_a_transformer_of_pytorch_computes_what_was_put_in_in_evaluation_too(name):
    model = build("encoder", name).eval()
    layer = model[2]
    with torch.inference_mode():  # where PyTorch takes its fused path
        x = model[1](model[0](samples(4, 8)))
        x = layer.norm1(x + layer.self_attn(x, x, x, need_weights=False)[0])
        f = {"agile-gelu": F.gelu, "prelu": lambda x: F.leaky_relu(x, 0.25), "tanh": torch.tanh}[name]
        expected = layer.norm2(x + layer.linear2(f(layer.linear1(x))))
        torch.testing.assert_close(model(samples(4, 8)), model[4](model[3](expected)))


def test_a_model_of_transformers():
    pytest.importorskip("transformers", reason='transformers is not installed: pip install "agileact[transformers]"')
    x = samples(3, 1, 8, 8)
    plain = original("VisionTransformer", **IMAGE).eval()
    agile = build("VisionTransformer", "agile-gelu", **IMAGE).eval()
    found = [module for module in agile.modules() if isinstance(module, Agile)]
    assert [(one.num_parameters, one.dim) for one in found] == [(12, -1), (12, -1)]
    assert torch.equal(agile(x), plain(x))
    swish = build("VisionTransformer", "swish", **IMAGE)
    assert sum(isinstance(module, ParametricActivation) for module in swish.modules()) == 2
    swish(x).sum().backward()
    assert all(
        p.grad is not None for m in swish.modules() if isinstance(m, ParametricActivation) for p in m.parameters()
    )


def test_another_function_in_the_code_is_another_network():
    one, other = (models.model_fingerprint(f"{HERE}:{name}") for name in ("Functional", "FunctionalOther"))
    assert one != other


MODULE = """
import torch
from torch import nn
import helpers_of_{name}

class Base(nn.Module):
    def forward(self, x):
        return helpers_of_{name}.last(torch.relu(self.dense(x)))

class Net(Base):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(8, 3)

def build():
    return Net()
"""
HELPERS = "def last(x):\n    return 2 * x\n"


def test_code_that_the_network_uses_from_elsewhere_is_part_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module, helpers = tmp_path / "net_of_one.py", tmp_path / "helpers_of_one.py"

    def found(code: str, other: str) -> str:
        module.write_text(code.format(name="one"))
        helpers.write_text(other)
        for name in ("net_of_one", "helpers_of_one"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return models.model_fingerprint("net_of_one:build")

    first = found(MODULE, HELPERS)
    assert found(MODULE.replace("def build", "# as it was\n\ndef build"), f"{HELPERS}\n\n# and this") == first
    assert found(MODULE.replace("torch.relu(self", "torch.tanh(self"), HELPERS) != first
    assert found(MODULE, HELPERS.replace("2", "3")) != first
    assert found(MODULE, HELPERS) == first


def test_more_outputs_than_labels_are_fine_but_not_for_a_regression():
    assert build("dense", classes=2)(samples(4, 8)).shape == (4, 3)
    x, y = samples(4, 8), torch.zeros(4, 1)
    with pytest.raises(ArgumentError, match=r"outputs of shape \(4, 3\) for targets \(4, 1\) of a regression"):
        evaluate(build("dense", classes=1), x, y, kind="regression")
    with pytest.raises(ArgumentError, match=r"at least 4 outputs"):
        original("dense", classes=4)


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("functional", {}, "no activations to exchange"),
        ("with_arguments", {}, r"must be had without arguments, but it asks for width"),
        ("raises", {}, r"raised KeyError: 'boom' \(networks_of_a_user\.py, line \d+\)"),
        ("no_module", {}, "returned a int, not a torch.nn.Module"),
        ("NUMBER", {}, "has no function 'NUMBER'"),
        ("dens", {}, "has no function 'dens'; did you mean 'dense'"),
        ("dense", {"fingerprint": "0" * 16}, "is not the one that this study was planned with"),
        ("dense", {"classes": 4}, r"at least 4 outputs for a sample.* two samples gave \(2, 3\)"),
        ("dense", {"shape": (9,)}, r"does not take samples of shape \(9,\)"),
    ],
)
def test_models_that_do_not_fit(name, options, part):
    with pytest.raises(ArgumentError, match=part):
        build(name, **options)


def test_a_hint_lists_what_the_module_defines_and_not_what_it_imports():
    with pytest.raises(ArgumentError) as caught:
        models.model_fingerprint(f"{HERE}:zzzz")
    known = str(caught.value).partition("known: ")[2].split(", ")
    assert {"dense", "Mixed", "make_data"} <= {*known}
    assert not {"Tensor", "nn", "torch"} & {*known}


def test_names_that_are_none():
    with pytest.raises(ArgumentError, match="there is no module 'no_such_module'"):
        models.model_fingerprint("no_such_module:f")
    with pytest.raises(ArgumentError, match=r"must be named as package\.module:function, not 'dense'"):
        models.model_fingerprint("dense")
    assert models.model_fingerprint(f"{HERE}:dense") == models.model_fingerprint(f"{HERE}:dense")
    assert models.model_fingerprint(f"{HERE}:dense") != models.model_fingerprint(f"{HERE}:Shared")
