"""What only training does, other entry points, other examples, and what a model keeps: folding sees them all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag
from tests.transforms.folding import BARS, DOUBLE, assert_close, checked, drawn, run, statuses

X = torch.randn(8, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))


class Auxiliary(nn.Module):
    """A head that only training has, with an activation of its own."""

    def __init__(self, *, scaled: bool = True) -> None:
        super().__init__()
        self.fc, self.act, self.head = nn.Linear(6, 8), ag.AgileTanh(8), nn.Linear(8, 2)
        self.aux_fc, self.aux_act, self.aux_head = nn.Linear(8, 5), ag.AgileGELU(5), nn.Linear(5, 2)
        self.norm = nn.BatchNorm1d(8, affine=False)

    def forward(self, x: Tensor) -> Any:
        h = self.act(self.fc(x))
        y = self.head(h)
        if self.training:
            centred = self.norm(h) * 0
            return y, self.aux_head(self.aux_act(self.aux_fc(h + centred)))
        return y


class SeenInTraining(Auxiliary):
    """An auxiliary loss on the activation itself."""

    def forward(self, x: Tensor) -> Any:
        h = self.act(self.fc(x))
        return (self.head(h), h.square().sum()) if self.training else self.head(h)


class AroundInTraining(Auxiliary):
    """A training in which the layer before the activation has another use."""

    def forward(self, x: Tensor) -> Any:
        z = self.fc(x)
        y = self.head(self.act(z))
        return (y, self.aux_fc(z)) if self.training else y


class Skipping(Auxiliary):
    """Stochastic depth: in training all that follows is reached by another way."""

    def forward(self, x: Tensor) -> Any:
        h = self.act(self.fc(x))
        if self.training:
            h = h * torch.empty(len(h), 1, dtype=h.dtype).bernoulli_(0.8) / 0.8
        return self.head(h)


class Noisy(Auxiliary):
    """Noise on the signal in training, which a scale does not commute with."""

    def forward(self, x: Tensor) -> Any:
        h = self.act(self.fc(x))
        return self.head(h + torch.randn_like(h) if self.training else h)


class OnlyInTraining(Auxiliary):
    """An activation between the two that evaluation does not have, so that one bias has two uses."""

    def forward(self, x: Tensor) -> Any:
        h = self.act(self.fc(x)) if self.training else self.fc(x)
        return self.head(h)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (Auxiliary, ["partly folded", "folded"]),
        (SeenInTraining, ["partly folded"]),
        (AroundInTraining, ["partly folded"]),
        (Skipping, ["folded"]),
        (Noisy, ["partly folded"]),
        (OnlyInTraining, ["refused"]),
    ],
)
def test_what_only_training_does(kind: type[Auxiliary], status: list[str]):
    model = drawn(kind().double())
    _, report = checked(model, X)
    assert [site.status for site in report.sites if "not run" not in site.reason] == status
    assert report.training is not None
    plain, alone = ag.fold(model, X, training=False)
    assert alone.training is None
    assert "evaluation alone" in str(alone)
    assert_close(run(plain, X), run(model, X), BARS[DOUBLE])
    assert alone.sites[0].status == ("refused" if kind is OnlyInTraining else "folded")


def test_a_training_that_does_not_run_is_said():
    class Loss(Auxiliary):
        def forward(self, x: Tensor, target: Any = None) -> Any:
            y = self.head(self.act(self.fc(x)))
            return F.cross_entropy(y, target.long()) if self.training else y

    _, report = ag.fold(drawn(Loss().double()), X)
    assert statuses(report)[0] == "folded"
    assert report.training is None
    assert "in training mode it does not run on the example and was not compared (AttributeError: " in str(report)
    _, report = ag.fold(drawn(Loss().double()), (X, torch.zeros(8)), training=False)
    assert "does not run" not in str(report)


def test_the_reason_names_training():
    _, report = checked(drawn(SeenInTraining().double()), X)
    assert report.sites[0].reason == "scale stays: behind it: it goes into square in training"


class Slotted:
    __slots__ = ("hidden", "logits")

    def __init__(self, logits: Tensor, hidden: Tensor) -> None:
        self.logits, self.hidden = logits, hidden


class Entries(nn.Module):
    """A network whose hidden signal is seen in other ways than by what the example returns."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.fc, self.act, self.head = nn.Linear(6, 8), ag.AgileTanh(8), nn.Linear(8, 2)

    def encode(self, x: Tensor) -> Tensor:
        h: Tensor = self.act(self.fc(x))
        return h

    def forward(self, x: Tensor, return_features: bool = False) -> Any:
        h = self.encode(x)
        if self.how == "kept":
            self.last = h
        if self.how == "kept in a list":
            self.history = [h]
        if self.how == "kept in an object":
            self.state = SimpleNamespace(hidden=h)
        if self.how == "slots":
            return Slotted(self.head(h), h)
        return (self.head(h), h) if return_features else self.head(h)


@pytest.mark.parametrize("how", ["kept", "kept in a list", "kept in an object", "slots"])
def test_outputs_in_slots_and_attributes(how: str):
    model = drawn(Entries(how).double())
    plain: Any
    plain, report = ag.fold(model, X)
    assert report.sites[0].kept == ("scale",)
    made, expected = plain(X), model(X)
    if how == "slots":
        pairs = [(made.hidden, expected.hidden), (made.logits, expected.logits)]
    elif how == "kept":
        assert "the model keeps it in last" in report.sites[0].reason
        pairs = [(plain.last, model.last)]
    elif how == "kept in an object":
        assert "the model keeps it in state.hidden" in report.sites[0].reason
        pairs = [(plain.state.hidden, model.state.hidden)]
    else:
        assert "the model keeps it in history[0]" in report.sites[0].reason
        pairs = [(plain.history[0], model.history[0])]
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "calls",
    [
        [X, ("encode", X)],
        [X, {"x": X, "return_features": True}],
        [("encode", X[:3]), X],
    ],
)
def test_a_list_of_calls_is_right_for_each(calls: list[Any]):
    model = drawn(Entries("plain").double())
    _, alone = ag.fold(model, X)
    assert alone.sites[0].status == "folded"
    plain: Any
    plain, report = ag.fold(model, calls)
    assert report.sites[0].kept == ("scale",)
    assert "the model returns it" in report.sites[0].reason
    torch.testing.assert_close(plain.encode(X), model.encode(X), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(plain(X), model(X), rtol=1e-12, atol=1e-13)
    assert ag.lint(model, calls).sites[0].scale == "adds capacity"


def test_what_a_wrapped_function_keeps_is_its_own():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.tensor(2.0, dtype=DOUBLE)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.factor * x)

    model = drawn(nn.Sequential(nn.Linear(6, 8), ag.AgileWrapped(Scaled(), 8), nn.Linear(8, 2)).double())
    _, report = checked(model, X)
    assert statuses(report) == ["folded"]


def test_another_example_takes_another_path():
    class Paths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act, self.head = nn.Linear(6, 8), ag.AgileTanh(8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.act(self.fc(x))
            y: Tensor = self.head(h if len(x) > 4 else F.softmax(h, -1))
            return y

    model = drawn(Paths().double())
    plain, report = ag.fold(model, [X, X[:2]])
    assert report.sites[0].kept == ("scale",)
    for x in (X, X[:2]):
        torch.testing.assert_close(plain(x), model(x), rtol=1e-12, atol=1e-13)
    # Other sizes of one path change nothing.
    _, report = ag.fold(model, [X, X[:6]])
    assert statuses(report) == ["folded"]


def test_a_method_that_is_none():
    with pytest.raises(ag.ArgumentError, match="names the method 'decode', which Entries does not have"):
        ag.fold(Entries("plain"), [("decode", X.float())])
