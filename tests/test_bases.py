"""Base functions: values against formulas, derivatives against autograd, facts against numbers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import agileact as ag
from agileact.bases import Facts, Option
from agileact.bases import registry as registry
from tests.cases import CASES, IDS, Case
from tests.tolerances import assert_values

NOT_ELEMENTWISE = {"GLU", "Softmin", "Softmax", "Softmax2d", "LogSoftmax", "MultiheadAttention"}
RANDOM_OR_LEARNED = {"RReLU", "PReLU"}
NAMES = {"logsigmoid": "log_sigmoid", "leakyrelu": "leaky_relu"}


def _grid(case: Case) -> Tensor:
    """Points on both sides of everything that happens, none of them at a kink."""
    facts = ag.bases.get(case.base).facts(**case.options)
    points = torch.cat([torch.linspace(-9, 9, 401, dtype=torch.float64), torch.tensor([-25.0, 25.0, 60.0])])
    for kink in facts.kinks:
        points = points[(points - kink).abs() > 1e-3]
    return points


def _facts(case: Case) -> Facts:
    return ag.bases.get(case.base).facts(**case.options)


def test_every_elementwise_activation_of_torch_has_a_base_and_a_module():
    classes = set(nn.modules.activation.__all__) - NOT_ELEMENTWISE - RANDOM_OR_LEARNED
    for name in [*sorted(classes), "Identity", "Sine"]:
        base = NAMES.get(name.lower(), name.lower())
        assert base in ag.bases.names()
        assert issubclass(getattr(ag, f"Agile{name}"), ag.Agile)
    assert len(classes) + 2 == len(registry._BUILT_IN)


def test_the_table_of_cases_is_complete():
    assert {case.base for case in CASES} == registry._BUILT_IN


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_value_is_the_formula(case):
    x = _grid(case)
    assert_values(ag.bases.get(case.base).function(x, **ag.bases.get(case.base).resolve(case.options)), case.formula(x))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_derivatives_are_those_of_autograd(case):
    base = ag.bases.get(case.base)
    options = base.resolve(case.options)
    x = _grid(case).requires_grad_()
    (first,) = torch.autograd.grad(case.formula(x).sum(), x, create_graph=True)
    second = torch.zeros_like(x)
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(base.derivative(x, **options), first, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(base.second_derivative(x, **options), second, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_derivative_at_a_kink_is_the_one_of_torch(case):
    base = ag.bases.get(case.base)
    x = torch.tensor([*_facts(case).kinks, 0.0], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(case.native(x).sum(), x)
    # The backward kernels of celu and hardsigmoid keep 1 / alpha and 1 / 6 in float32, in float64 too.
    torch.testing.assert_close(base.derivative(x, **base.resolve(case.options)), first, rtol=1e-7, atol=0.0)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_derivatives_keep_shape_and_dtype(case):
    base = ag.bases.get(case.base)
    options = base.resolve(case.options)
    x = torch.randn(3, 4, dtype=torch.float32)
    for function in (base.function, base.derivative, base.second_derivative):
        assert function(x, **options).shape == x.shape
        assert function(x, **options).dtype == x.dtype


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_facts_are_true(case):
    facts = _facts(case)
    x = torch.linspace(-40, 40, 160001, dtype=torch.float64)
    y = case.formula(x)
    steps = y.diff()
    # Exact monotonicity is asserted up to the rounding of the formula.
    increasing, decreasing = bool((steps >= -1e-14).all()), bool((steps <= 1e-14).all())
    if facts.monotone is not None:
        assert increasing if facts.monotone == "increasing" else decreasing
    elif case.base != "softplus":  # its jump of 2e-9 at the threshold is between two points of the grid
        assert not increasing
        assert not decreasing
    for factor in (0.25, 3.0):
        homogeneous = torch.allclose(case.formula(factor * x), factor * y, rtol=1e-12, atol=1e-12)
        assert homogeneous == facts.positively_homogeneous
    assert torch.allclose(case.formula(-x), -y, rtol=1e-12, atol=1e-12) == facts.odd
    lower, upper = facts.bounds
    assert lower - 1e-12 <= float(y.min())
    assert float(y.max()) <= upper + 1e-12
    y = torch.cat([y, case.formula(torch.tensor([-1e8, -1e3, 1e8], dtype=torch.float64))])
    for bound, reached in ((lower, float(y.min())), (upper, float(y.max()))):
        assert abs(reached) > 1e5 if math.isinf(bound) else reached == pytest.approx(bound, abs=1e-6)
    assert facts.value_at_zero == pytest.approx(float(case.formula(torch.zeros((), dtype=torch.float64))), abs=1e-15)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_nothing_jumps_but_at_the_kinks(case):
    base = ag.bases.get(case.base)
    options = base.resolve(case.options)
    kinks = _facts(case).kinks
    edges = torch.tensor([-30.0, *kinks, 30.0], dtype=torch.float64)
    for low, high in itertools.pairwise(edges):
        x = torch.linspace(float(low) + 1e-9, float(high) - 1e-9, 300001, dtype=torch.float64)
        for function in (base.function, base.derivative, base.second_derivative):
            assert float(function(x, **options).diff().abs().max()) < 2e-3


@pytest.mark.parametrize(
    ("base", "options", "facts"),
    [
        ("leaky_relu", {"negative_slope": 1.0}, {"monotone": "increasing", "odd": True}),
        ("leaky_relu", {"negative_slope": 0.0}, {"bounds": (0.0, math.inf)}),
        ("elu", {"alpha": -0.5}, {"monotone": None, "bounds": (0.0, math.inf)}),
        ("elu", {"alpha": 0.0}, {"positively_homogeneous": True}),
        ("celu", {"alpha": -0.5}, {"monotone": "increasing", "bounds": (-math.inf, math.inf)}),
        ("hardtanh", {"min_val": 0.0, "max_val": math.inf}, {"positively_homogeneous": True, "kinks": (0.0,)}),
        ("hardtanh", {"min_val": -2, "max_val": 2}, {"odd": True, "bounds": (-2.0, 2.0)}),
        ("softshrink", {"lambd": 0}, {"positively_homogeneous": True, "kinks": ()}),
        ("softplus", {"threshold": 40.0}, {"monotone": "increasing"}),
        ("softplus", {"threshold": math.inf}, {"monotone": "increasing", "kinks": ()}),
        ("threshold", {"threshold": 0.0, "value": 1.0}, {"monotone": None, "bounds": (0.0, math.inf)}),
    ],
)
def test_facts_follow_the_options(base, options, facts):
    found = ag.bases.get(base).facts(**options)
    assert {key: getattr(found, key) for key in facts} == facts


@pytest.mark.parametrize(
    ("base", "options", "message"),
    [
        ("celu", {"alpha": 0.0}, "must not be zero"),
        ("softplus", {"beta": 0.0}, "beta must be greater than 0, not 0.0"),
        ("softshrink", {"lambd": -1}, "lambd must be at least 0, not -1"),
        ("elu", {"alpha": math.nan}, "NaN"),
        ("elu", {"alpha": "big"}, "must be a number, not 'big' of type str"),
        ("elu", {"alpha": True}, "must be a number, not True of type bool"),
        ("elu", {"alpha": torch.tensor(1.0)}, "of type Tensor"),
        ("gelu", {"approximate": "erf"}, "approximate must be 'none' or 'tanh', not 'erf'"),
        ("gelu", {"aproximate": "tanh"}, "did you mean 'approximate'"),
        ("leaky_relu", {"slope": 0.1}, "'slope'; known: negative_slope"),
        ("relu", {"slope": 0.1}, "it has no options"),
        ("hardtanh", {"min_val": 2.0, "max_val": 1.0}, "min_val must be less than max_val, not 2.0 against 1.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(base, options, message):
    with pytest.raises((ag.ArgumentError, ag.ArgumentTypeError), match=message):
        ag.Agile(base, 3, **options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ReLU", "did you mean 'relu'"),
        ("leakyrelu", "did you mean 'leaky_relu'"),
        ("swiglu", "there is no base function 'swiglu'"),
        (torch.relu, "register_base"),
        (None, "must be the name of a base function"),
    ],
)
def test_unknown_names_are_refused(name: Any, message):
    with pytest.raises((ag.ArgumentError, ag.ArgumentTypeError), match=message):
        ag.bases.get(name)


@pytest.mark.usefixtures("_clean_registry")
class TestRegister:
    def test_derivatives_come_from_autograd(self):
        base = ag.register_base("own_silu", lambda x, rate: x * torch.sigmoid(rate * x), options={"rate": 1.0})
        silu = ag.bases.get("silu")
        x = torch.linspace(-5, 5, 41, dtype=torch.float64)
        torch.testing.assert_close(base.derivative(x, rate=1.0), silu.derivative(x))
        torch.testing.assert_close(base.second_derivative(x, rate=1.0), silu.second_derivative(x))

    def test_trains_like_any_other(self):
        ag.register_base("cube", lambda x: x**3, monotone="increasing", odd=True)
        activation = ag.Agile("cube", 3, dtype=torch.float64)
        scale, location = activation.scale.detach(), activation.location.detach()
        x = torch.randn(4, 3, dtype=torch.float64)
        assert torch.equal(activation(x), x**3)
        activation(x).sum().backward()
        torch.testing.assert_close(activation.scale.grad, (x**3).sum(0))
        torch.testing.assert_close(activation.location.grad, (-3 * scale * (x - location) ** 2).sum(0))

    def test_identity_in_half_precision_is_bit_for_bit_even_if_it_rounds_inside(self):
        ag.register_base("rough", lambda x: x - torch.tanh(x) * 0.1 + x * x)
        x = torch.linspace(-8, 8, 999).to(torch.bfloat16).view(1, -1)
        assert torch.equal(ag.Agile("rough", 999)(x), x - torch.tanh(x) * 0.1 + x * x)

    def test_facts_may_depend_on_options(self):
        base = ag.register_base(
            "slope",
            lambda x, rate: rate * x,
            options={"rate": Option(1.0, nonzero=True)},
            monotone=lambda rate: "increasing" if rate > 0 else "decreasing",
            positively_homogeneous=True,
        )
        assert base.facts(rate=-1.0).monotone == "decreasing"
        assert base.facts(rate=2.0).positively_homogeneous

    def test_replace(self):
        ag.register_base("mine", torch.relu)
        with pytest.raises(ag.ArgumentError, match="replace=True"):
            ag.register_base("mine", torch.tanh)
        ag.register_base("mine", torch.tanh, replace=True)
        assert ag.bases.get("mine").function is torch.tanh

    @pytest.mark.parametrize(
        ("name", "function", "message"),
        [
            ("relu", torch.tanh, "comes with Agileact"),
            ("two words", torch.tanh, "identifier"),
            (3, torch.tanh, "must be a string"),
            ("mine", 3, "must be callable"),
            ("mine", torch.sum, "must keep shape and dtype"),
            ("mine", lambda x: x.double(), "must keep shape and dtype"),
            ("mine", lambda x: 3.0, "must return a tensor"),
        ],
    )
    def test_what_cannot_work_is_refused(self, name, function, message):
        with pytest.raises((ag.ArgumentError, ag.ArgumentTypeError), match=message):
            ag.register_base(name, function, replace=True)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"monotone": "up"}, "monotone must be 'increasing', 'decreasing' or None, not 'up'"),
            ({"monotone": lambda: "up"}, "monotone must be"),
            ({"bounds": (1.0, 0.0)}, "bounds must be a lower and an upper bound"),
            ({"derivative": 3}, "derivative must be callable, not 3"),
            ({"second_derivative": 3}, "second_derivative must be callable, not 3"),
            ({"options": {"rate": 1.0}}, r"cannot be called as function\(x, rate=1.0\)"),
        ],
    )
    def test_what_is_not_true_of_any_function_is_refused(self, arguments, message):
        given = {"monotone": None, "bounds": (-1.0, 1.0), **arguments}
        with pytest.raises((ag.ArgumentError, ag.ArgumentTypeError), match=message):
            ag.register_base("mine", torch.tanh if "options" not in arguments else (lambda x: x), **given)
        assert "mine" not in ag.bases.names()

    def test_a_choice_needs_its_names(self):
        with pytest.raises(ag.ArgumentTypeError, match="choices"):
            ag.register_base("mine", lambda x, mode: x, options={"mode": "a"})
        ag.register_base("mine", lambda x, mode: x, options={"mode": Option("a", choices=("a", "b"))})
        assert ag.bases.get("mine").resolve({"mode": "b"}) == {"mode": "b"}
