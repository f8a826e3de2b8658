"""What lint says of scales and locations, for models of which it is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import agileact as ag
from agileact.transforms.fold.solve import _Solver
from tests.transforms.folding import drawn

ADDS, SAME, SIGN = "adds capacity", "only reparametrises", "only its sign adds capacity"
IMAGE = torch.randn(2, 4, 8, 8)


def verdicts(*modules: nn.Module, x: Tensor = IMAGE) -> list[Any]:
    return list(ag.lint(nn.Sequential(*modules), x).sites)


def test_a_bias_before_and_a_layer_behind():
    (site,) = verdicts(nn.Conv2d(4, 8, 3), ag.AgileGELU(8), nn.Conv2d(8, 2, 1))
    assert (site.scale, site.location) == (SAME, SAME)
    assert site.scale_why == "weights could do the same, behind it: 2"
    assert site.location_why == "a bias could do the same: 0.bias"


def test_a_missing_bias():
    (site,) = verdicts(nn.Conv2d(4, 8, 3, bias=False), ag.AgileGELU(8), nn.Conv2d(8, 2, 1))
    assert (site.scale, site.location) == (SAME, ADDS)
    assert site.location_why == "as a bias would, which is missing: 0.bias"


def test_a_homogeneous_function_before_the_output():
    (site,) = verdicts(nn.Conv2d(4, 8, 3), ag.AgileReLU(8))
    assert (site.scale, site.location) == (SIGN, SAME)
    assert "before it: 0" in site.scale_why
    assert site.scale_why.endswith("a negative one: the model returns it")


def test_the_sign_before_max_pooling():
    (site,) = verdicts(nn.Conv2d(4, 8, 3), ag.AgileTanh(8), nn.MaxPool2d(2), nn.Conv2d(8, 2, 1))
    assert site.scale == SIGN
    assert site.scale_why.endswith("a negative one: it goes into max pooling in 2")


def test_no_layer_behind():
    (site,) = verdicts(nn.Conv2d(4, 8, 3), ag.AgileTanh(8))
    assert (site.scale, site.location) == (ADDS, SAME)
    assert site.scale_why == "the model returns it"


def test_nothing_before():
    (site,) = verdicts(ag.AgileTanh(4), nn.Conv2d(4, 2, 1))
    assert (site.scale, site.location) == (SAME, ADDS)
    assert site.location_why == "the signal comes straight from the model's input"


def test_batch_norm_behind_divides_the_size_out():
    (site,) = verdicts(nn.Conv2d(4, 8, 3), ag.AgileTanh(8), nn.AvgPool2d(2), nn.BatchNorm2d(8))
    assert site.scale == SAME
    assert "divided out again" in site.scale_why
    assert "batch_norm" in site.scale_why


def test_a_batch_norm_before_takes_the_location():
    (site,) = verdicts(nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), ag.AgileReLU(8), nn.Conv2d(8, 2, 1))
    assert (site.scale, site.location) == (SAME, SAME)
    assert site.location_why == "a bias could do the same: 1.bias"


def test_a_residual_stream_without_norms():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6)
            self.act = ag.AgileTanh(6)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = x + self.act(self.inner(x))
            return y

    (site,) = ag.lint(Net(), torch.randn(3, 6)).sites
    assert site.scale == ADDS
    assert "added" in site.scale_why


def test_sums_of_terms_add_capacity():
    (site,) = verdicts(nn.Conv2d(4, 8, 3), ag.CombinedAgile("gelu", 8, 2), nn.Conv2d(8, 2, 1))
    assert (site.scale, site.location) == (ADDS, ADDS)


def test_the_verdict_does_not_depend_on_the_values():
    model = nn.Sequential(nn.Conv2d(4, 8, 3), ag.AgileGELU(8), nn.MaxPool2d(2), ag.AgileReLU(8), nn.Conv2d(8, 2, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = ag.lint(model, IMAGE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    second = ag.lint(drawn(model, negative=True), IMAGE)
    assert str(first) == str(second)
    with torch.no_grad():
        model[1].scale.zero_()  # type: ignore[operator]
    assert str(ag.lint(model, IMAGE)) == str(first)


def test_the_table_says_why_and_what_differs():
    report = ag.lint(nn.Sequential(nn.Linear(4, 8), ag.AgileReLU(8), nn.Linear(8, 2)), torch.randn(3, 4))
    text = str(report)
    assert text.startswith("1 of 1 activations add nothing")
    assert "scale a" in text
    assert "location b" in text
    assert "training" in text
    assert [site.name for site in report.redundant] == ["1"]


def test_bad_arguments():
    with pytest.raises(ag.ArgumentError, match="no agile activation"):
        ag.lint(nn.Linear(3, 2), torch.ones(1, 3))
    with pytest.raises(ag.ArgumentTypeError, match=r"torch\.nn\.Module"):
        ag.lint("model", torch.ones(1, 3))  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentTypeError, match="example_inputs"):
        ag.lint(nn.Sequential(ag.AgileReLU(3)), 3)  # type: ignore[arg-type]


def test_a_layer_is_named_once():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), ag.AgileReLU(3), nn.Linear(3, 2))
    (site,) = ag.lint(model, example_inputs=torch.randn(5, 4)).sites
    assert site.scale_why == "weights could do the same, behind it: 3 or before it: 1"


def test_what_fold_alone_asks_for_is_not_made(monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("lint has no use for the weights that a fold would change")

    monkeypatch.setattr(_Solver, "_moved", never)
    assert len(verdicts(nn.Conv2d(4, 8, 3), ag.AgileReLU(8), nn.Conv2d(8, 2, 1))) == 1
