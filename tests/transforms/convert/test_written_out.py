"""Activations that are made in forward, taken from lists, or written out as mathematics."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag
from tests.transforms.converting import converted, sites
from tests.transforms.random_models import set_pairs

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class _Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(3, 4), nn.Linear(4, 2)


class MadeInForward(_Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(nn.LeakyReLU(0.2)(self.fc(x)))  # type: ignore[no-any-return]


class InAList(_Base):
    def __init__(self) -> None:
        super().__init__()
        self.acts = [nn.Tanh(), nn.ReLU()]

    def forward(self, x: Tensor) -> Tensor:
        return self.acts[1](self.out(self.acts[0](self.fc(x))))  # type: ignore[no-any-return]


class InADict(_Base):
    def __init__(self) -> None:
        super().__init__()
        self.acts = {"relu": nn.ReLU(inplace=True), "gelu": nn.GELU()}
        self.name = "gelu"

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.acts[self.name](self.fc(x)))  # type: ignore[no-any-return]


class Zipped(_Base):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([self.fc, self.out])
        self.acts = [nn.SiLU(), nn.Tanh()]

    def forward(self, x: Tensor) -> Tensor:
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(x))
        return x


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (MadeInForward, {"leaky_relu": ("leaky_relu", 4, -1)}),
        (InAList, {"tanh": ("tanh", 4, -1), "relu": ("relu", 2, -1)}),
        (InADict, {"gelu": ("gelu", 4, -1)}),
        (Zipped, {"silu.0": ("silu", 4, -1), "silu.1": ("tanh", 2, -1)}),
    ],
)
def test_activation_modules_that_are_not_in_the_model(kind: type[nn.Module], expected: dict[str, object]):
    model = kind()
    agile, report = converted(model, X)
    assert sites(report) == expected
    assert all("activation.py" not in site.origin for site in report.sites)
    set_pairs(agile, 0)
    assert torch.equal(copy.deepcopy(agile)(X), agile(X))
    assert not torch.equal(agile(X), model(X))
    assert torch.equal(ag.revert(agile)(X), model(X))


class _Formula(_Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.f(self.fc(x)))  # type: ignore[no-any-return]

    def f(self, h: Tensor) -> Tensor:
        raise NotImplementedError


class SiLU(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return h * torch.sigmoid(h)


class QuickGELU(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return h * torch.sigmoid(1.702 * h)


class Sine(_Formula):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.sin(30.0 * self.fc(x)))  # type: ignore[no-any-return]


class Mask(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return h * (h > 0)


class Floating(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return (h > 0).to(h.dtype) * h


class Where(_Formula):
    slope = 0.1

    def f(self, h: Tensor) -> Tensor:
        return torch.where(h > 0, h, self.slope * h)


class Maximum(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return torch.maximum(h, torch.zeros_like(h))


class MaximumOfNumber(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return torch.maximum(h, torch.tensor(0.0))


class Clamp(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return h.clamp(min=0)


class HardSigmoid(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return (h / 6 + 0.5).clamp(0, 1)


class HardSwish(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return h * F.relu6(h + 3) / 6


class ErfGELU(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return 0.5 * h * (1.0 + torch.erf(h / math.sqrt(2.0)))


class TanhGELU(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * torch.pow(h, 3))))


class Mish(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return (
            h
            * torch.tanh(
                F.softplus(h),
            )
        )  # fmt: skip


class Gaussian(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return torch.exp(-(h**2))


class ShiftedSoftplus(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return F.softplus(h) - math.log(2.0)


class Snake(_Formula):
    def f(self, h: Tensor) -> Tensor:
        return h + torch.sin(h) ** 2


class Looped(_Formula):
    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.fc, self.out):
            x = torch.sin(layer(x))
        return x


class GateBefore(_Formula):
    def f(self, h: Tensor) -> Tensor:
        u = torch.sigmoid(h)
        y = h * u
        return y


class OneName(_Formula):
    def f(self, h: Tensor) -> Tensor:
        out = torch.sigmoid(h)
        out = out * h
        return out


class OwnName(_Formula):
    def f(self, h: Tensor) -> Tensor:
        gate: Tensor = torch.sigmoid(h)
        h = h * gate
        return h


class TanhGELUInSteps(_Formula):
    def f(self, h: Tensor) -> Tensor:
        inner = math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)
        cdf = 0.5 * (1 + torch.tanh(inner))
        return h * cdf


class ErfGELUInSteps(_Formula):
    def f(self, h: Tensor) -> Tensor:
        cdf = 0.5 * (
            1.0 + torch.erf(h / math.sqrt(2.0))  # over lines
        )  # fmt: skip
        return h * cdf


class WithoutItsArgument(_Formula):
    """The last expression does not name what is activated; a number and another name are in between."""

    def f(self, h: Tensor) -> Tensor:
        c = math.sqrt(2 / math.pi)
        same = h
        inner = c * (same + 0.044715 * torch.pow(h, 3))
        left, right = 0.5, 1.0
        half = left * h
        whole = right + torch.tanh(inner)
        return (
            half
            * whole
        )  # fmt: skip


class MaskBefore(_Formula):
    def f(self, h: Tensor) -> Tensor:
        mask = h > 0
        h = h * mask
        return h


class TwoInOneStatement(_Formula):
    def f(self, h: Tensor) -> Tensor:
        mask, half = h > 0, 1.0
        kept = half * h
        return kept * mask


class MishInSteps(_Formula):
    def f(self, h: Tensor) -> Tensor:
        p = F.softplus(h)
        t = torch.tanh(p)
        return h * t


class SnakeInSteps(_Formula):
    def f(self, h: Tensor) -> Tensor:
        s = torch.sin(h)
        return h + s**2


class LoopedInSteps(_Formula):
    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.fc, self.out):
            h = layer(x)
            u = torch.sigmoid(h)
            x = h * u
        return x


FORMULAS: dict[type[nn.Module], str | list[str]] = {
    GateBefore: "silu",
    OneName: "silu",
    OwnName: "silu",
    TanhGELUInSteps: "gelu",
    ErfGELUInSteps: "gelu",
    WithoutItsArgument: "gelu",
    MaskBefore: "relu",
    TwoInOneStatement: "relu",
    MishInSteps: "mish",
    SnakeInSteps: "sin",
    LoopedInSteps: ["silu", "silu"],
    SiLU: "silu",
    QuickGELU: "sigmoid",
    Sine: "sin",
    Mask: "relu",
    Floating: "relu",
    Where: "leaky_relu",
    Maximum: "relu",
    MaximumOfNumber: "relu",
    Clamp: "relu",
    HardSigmoid: "hardsigmoid",
    HardSwish: "hardswish",
    ErfGELU: "gelu",
    TanhGELU: "gelu",
    Mish: "mish",
    Gaussian: "exp",
    ShiftedSoftplus: "softplus",
    Snake: "sin",
    Looped: ["sine", "sine"],
}


@pytest.mark.parametrize("kind", FORMULAS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_formulas_are_found_as_what_they_are(kind: type[nn.Module], dtype: torch.dtype):
    model, x = kind().to(dtype), X.to(dtype)
    agile, report = converted(model, x)
    assert not report.skipped, str(report)
    bases = FORMULAS[kind]
    names = [site.name.partition(".")[0] for site in report.converted]
    assert names == (bases if isinstance(bases, list) else [bases])
    assert [site.channels for site in report.converted] == [4, 2][: len(names)]
    set_pairs(agile, 0, zero=False)
    for other in (copy.deepcopy(agile), pickle.loads(pickle.dumps(agile))):
        assert torch.equal(other(x), agile(x))
    assert not torch.equal(agile(x), model(x))
    plain = ag.revert(agile)
    assert type(plain) is kind
    assert torch.equal(plain(x), model(x))


@pytest.mark.parametrize("kind", FORMULAS, ids=lambda kind: kind.__name__)
def test_formulas_compute_the_equation_and_fold(kind: type[nn.Module]):
    model = kind().double()
    x = X.double()
    agile, _ = ag.convert(model, example_inputs=x)
    set_pairs(agile, 2)
    if kind not in (Looped, LoopedInSteps, Sine):
        (pair,) = [module for module in agile.modules() if isinstance(module, ag.AgileModule)]
        inner = model.fc(x) - pair.location  # type: ignore[operator]
        expected = model.out(pair.scale * model.f(inner))  # type: ignore[operator]
        torch.testing.assert_close(agile(x), expected)
    plain, _ = ag.fold(agile, x)
    torch.testing.assert_close(plain(x), agile(x))


class PositionalEncoding(_Base):
    """No layer makes what sin takes: it is no activation."""

    def forward(self, x: Tensor) -> Tensor:
        angles = x[:, :2] * torch.arange(1.0, 3.0)
        return self.fc(torch.cat([angles.sin(), torch.cos(x[:, :1])], 1))  # type: ignore[no-any-return]


class Residual(_Base):
    """The sum is no activation; what is added is one."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        return self.out(h + torch.tanh(h))  # type: ignore[no-any-return]


class Limited(_Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fc(x).clamp(-10, 10)).exp()  # type: ignore[no-any-return]


class TwoTensors(_Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        g = torch.sin(h) * h.mean()
        return self.out(torch.where(h.mean(0) > 0, g, h))  # type: ignore[no-any-return]


class UsedTwice(_Base):
    """The gate is seen elsewhere too."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        gate = torch.sigmoid(h)
        return self.out(h * gate) + gate.sum()  # type: ignore[no-any-return]


class ReadInABranch(_Base):
    """The gate is read where the example does not come."""

    loud = False

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        gate = torch.sigmoid(h)
        y = h * gate
        if self.loud:
            print(gate)
        return self.out(y)  # type: ignore[no-any-return]


class Chosen(_Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        gate = h
        if len(x) > 1:
            gate = torch.sigmoid(h)
        return self.out(h * gate)  # type: ignore[no-any-return]


class Renamed(_Base):
    """The name of the argument means something else when the formula ends."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        g = h
        gate = torch.sigmoid(h)
        h = h + 1
        return self.out(g * gate) + self.out(h)  # type: ignore[no-any-return]


class Else(_Base):
    """A step does something else beside."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        gate = torch.sigmoid(h) * len(str(h.shape)) / len(str(h.shape))
        return self.out(h * gate)  # type: ignore[no-any-return]


class Residual2(_Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        y = F.relu(h)
        h = h + y
        return self.out(h)  # type: ignore[no-any-return]


class GRU(_Base):
    """A cell that is written out: it is left whole."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.new = nn.Linear(3 + 4, 8), nn.Linear(3 + 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        r, z = torch.sigmoid(self.gates(torch.cat([x, h], 1))).chunk(2, 1)
        n = torch.tanh(self.new(torch.cat([x, r * h], 1)))
        return self.out((1 - z) * n + z * h)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "converted_", "skipped"),
    [
        (PositionalEncoding, [], []),
        (Residual, ["tanh"], []),
        (Limited, [], []),
        (TwoTensors, ["sine"], []),
        (UsedTwice, [], ["sigmoid"]),
        (ReadInABranch, [], ["sigmoid"]),
        (Chosen, [], ["sigmoid"]),
        (Renamed, [], ["sigmoid"]),
        (Else, ["sigmoid"], []),
        (Residual2, ["relu"], []),
        (GRU, [], ["sigmoid", "tanh"]),
    ],
)
def test_what_is_no_formula(kind: type[nn.Module], converted_: list[str], skipped: list[str]):
    _, report = converted(kind(), X)
    assert [site.base for site in report.converted] == converted_, str(report)
    assert [site.base for site in report.skipped] == skipped, str(report)
    if kind in (UsedTwice, ReadInABranch, Chosen):
        assert "it gates its own argument, and is no single activation" in report.skipped[0].reason


@pytest.mark.parametrize("kind", [GateBefore, TanhGELUInSteps, WithoutItsArgument, MaskBefore])
def test_what_only_a_formula_needs_is_not_computed_any_more(kind: type[nn.Module]):
    """Otherwise its steps would see the signal before it: nothing would fold, and a new conversion would find them."""
    model, x = kind().double(), X.double()
    agile, report = ag.convert(model, example_inputs=x)
    assert report.converted[0].base != "GraphModule"
    again, second = ag.convert(agile, example_inputs=x)
    assert [site.status for site in second.sites] == ["already agile"]
    set_pairs(agile, 1)
    plain, folding = ag.fold(agile, x)
    assert [site.status for site in folding.sites] == ["folded"], str(folding)
    assert type(plain) is kind
    exported = torch.export.export(agile, (x,)).module()
    torch.testing.assert_close(exported(x), agile(x))
    compiled: Any = torch.compile(agile, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), agile(x))
    torch.testing.assert_close(again(x), model(x))


class _Positive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sigmoid(x.clamp(min=0))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Custom(_Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(_Positive.apply(self.fc(x)))  # type: ignore[no-any-return]


def test_a_step_of_an_autograd_function_is_named_as_what_it_is():
    _, report = converted(Custom(), X)
    assert [site.base for site in report.skipped] == ["clamp", "sigmoid"]
    for site in report.skipped:
        assert (
            site.reason == "it is a step of _Positive, an autograd.Function whose backward is written for it as it is"
        )
