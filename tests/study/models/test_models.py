from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from agileact import ArgumentError
from agileact.nn import Agile
from agileact.paper.recipe import CONV, FC
from agileact.study import models
from agileact.study.spec.activation_names import activation
from agileact.study.spec.trial import ArmSpec, ModelSpec, freeze


def build(conv="relu", fc="relu", seed=0, shape=(1, 28, 28), **options):
    arm = ArmSpec(freeze({"conv": conv, "fc": fc}))
    return models.build(ModelSpec("cnn", freeze(options)), arm, input_shape=shape, classes=10, seed=seed)


def test_the_papers_network_has_the_papers_sizes():
    model = build("agile-relu", "agile-sigmoid")
    sizes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert sizes == {
        "conv1.weight": (16, 1, 3, 3),
        "conv1.bias": (16,),
        "conv1_activation.scale": (16,),
        "conv1_activation.location": (16,),
        "conv2.weight": (8, 16, 3, 3),
        "conv2.bias": (8,),
        "conv2_activation.scale": (8,),
        "conv2_activation.location": (8,),
        "conv3.weight": (4, 8, 3, 3),
        "conv3.bias": (4,),
        "conv3_activation.scale": (4,),
        "conv3_activation.location": (4,),
        "fc1.weight": (30, 36),
        "fc1.bias": (30,),
        "fc1_activation.scale": (30,),
        "fc1_activation.location": (30,),
        "output.weight": (10, 30),
        "output.bias": (10,),
    }


def test_all_twelve_start_from_the_same_weights_and_a_plain_twin_computes_the_same():
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    reference = build().state_dict()
    outputs = {}
    for conv, fc in itertools.product(CONV, (*FC, "sigmoid")):
        model = build(conv, fc)
        state = model.state_dict()
        for name, weight in reference.items():
            assert torch.equal(state[name], weight), (conv, fc, name)
        outputs[conv, fc] = model(x)
    for (conv, fc), output in outputs.items():
        plain = outputs[conv.removeprefix("agile-"), fc.removeprefix("agile-")]
        assert torch.equal(output, plain), (conv, fc)


def test_building_leaves_the_global_random_stream_alone():
    state = torch.get_rng_state()
    build("agile-relu", "agile-gelu")
    assert torch.equal(torch.get_rng_state(), state)


def test_other_seeds_give_other_weights_and_the_weights_fill_torchs_default_range():
    a, b = build(seed=0), build(seed=1)
    assert not torch.equal(a.fc1.weight, b.fc1.weight)
    bound = 1 / 36**0.5
    assert a.fc1.weight.abs().max() <= bound
    assert a.fc1.weight.abs().max() > 0.9 * bound
    assert abs(a.fc1.weight.mean()) < 0.1 * bound


def test_options_change_the_network():
    model = build(filters=(5,), nodes=(7, 6), kernel=5, pooling=1, shape=(3, 10, 12))
    assert model.conv1.weight.shape == (5, 3, 5, 5)
    assert model.fc1.weight.shape == (7, 5 * 10 * 12)
    assert model.fc2.weight.shape == (6, 7)
    assert model(torch.zeros(2, 3, 10, 12)).shape == (2, 10)


def test_no_filters_and_no_nodes_leave_a_linear_model():
    model = build(filters=(), nodes=())
    assert [type(m) for m in model] == [nn.Flatten, nn.Linear]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"kernel": 4}, "kernel must be an odd positive whole number, not 4"),
        ({"pooling": 0}, "pooling must be a positive"),
        ({"filters": (16, -1)}, "filters must be positive"),
        ({"pooling": 4}, "leaves nothing of a 28x28 image after 3 convolutional layers"),
        ({"conv": "agile-rleu"}, "did you mean 'agile-relu'"),
        ({"conv": "leaky_relu:slope=0.1"}, "slope"),
        ({"conv": "leaky_relu:0.1"}, "not of the form option=value"),
        ({"shape": (28, 28)}, "channels, height, width"),
    ],
)
def test_what_does_not_fit_is_refused(options, part):
    with pytest.raises(ArgumentError, match=part):
        build(**options)


def test_missing_role_names_what_was_given():
    with pytest.raises(ArgumentError, match="role 'conv'; the arm gives: fc"):
        models.build(ModelSpec("cnn"), ArmSpec((("fc", "relu"),)), input_shape=(1, 8, 8), classes=2, seed=0)


def test_unknown_model_suggests_the_nearest():
    with pytest.raises(ArgumentError, match="did you mean 'cnn'"):
        models.build(ModelSpec("cn"), ArmSpec(()), input_shape=(1, 8, 8), classes=2, seed=0)


def test_activation_options_reach_the_activation():
    agile = activation("agile-leaky_relu:negative_slope=0.25", 4)
    plain = activation("leaky_relu:negative_slope=0.25", 4)
    assert isinstance(agile, Agile)
    x = torch.tensor([[-4.0, -4.0, 4.0, 4.0]])
    expected = torch.tensor([[-1.0, -1.0, 4.0, 4.0]])
    assert torch.equal(agile(x), expected)
    assert torch.equal(plain(x), expected)
    assert "negative_slope=0.25" in repr(plain)
    gelu = activation("gelu:approximate=tanh", 4)
    assert torch.equal(gelu(x), nn.functional.gelu(x, approximate="tanh"))
