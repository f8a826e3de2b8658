"""A trial's network that convolves and pools at once: the numbers of the network as it is built."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from agileact import ops
from agileact.nn import Agile
from agileact.ops.convolution import conv_max_pool2d
from agileact.study.data import dataset as data_room
from agileact.study.models.chain import Chain
from agileact.study.spec.activation_names import PlainActivation
from agileact.study.spec.arms import arm
from agileact.study.spec.trial import Budget, DataSpec, ModelSpec, TaskSpec, TrialSpec, freeze
from agileact.study.training import pooling
from agileact.study.training.loop import Trial
from agileact.study.training.pooling import PoolingChain, pooled_at_once

pytestmark = pytest.mark.skipif(not ops.CPU.loaded, reason="needs the compiled kernels")

ARMS = ("relu", "agile-relu", "sigmoid", "agile-sigmoid", "agile-gelu", "prelu", "agile-relu+batchnorm")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of filters of the convolutions that were pooled at once."""
    seen: list[int] = []
    operator = conv_max_pool2d

    def counted(x, weight, bias, padding):
        seen.append(len(weight))
        return operator(x, weight, bias, padding)

    monkeypatch.setattr(pooling, "conv_max_pool2d", counted)
    return seen


def trial(name: str) -> TrialSpec:
    model = ModelSpec("cnn", freeze({"filters": (16, 8, 4), "nodes": (5,)}))
    task = TaskSpec(DataSpec("mnist5k-split"), model, Budget(6, batch_size=20, evaluate_every=3))
    return TrialSpec(task, arm(name, lr=0.01).spec, 1)


@pytest.mark.parametrize("name", ARMS)
def test_a_trial_learns_the_same(name: str, calls: list[int], monkeypatch: pytest.MonkeyPatch):
    data = data_room.load(trial(name).task.data)
    ours = Trial(trial(name), data, None).run()
    # What rises and falls cannot be evaluated on the largest number alone.
    assert set(calls) == (set() if "gelu" in name or "prelu" in name or "batch" in name else {16, 8, 4})
    monkeypatch.setattr("agileact.study.training.loop.pooled_at_once", lambda model: model)
    theirs = Trial(trial(name), data, None).run()
    assert ours.curve.train_loss == pytest.approx(theirs.curve.train_loss, rel=2e-4)
    assert ours.curve.test_loss == pytest.approx(theirs.curve.test_loss, rel=2e-4)
    assert (ours.parameters, ours.saved_bytes) == (theirs.parameters, theirs.saved_bytes)
    assert ours.layers.keys() == theirs.layers.keys()
    assert ours.shapes.keys() == theirs.shapes.keys()


def test_an_agile_network_begins_as_its_plain_twin_to_the_bit():
    data = data_room.load(trial("relu").task.data)
    for base in ("relu", "sigmoid"):
        plain, agile = (Trial(trial(name), data, None).model(data.test_x[:50]) for name in (base, f"agile-{base}"))
        assert torch.equal(plain, agile)


def chain(activation: nn.Module, pool: nn.Module | None = None, **options: object) -> Chain:
    torch.manual_seed(0)
    convolution = nn.Conv2d(8, 4, 3, **options)  # type: ignore[arg-type]
    layers = OrderedDict(convolution=convolution, activation=activation, pooling=pool or nn.MaxPool2d(2))
    return Chain(layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def agree(model: Chain, *, wanted: int, calls: list[int]) -> None:
    x = torch.randn(3, 8, 12, 12, generator=torch.Generator().manual_seed(3)).requires_grad_()
    calls.clear()
    quick = pooled_at_once(copy.deepcopy(model))
    assert isinstance(quick, PoolingChain)
    y, expected = quick(x), model(x)
    assert len(calls) == wanted
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    grads = [
        torch.autograd.grad(out.square().sum(), [x, *one.parameters()]) for out, one in ((y, quick), (expected, model))
    ]
    for own, other in zip(*grads, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


def test_a_scale_that_turned_negative_or_zero_takes_three_steps(calls: list[int]):
    model = chain(Agile("relu", 4))
    agree(model, wanted=1, calls=calls)
    for value in (-0.5, 0.0):
        with torch.no_grad():
            model.get_parameter("activation.scale")[2] = value
        agree(model, wanted=0, calls=calls)


@pytest.mark.parametrize(
    "model",
    [
        chain(PlainActivation("relu"), stride=2),
        chain(PlainActivation("relu"), padding="same"),
        chain(PlainActivation("relu"), padding=1, padding_mode="reflect"),
        chain(PlainActivation("relu"), groups=2),
        chain(PlainActivation("relu"), nn.MaxPool2d(3)),
        chain(PlainActivation("relu"), nn.MaxPool2d(2, 1)),
        chain(PlainActivation("relu"), nn.MaxPool2d(2, ceil_mode=True)),
        chain(PlainActivation("relu"), nn.MaxPool2d(2, padding=1)),
        chain(PlainActivation("silu")),
        chain(Agile("sigmoid", 4, gain=True)),
        chain(Agile("relu", (4, 10, 10), granularity="element")),
        chain(Agile("relu", 10, dim=2)),
    ],
    ids=lambda model: ", ".join(map(str, list(model)[:3])),
)
def test_anything_else_takes_its_steps(model: Chain, calls: list[int]):
    agree(model, wanted=0, calls=calls)


def test_a_hook_is_called(calls: list[int]):
    model = pooled_at_once(chain(PlainActivation("relu")))
    seen = []
    model.get_submodule("convolution").register_forward_hook(lambda *_: seen.append(1))
    model(torch.zeros(1, 8, 6, 6))
    assert (len(seen), calls) == (1, [])
