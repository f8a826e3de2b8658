"""Curves against f written by hand in numpy, slopes against differences, derivatives by a and b against autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from agileact import bases
from agileact.lab.content.curves import Form, curves, reading
from agileact.lab.tabs.activation import reading_sentence, slopes_figure, values_figure

FORMULAS: dict[str, Callable[[Any], Any]] = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sine": np.sin,
}
TERMS = [([1.5], [1.0]), ([-0.7, 2.0], [0.5, -1.5]), ([1.0, -1.0, 0.3], [0.0, 2.0, -2.0])]


@pytest.mark.parametrize("base", FORMULAS)
@pytest.mark.parametrize(("scales", "locations"), TERMS, ids=["one", "two", "three"])
def test_curves_are_the_formula(base, scales, locations):
    drawn = curves(Form(base, scales, locations, {}))
    x, f = np.asarray(drawn.x), FORMULAS[base]
    assert x[0] == -6
    assert x[-1] == 6
    np.testing.assert_allclose(np.asarray(drawn.plain), f(x), rtol=1e-12, atol=1e-14)
    expected = sum(a * f(x - b) for a, b in zip(scales, locations, strict=True))
    np.testing.assert_allclose(np.asarray(drawn.agile), expected, rtol=1e-12, atol=1e-13)
    if base not in ("relu", "softsign"):  # at a kink of f or f' differences find no derivative
        h = 1e-6
        slope = sum(a * (f(x - b + h) - f(x - b - h)) / (2 * h) for a, b in zip(scales, locations, strict=True))
        np.testing.assert_allclose(np.asarray(drawn.agile_slope), slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("base", bases.names())
def test_a_reading_is_what_autograd_finds(base):
    options = bases.get(base).resolve({})
    a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([1.3, -0.6], [0.4, -1.1]))
    x = torch.tensor(0.77, dtype=torch.float64, requires_grad=True)
    y = (a * bases.get(base).function(x - b, **options)).sum()
    y.backward()
    read = reading(Form(base, a.tolist(), b.tolist(), options), 0.77)
    assert read.value == pytest.approx(float(y.detach()), rel=1e-12, abs=1e-14)
    assert x.grad is not None
    assert read.slope == pytest.approx(float(x.grad), rel=1e-12, abs=1e-14)
    assert a.grad is not None
    assert read.by_scale == pytest.approx(a.grad.tolist(), rel=1e-12, abs=1e-14)
    assert b.grad is not None
    assert read.by_location == pytest.approx(b.grad.tolist(), rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("base", ["relu", "gelu", "sigmoid", "sine"])
def test_with_a_gain_all_is_what_autograd_finds(base):
    a, b, g, x = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.3, 0.4, -2.5, 0.77))
    options = bases.get(base).resolve({})
    y = a * bases.get(base).function(g * (x - b), **options)
    y.backward()
    read = reading(Form(base, [1.3], [0.4], options, -2.5), 0.77)
    found = (read.value, read.slope, read.by_scale[0], read.by_location[0], read.by_gain)
    assert found == pytest.approx([float(v) for v in (y.detach(), x.grad, a.grad, b.grad, g.grad)], rel=1e-12)  # type: ignore[arg-type]
    drawn = curves(Form(base, [1.3], [0.4], options, -2.5))
    points = np.asarray(drawn.x)
    if base in FORMULAS:
        np.testing.assert_allclose(np.asarray(drawn.agile), 1.3 * FORMULAS[base](-2.5 * (points - 0.4)), atol=1e-13)
    assert "by g " in reading_sentence(read, 0.77)
    assert values_figure(drawn, read, base, 0.77)["data"][1]["name"] == "agile: a·f(g·(x − b))"


def test_options_reach_the_curve():
    drawn = curves(Form("leaky_relu", [2.0], [0.0], {"negative_slope": 0.5}))
    assert drawn.agile[0] == -6.0


def test_the_figures_show_both_curves_the_tangent_and_the_place():
    form = Form("tanh", [2.0], [1.0], {})
    drawn, read = curves(form), reading(form, 1.0)
    data = values_figure(drawn, read, "tanh", 1.0)["data"]
    assert data[0]["y"] == drawn.plain
    assert data[1]["y"] == drawn.agile
    tangent = data[2]
    assert (tangent["y"][1] - tangent["y"][0]) / (tangent["x"][1] - tangent["x"][0]) == pytest.approx(2.0)
    assert data[3]["x"] == [1.0]
    assert data[3]["y"] == [pytest.approx(0.0)]
    assert slopes_figure(drawn, read, "tanh", 1.0)["data"][1]["y"] == drawn.agile_slope


def test_the_sentence_names_every_derivative():
    text = reading_sentence(reading(Form("relu", [1.0, -2.0], [0.0, 1.0], {}), 3.0), 3.0)
    assert text == (
        "At x = 3: f is 3 with slope 1; the agile form is −1 with slope −1. "
        "Its derivative by a₁ is 3, by a₂ 2, by b₁ −1, by b₂ 2."
    )
