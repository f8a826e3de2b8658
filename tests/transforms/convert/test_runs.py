"""How often convert runs the model, and that it leaves nothing behind where it stops."""

from __future__ import annotations

import copy
import functools
import importlib
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag
from agileact.transforms.trace.recording import tensors
from tests.transforms.convert.test_enumeration import Behind, Children
from tests.transforms.converting import Attribute, Block, Functional, OwnGELU, SqueezeExcite, Swish

_SHARED = nn.ReLU()


class _Wrapper(nn.Module):
    """A user's wrapper around a network."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any) -> Any:
        return self.inner(*args)


class _Chunk(nn.Module):
    """Its activation has other bits than ours on a part of a chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.mish = nn.Linear(3, 64), nn.Mish()

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.layer(x).chunk(2, -1)
        return self.mish(x) * gate  # type: ignore[no-any-return]


class _Dropping(nn.Module):
    """Asks for its mode, for dropout: a run in training mode shows whether more than that depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(F.relu(self.layer(x)), 0.5, self.training)


def _hundred() -> nn.Module:
    return nn.Sequential(*(each for _ in range(50) for each in (nn.Conv2d(3, 3, 1), nn.ReLU(), _Block())))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.gelu(self.conv(x))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "modules": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Tanh()), (2, 3), 2),
    "functions": (Functional, (2, 5), 2),
    "attributes": (Attribute, (2, 3), 2),
    "shared at two places": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), Block(), Block()), (2, 3, 5, 5), 2),
    "shared in several slots": (
        lambda: nn.Sequential(nn.Linear(3, 3), _SHARED, nn.Linear(3, 3), _SHARED, nn.Sequential(_SHARED)),
        (2, 3),
        2,
    ),
    "composites": (lambda: nn.Sequential(nn.Linear(3, 4), Swish(), OwnGELU()), (2, 3), 2),
    "a wrapper": (lambda: _Wrapper(_Wrapper(SqueezeExcite())), (2, 3, 4, 4), 2),
    "a transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8), 2),
    "other bits": (_Chunk, (7, 3), 3),
    "children": (lambda: _Wrapper(Children()), (2, 4), 3),
    "a sequence": (lambda: Behind(nn.Linear(3, 4), nn.Tanh()), (2, 3), 3),
    "dropout": (_Dropping, (2, 3), 3),
    "a hundred layers": (_hundred, (2, 3, 4, 4), 2),
    "nothing": (lambda: nn.Linear(3, 4), (2, 3), 2),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("sharing", ["per_use", "shared"])
def test_the_model_runs_at_most_three_times(name: str, sharing: Any, monkeypatch: pytest.MonkeyPatch):
    make, shape, most = NETWORKS[name]
    torch.manual_seed(0)
    model = make()
    runs = []
    kind: Any = type(model)
    forward = kind.forward

    @functools.wraps(forward)
    def counted(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # The recorder tells whether it is the top module by its being the only one without a parent.
        runs.append(self)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(kind, "forward", counted)
    ag.convert(model, example_inputs=torch.randn(shape), sharing=sharing, inplace=True)
    assert sum(one is model for one in runs) <= most


def test_a_hundred_layers_take_seconds():
    model, x = _hundred(), torch.randn(2, 3, 4, 4)
    start = time.process_time()
    _, report = ag.convert(model, example_inputs=x)
    assert len(report.converted) == 100
    assert time.process_time() - start <= 3.0


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fault_in_the_comparison_leaves_the_model_as_it_was(name: str, monkeypatch: pytest.MonkeyPatch):
    make, shape, _ = NETWORKS[name]
    model = make()
    before = copy.deepcopy(model)
    kinds, slots = [type(one) for one in model.modules()], [dict(one._modules) for one in model.modules()]

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("agileact.transforms.convert.verify"), "outcome", fails)
    with pytest.raises(KeyboardInterrupt):
        ag.convert(model, example_inputs=torch.randn(shape), inplace=True)
    assert [type(one) for one in model.modules()] == kinds
    assert [dict(one._modules) for one in model.modules()] == slots
    assert [set(one.__dict__) for one in model.modules()] == [set(one.__dict__) for one in before.modules()]


class _TwoNames(nn.Module):
    """One module under two names that runs once, and one that runs by both."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice = nn.ReLU(), nn.Tanh()
        self.net = nn.Sequential(nn.Linear(3, 3), self.once, nn.Linear(3, 3), self.twice)

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(self.net(x))  # type: ignore[no-any-return]


def test_two_names_stay_one_object_where_it_runs_once():
    model, x = _TwoNames(), torch.randn(2, 3)
    agile, report = ag.convert(model, example_inputs=x)
    assert torch.equal(agile(x), model(x))
    assert agile.once is agile.net[1]  # type: ignore[index]
    assert isinstance(agile.once, ag.AgileReLU)
    assert agile.twice is not agile.net[3]  # type: ignore[index]
    assert [site.status for site in report.sites] == ["converted"] * 3
    plain = ag.revert(agile)
    assert plain.once is plain.net[1]  # type: ignore[index]


def test_a_list_and_an_attribute_hold_one_module():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.GELU()
            self.layers = nn.ModuleList([nn.Linear(3, 4), self.act])
            self.also = self.act

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    agile, report = ag.convert(Net(), example_inputs=torch.randn(2, 3))
    assert len(report.converted) == len(report.sites) == 1
    assert agile.act is agile.also is agile.layers[1]  # type: ignore[index]


class _Auxiliary(nn.Module):
    """A head that training alone has, with activations as a module and as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out, self.aux, self.tanh = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 5), nn.Tanh()
        self.drop = nn.Dropout(0.5)

    def note(self, x: Tensor) -> None: ...

    def forward(self, x: Tensor) -> Any:
        self.note(x)
        h = F.relu(self.fc(x))
        y = self.out(self.drop(h))
        if self.training:
            return y, F.silu(self.aux(self.tanh(h)))
        return y


class _Momentum(_Auxiliary):
    """Training moves a parameter on without an optimizer, and needs what the example has not."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.mean, self.fails, self.steps = nn.Parameter(torch.zeros(4), requires_grad=False), fails, 0

    def note(self, x: Tensor) -> None:
        if self.training:
            self.steps, self.last = self.steps + 1, x
            with torch.no_grad():
                self.mean.lerp_(self.fc(x).mean(0), 0.5)
            assert not self.fails, "training needs a target"


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_in_training_leaves_no_trace(fails: bool):
    model = _Momentum(fails)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _, report = ag.convert(model, example_inputs=torch.randn(4, 3), inplace=True)
    assert len(report.converted) == (1 if fails else 3)
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert model.steps == 0
    assert not hasattr(model, "last")


def test_what_runs_in_training_alone_is_converted_too():
    model, x = _Auxiliary(), torch.randn(4, 3)
    agile, report = ag.convert(model, example_inputs=x)
    assert {site.name: site.reason for site in report.sites} == {
        "relu": "",
        "tanh": "it runs in training mode alone",
        "silu": "it runs in training mode alone",
    }
    assert [(site.channels, site.dim) for site in report.converted] == [(4, -1), (4, -1), (5, -1)]
    for training in (False, True):
        made = []
        for one in (model, agile):
            torch.manual_seed(0)
            made.append(list(tensors(one.train(training)(x))))
        assert len(made[0]) == 1 + training
        assert all(torch.equal(*pair) for pair in zip(*made, strict=True))
    assert type(ag.revert(agile)) is _Auxiliary


def test_a_functional_loop_runs_as_often_as_before():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(5))

        def forward(self, x: Tensor) -> Tensor:
            return functools.reduce(lambda y, layer: F.relu(layer(y)), self.layers, x)

    model, x = Net(), torch.randn(2, 3)
    agile, report = ag.convert(model, example_inputs=x)
    assert torch.equal(agile(x), model(x))
    assert len(report.sites) == 1
