"""The networks beyond the paper's: sizes, weights from the seed alone, roles that reach every activation."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from torch import nn

from agileact import ArgumentError
from agileact.nn import Agile
from agileact.nn.rows import directions
from agileact.study import models
from agileact.study.spec.trial import ArmSpec, ModelSpec, freeze
from agileact.study.training.setup import build_network

SHAPES = {"resnet": (3, 32, 32), "residual-plain": (3, 16, 16), "char-transformer": (12,), "deep-mlp": (8,)}
SMALL: dict[str, dict[str, Any]] = {
    "resnet": {"widths": (4, 8)},
    "residual-plain": {"widths": (4, 8), "blocks": 1},
    "char-transformer": {"width": 8, "depth": 2},
    "deep-mlp": {"depth": 3, "width": 5},
}


def build(name, activation="relu", seed=0, shape=None, **options):
    arm = ArmSpec(freeze({"*": activation}))
    spec = ModelSpec(name, freeze({**SMALL[name], **options}))
    return models.build(spec, arm, input_shape=shape or SHAPES[name], classes=7, seed=seed)


def inputs(name):
    generator = torch.Generator().manual_seed(0)
    if name == "char-transformer":
        return torch.randint(0, 7, (2, 12), generator=generator)
    return torch.rand(2, *SHAPES[name], generator=generator)


@pytest.mark.parametrize("name", SHAPES)
def test_all_arms_start_from_the_same_weights_and_the_same_outputs(name):
    state = torch.get_rng_state()
    plain, agile, other = build(name), build(name, "agile-relu"), build(name, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in plain.state_dict().items():
        assert torch.equal(agile.state_dict()[key], value)
    x = inputs(name)
    assert torch.equal(plain(x), agile(x))
    assert not torch.equal(plain(x), other(x))


CHILDREN = {"resnet": ["conv1", "norm1", "activation1"], "residual-plain": ["stem"]}


@pytest.mark.parametrize("name", CHILDREN)
def test_the_weights_of_a_residual_network_are_drawn_by_the_names_of_its_layers(name):
    model = build(name, seed=3, blocks=2)
    blocks = [f"stage{stage}_block{index}" for stage in (1, 2) for index in (1, 2)]
    assert [one for one, _ in model.named_children()] == [*CHILDREN[name], *blocks, "pooling", "flatten", "output"]
    for where, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            seed = int.from_bytes(hashlib.sha256(f"3/weights/{where}".encode()).digest()[:8], "big") >> 1
            drawn = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(seed))
            bound = layer.weight[0].numel() ** -0.5
            torch.testing.assert_close(layer.weight, (2 * drawn - 1) * bound)


@pytest.mark.parametrize(
    ("name", "count", "dim"),
    [("resnet", 5, 1), ("residual-plain", 5, 1), ("char-transformer", 2, -1), ("deep-mlp", 3, 1)],
)
def test_every_activation_is_the_arms(name, count, dim):
    agile = [m for m in build(name, "agile-gelu").modules() if isinstance(m, Agile)]
    assert [m.dim for m in agile] == [dim] * count
    assert not any(isinstance(m, (nn.ReLU, nn.GELU)) for m in build(name, "agile-gelu").modules())


def test_outputs_have_the_shape_of_the_targets():
    for name in ("resnet", "residual-plain"):
        assert build(name)(inputs(name)).shape == (2, 7)
    assert build("char-transformer")(inputs("char-transformer")).shape == (2, 12, 7)
    deep = build("deep-mlp", depth=6)
    assert sum(isinstance(m, nn.Linear) for m in deep.modules()) == 7


def test_the_residual_network_normalises_only_where_the_arm_does():
    def count(kind, normalisation):
        spec = ModelSpec("residual-plain", freeze({"widths": (4, 8), "blocks": 3}))
        arm = ArmSpec(freeze({"conv": "gelu"}), normalisation=normalisation)
        model = models.build(spec, arm, input_shape=(1, 8, 8), classes=7, seed=0)
        assert len([m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]) == 13
        return sum(isinstance(m, kind) for m in model.modules())

    norms = (nn.BatchNorm2d, nn.GroupNorm)
    assert [count(norms, "none"), count(nn.BatchNorm2d, "batch"), count(nn.GroupNorm, "layer")] == [0, 13, 13]


def test_the_residual_network_adds_a_branch_to_its_input():
    model, x = build("residual-plain").eval(), inputs("residual-plain")
    h = model.stem(x)
    block = model.stage1_block1
    for conv in (block.unit1.conv, block.unit2.conv):
        h = torch.relu(nn.functional.conv2d(h, conv.weight, conv.bias, padding=1))
    torch.testing.assert_close(block(model.stem(x)), model.stem(x) + h)


def test_every_3x3_convolution_of_the_residual_network_can_be_standardised():
    spec = ArmSpec(freeze({"conv": "agile-relu"}), weights="standardized")
    x = inputs("residual-plain")
    arguments: dict[str, Any] = {"input_shape": x.shape[1:], "classes": 7, "seed": 0, "sample": lambda: x}
    model = build_network(ModelSpec("residual-plain", freeze(SMALL["residual-plain"])), spec, **arguments)
    three = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert list(directions(model)) == three


def test_the_transformer_does_not_look_ahead():
    model, x = build("char-transformer", "agile-gelu").eval(), inputs("char-transformer")
    changed = x.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 7
    torch.testing.assert_close(model(changed)[:, :6], model(x)[:, :6])
    assert not torch.allclose(model(changed)[:, 6:], model(x)[:, 6:])


def test_resnet_20_has_the_papers_size():
    # 0.27 million parameters (He et al., Table 6), and the 1x1 convolutions of option B with their normalisations.
    arm = ArmSpec(freeze({"conv": "relu"}))
    model = models.build(ModelSpec("resnet", (("blocks", 3),)), arm, input_shape=(3, 32, 32), classes=10, seed=0)
    shortcuts = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert sum(p.numel() for p in model.parameters()) == 269_722 + shortcuts


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("resnet", {"widths": ()}, "at least one stage"),
        ("resnet", {"blocks": 0}, "blocks must be positive"),
        ("resnet", {"shape": (8,)}, "images of shape"),
        ("residual-plain", {"widths": ()}, "at least one stage"),
        ("residual-plain", {"shape": (8,)}, "images of shape"),
        ("resnet", {"block": 2}, "unknown option of the model 'resnet': 'block'; did you mean 'blocks'"),
        ("char-transformer", {"heads": 3}, "must divide width 8, not 3"),
        ("char-transformer", {"shape": (3, 4)}, "pieces of text"),
        ("deep-mlp", {"depth": 0}, "positive whole numbers"),
    ],
)
def test_what_does_not_fit_is_refused(name, options, part):
    with pytest.raises(ArgumentError, match=part):
        build(name, **options)
