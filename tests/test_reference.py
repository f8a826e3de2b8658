"""The equations of the paper one by one, and the gradients derived by hand for any base function."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import agileact as ag
from agileact import reference
from agileact.reference import Gradients
from tests.cases import CASES, IDS, parameters

# Called with lists of arguments.
agile: Any = ag.functional.agile
A, B = 1.75, -0.4
DOUBLE = torch.float64


def _tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE)


def _points() -> list[float]:
    return [-3.0, -0.41, -0.39, 0.0, 0.6, 2.5]


def _sigmoid(x: float, a: float, b: float) -> float:
    return a / (1 + math.exp(-(x - b)))


def _relu(x: float, a: float, b: float) -> float:
    return a * (x - b) if x >= b else 0.0


def _slope(function, x, a, b, which: int, step: float = 1e-6) -> float:
    """The derivative by the argument ``which``, by central differences."""
    up, down = [x, a, b], [x, a, b]
    up[which] += step
    down[which] -= step
    return float(function(*up) - function(*down)) / (2 * step)


def _maps() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return feature maps of two filters, a and b of each, and the gradient dL/dc."""
    generator = torch.Generator().manual_seed(3)
    z, gradient = (torch.randn(3, 2, 4, 5, generator=generator, dtype=DOUBLE) for _ in range(2))
    return z, torch.tensor([1.5, -0.7], dtype=DOUBLE), torch.tensor([0.3, -0.2], dtype=DOUBLE), gradient


def _nodes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    z, gradient = (torch.randn(6, 3, generator=generator, dtype=DOUBLE) for _ in range(2))
    return z, torch.tensor([1.5, -0.7, 1.0], dtype=DOUBLE), torch.tensor([0.3, -0.2, 0.0], dtype=DOUBLE), gradient


def test_equation_03_feature_map():
    pooled = torch.arange(2 * 3 * 3, dtype=DOUBLE).reshape(1, 2, 3, 3)
    filters = torch.randn(2, 2, 2, 2, dtype=DOUBLE)
    bias = torch.tensor([0.5, -1.0], dtype=DOUBLE)
    z = reference.feature_map(pooled, filters, bias)
    for q in range(2):
        for i in range(2):
            for j in range(2):
                expected = float((pooled[0, :, i : i + 2, j : j + 2] * filters[q]).sum() + bias[q])
                assert float(z[0, q, i, j]) == pytest.approx(expected, rel=1e-12)


def test_equation_04_linear_estimate():
    x, w = torch.randn(5, 3, dtype=DOUBLE), torch.randn(2, 3, dtype=DOUBLE)
    estimate = reference.linear_estimate(x, w)
    for n in range(5):
        for m in range(2):
            assert float(estimate[n, m]) == pytest.approx(sum(float(w[m, i] * x[n, i]) for i in range(3)), rel=1e-12)


@pytest.mark.parametrize("equation", ["05_filters", "06_weights"])
def test_equations_05_06_gradient_step(equation):
    value, gradient = torch.randn(4, 3, dtype=DOUBLE), torch.randn(4, 3, dtype=DOUBLE)
    torch.testing.assert_close(reference.gradient_step(value, gradient, 0.3), value - 0.3 * gradient)


def test_equation_07_agile_sigmoid():
    for x in _points():
        expected = _sigmoid(x, A, B)
        assert float(reference.agile_sigmoid(_tensor(x), _tensor(A), _tensor(B))) == pytest.approx(expected, rel=1e-13)
        fast = agile(_tensor(x), _tensor(A), _tensor(B), "sigmoid", granularity="layer")
        assert float(fast) == pytest.approx(expected, rel=1e-13)


def test_equation_08_agile_relu():
    for x in [*_points(), B]:
        expected = _relu(x, A, B)
        assert float(reference.agile_relu(_tensor(x), _tensor(A), _tensor(B))) == pytest.approx(expected, rel=1e-13)
        fast = agile(_tensor(x), _tensor(A), _tensor(B), "relu", granularity="layer")
        assert float(fast) == pytest.approx(expected, rel=1e-13)


def test_equation_09_one_pair_per_filter():
    z, a, b, _ = _maps()
    c = reference.agile_feature_map(z, a, b, ag.bases.get("relu"))
    for q in range(2):
        for n, i, j in ((0, 0, 0), (1, 2, 3), (2, 3, 4)):
            expected = _relu(float(z[n, q, i, j]), float(a[q]), float(b[q]))
            assert float(c[n, q, i, j]) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(c, agile(z, a, b, "relu"))


def _check_derivative(equation: int, which: int) -> None:
    """Compare one derivative of both functions with differences, and with the modules' autograd."""
    for function, name, derivatives in (
        (_sigmoid, "sigmoid", reference.agile_sigmoid_derivatives),
        (_relu, "relu", reference.agile_relu_derivatives),
    ):
        for x in _points():
            found = float(derivatives(_tensor(x), _tensor(A), _tensor(B))[which])
            assert found == pytest.approx(_slope(function, x, A, B, which), rel=1e-7, abs=1e-9), equation
            leaves = [_tensor(value).requires_grad_() for value in (x, A, B)]
            (gradient,) = torch.autograd.grad(agile(*leaves, name, granularity="layer"), leaves[which])
            assert float(gradient) == pytest.approx(found, rel=1e-12, abs=1e-15), equation


def test_equation_10_derivative_by_the_feature_map():
    _check_derivative(10, 0)


def test_equation_11_derivative_by_a():
    _check_derivative(11, 1)


def test_equation_12_derivative_by_b():
    _check_derivative(12, 2)


def _chain(kind: str, which: str) -> None:
    z, a, b, gradient = _maps() if kind == "filter" else _nodes()
    shape = (1, -1, 1, 1) if kind == "filter" else (1, -1)
    sums = reference.filter_gradients if kind == "filter" else reference.node_gradients
    for name, derivatives in (
        ("sigmoid", reference.agile_sigmoid_derivatives),
        ("relu", reference.agile_relu_derivatives),
    ):
        d = derivatives(z, a.view(shape), b.view(shape))
        found = sums(gradient, d.scale, d.location)[0 if which == "a" else 1]
        per_element = d.scale if which == "a" else d.location
        for unit in range(len(a)):
            products = (gradient[:, unit] * per_element[:, unit]).flatten().tolist()
            assert float(found[unit]) == pytest.approx(math.fsum(products), rel=1e-12)
        leaves = [a.clone().requires_grad_(), b.clone().requires_grad_()]
        agile(z, *leaves, name).backward(gradient)
        torch.testing.assert_close(leaves[0 if which == "a" else 1].grad, found, rtol=1e-12, atol=1e-13)


def test_equation_13_gradient_of_a_summed_over_feature_map_and_batch():
    _chain("filter", "a")


def test_equation_14_gradient_of_b_summed_over_feature_map_and_batch():
    _chain("filter", "b")


def _check_update(kind: str, which: str) -> None:
    """One step of SGD over param_groups is the equation's, with the activation's own learning rate."""
    z, a, b, gradient = _maps() if kind == "filter" else _nodes()
    shape = (1, -1, 1, 1) if kind == "filter" else (1, -1)
    sums = reference.filter_gradients if kind == "filter" else reference.node_gradients
    d = reference.agile_sigmoid_derivatives(z, a.view(shape), b.view(shape))
    to_a, to_b = sums(gradient, d.scale, d.location)
    module = ag.AgileSigmoid(len(a), dtype=DOUBLE)
    with torch.no_grad():
        module.scale.copy_(a)
        module.location.copy_(b)
    optimizer = torch.optim.SGD(ag.param_groups(module, lr=10.0, activation_lr=0.3))
    module(z).backward(gradient)
    optimizer.step()
    value, by, parameter = (a, to_a, module.scale) if which == "a" else (b, to_b, module.location)
    torch.testing.assert_close(parameter.detach(), value - 0.3 * by, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(parameter.detach(), reference.gradient_step(value, by, 0.3), rtol=1e-12, atol=1e-13)


def test_equation_15_update_of_a_of_a_filter():
    _check_update("filter", "a")


def test_equation_16_update_of_b_of_a_filter():
    _check_update("filter", "b")


def test_equation_17_activation_of_the_linear_estimate():
    x, w = torch.randn(6, 4, dtype=DOUBLE), torch.randn(3, 4, dtype=DOUBLE)
    _, a, b, _ = _nodes()
    out = agile(reference.linear_estimate(x, w), a, b, "sigmoid")
    for n in range(6):
        for m in range(3):
            estimate = sum(float(w[m, i] * x[n, i]) for i in range(4))
            assert float(out[n, m]) == pytest.approx(_sigmoid(estimate, float(a[m]), float(b[m])), rel=1e-12)


def _check_node_derivative(which: int) -> None:
    z, a, b, _ = _nodes()
    for function, derivatives in (
        (_sigmoid, reference.agile_sigmoid_derivatives),
        (_relu, reference.agile_relu_derivatives),
    ):
        found = derivatives(z, a, b)[which]
        for n in range(6):
            for m in range(3):
                expected = _slope(function, float(z[n, m]), float(a[m]), float(b[m]), which)
                assert float(found[n, m]) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_equation_18_derivative_by_the_linear_estimate():
    _check_node_derivative(0)


def test_equation_19_derivative_of_a_node_by_a():
    _check_node_derivative(1)


def test_equation_20_derivative_of_a_node_by_b():
    _check_node_derivative(2)


def test_equation_21_gradient_of_a_summed_over_the_batch():
    _chain("node", "a")


def test_equation_22_gradient_of_b_summed_over_the_batch():
    _chain("node", "b")


def test_equation_23_update_of_a_of_a_node():
    _check_update("node", "a")


def test_equation_24_update_of_b_of_a_node():
    _check_update("node", "b")


def test_at_the_kink_the_paper_and_torch_differ():
    x = _tensor(B)
    assert float(reference.agile_relu_derivatives(x, _tensor(A), _tensor(B)).x) == A
    leaf = x.clone().requires_grad_()
    agile(leaf, _tensor(A), _tensor(B), "relu", granularity="layer").backward()
    assert float(leaf.grad) == 0.0  # type: ignore[arg-type]


def _away_from_kinks(case, x: Tensor, location: Tensor) -> Tensor:
    """Move points that are within 1e-3 of a kink, where differences say nothing."""
    for kink in ag.bases.get(case.base).facts(**case.options).kinks:
        near = (x - location - kink).abs() < 1e-3
        x = torch.where(near, x + 5e-3, x)
    return x


@pytest.mark.parametrize("case", CASES, ids=IDS)
class TestHandDerived:
    """Forward, backward and backward of backward against autograd of the formula."""

    def _arguments(self, case):
        scale, location = parameters(3)
        x = 2 * torch.randn(5, 3, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
        return _away_from_kinks(case, x, location.view(3, 1)), scale, location

    def test_forward(self, case):
        x, scale, location = self._arguments(case)
        base = ag.bases.get(case.base)
        found = reference.forward(x, scale, location, base, base.resolve(case.options), 1, 2)
        torch.testing.assert_close(found, scale.view(3, 1) * case.formula(x - location.view(3, 1)))

    def test_backward(self, case):
        x, scale, location = self._arguments(case)
        base = ag.bases.get(case.base)
        gradient = torch.randn_like(x)
        found = reference.backward(gradient, x, scale, location, base, base.resolve(case.options), 1, 2)
        leaves = [leaf.clone().requires_grad_() for leaf in (x, scale, location)]
        out = leaves[1].view(3, 1) * case.formula(leaves[0] - leaves[2].view(3, 1))
        for hand, automatic in zip(found, torch.autograd.grad(out, leaves, gradient), strict=True):
            torch.testing.assert_close(hand, automatic, rtol=1e-9, atol=1e-10)

    def test_backward_of_backward(self, case):
        x, scale, location = self._arguments(case)
        base = ag.bases.get(case.base)
        gradient, cotangents = torch.randn_like(x), Gradients(torch.randn_like(x), torch.randn(3).double(), scale + 1)
        to_gradient, found = reference.backward_of_backward(
            cotangents, gradient, x, scale, location, base, base.resolve(case.options), 1, 2
        )
        leaves = [leaf.clone().requires_grad_() for leaf in (gradient, x, scale, location)]
        out = leaves[2].view(3, 1) * case.formula(leaves[1] - leaves[3].view(3, 1))
        first = torch.autograd.grad(out, leaves[1:], leaves[0], create_graph=True)
        second = torch.autograd.grad(first, leaves, tuple(cotangents))
        for hand, automatic in zip((to_gradient, *found), second, strict=True):
            torch.testing.assert_close(hand, automatic, rtol=1e-8, atol=1e-9)

    def test_gradcheck(self, case):
        x, scale, location = self._arguments(case)
        leaves = tuple(leaf.clone().requires_grad_() for leaf in (x[:2], scale, location))

        def function(x: Tensor, scale: Tensor, location: Tensor) -> Tensor:
            return ag.functional.agile(x, scale, location, case.base, **case.options)

        assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, leaves)


def test_the_equations_and_the_general_form_agree():
    z, a, b, gradient = _maps()
    for name, derivatives in (
        ("sigmoid", reference.agile_sigmoid_derivatives),
        ("relu", reference.agile_relu_derivatives),
    ):
        general = reference.backward(gradient, z, a, b, ag.bases.get(name), {}, 1, 2)
        d = derivatives(z, a.view(1, -1, 1, 1), b.view(1, -1, 1, 1))
        torch.testing.assert_close(general.x, gradient * d.x)
        for found, expected in zip(
            (general.scale, general.location), reference.filter_gradients(gradient, d.scale, d.location), strict=True
        ):
            torch.testing.assert_close(found, expected)
