"""The arguments of convert, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag
from tests.transforms.converting import (
    Functional,
    Swish,
    converted,
    sites,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_filter_fn_gets_modules_and_callers():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), Functional())
    asked: list[tuple[str, str]] = []

    def wanted(module: nn.Module, name: str) -> bool:
        asked.append((type(module).__name__, name))
        return name == "1"

    _, report = converted(model, torch.randn(2, 3), filter_fn=wanted)
    assert list(sites(report)) == ["1"]
    assert ("ReLU", "1") in asked
    assert ("Functional", "2") in asked
    assert {site.reason for site in report.skipped} == {"left out by filter_fn"}


def test_converting_in_two_steps():
    model, x = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), Functional()), torch.randn(2, 3)
    chosen = iter([True, False, True, False, True, False])
    half, first = converted(model, x, filter_fn=lambda module, name: next(chosen))
    agile, second = converted(half, x)
    assert len(first.converted) + len(second.converted) == 6
    assert [site.status for site in second.skipped] == ["already agile"] * len(first.converted)
    assert torch.equal(agile(x), model(x))
    plain = ag.revert(agile)
    assert type(plain[2]) is Functional  # type: ignore[index]
    assert len(converted(agile, x)[1].converted) == 0


@pytest.mark.parametrize("base", ["sigmoid", {"name": "softplus", "beta": 2.0}])
def test_another_base_function(base: Any):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), Swish())
    x = torch.randn(2, 3)
    agile, report = converted(model, x, base=base)
    f = torch.sigmoid if base == "sigmoid" else (lambda z: F.softplus(z, 2.0))
    assert torch.equal(agile(x), f(f(model[0](x))))
    assert {site.base for site in report.converted} == {base if isinstance(base, str) else base["name"]}
    assert repr(ag.revert(agile)) == repr(model)


@pytest.mark.parametrize(
    ("granularity", "sizes"), [("channel", (4, 6)), ("layer", (1, 1)), ("element", (4 * 5 * 5, 6))]
)
def test_granularity(granularity: str, sizes: tuple[int, int]):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(100, 6), nn.Tanh())
    agile, report = converted(model, torch.randn(2, 3, 5, 5), granularity=granularity)
    assert tuple(site.channels for site in report.converted) == sizes
    assert tuple(agile[i].num_parameters for i in (1, 4)) == sizes  # type: ignore[index]


def test_terms():
    x = torch.randn(2, 3)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), Swish())
    agile, _ = ag.convert(model, example_inputs=x, terms=3)
    assert isinstance(agile[1], ag.CombinedAgile)  # type: ignore[index]
    assert isinstance(agile[2], ag.AgileWrapped)  # type: ignore[index]
    assert agile[1].scale.numel() == agile[2].scale.numel() == 12  # type: ignore[index]
    assert torch.equal(agile(x), model(x))
    assert repr(ag.revert(agile)) == repr(model)


def test_a_given_axis():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    _, report = converted(model, torch.randn(2, 5, 4), dim=1)
    assert sites(report) == {"1": ("relu", 5, 1)}


def test_one_place_with_several_numbers_of_channels():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 5)])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = F.relu(layer(x))
            return x

    x = torch.randn(2, 3)
    _, report = converted(Net(), x, sharing="shared")
    assert "4 and 5 channels" in report.skipped[0].reason
    _, report = converted(Net(), x, granularity="layer", sharing="shared")
    assert len(report.converted) == 1
    _, report = converted(Net(), x)
    assert [site.channels for site in report.converted] == [4, 5]


def test_without_an_example():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.Sequential(nn.Tanh()), nn.PReLU())
    x = torch.randn(2, 3)
    for options in ({"dim": 1}, {"granularity": "layer"}, {"granularity": "element"}):
        agile, report = ag.convert(model, **options)
        assert [site.name for site in report.converted] == ["1", "3.0"]
        assert "only activation modules" in report.note
        assert torch.equal(agile(x), model(x))
        assert repr(ag.revert(agile)) == repr(model)


def test_models_with_nothing_to_convert():
    for model in (nn.Linear(3, 4), ag.AgileReLU(3)):
        agile, report = ag.convert(model, example_inputs=torch.randn(2, 3))
        assert repr(agile) == repr(model)
        assert not report.converted
        assert str(report).startswith("0 converted")


def test_in_inference_mode():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with torch.inference_mode():
        agile, _ = ag.convert(model, example_inputs=torch.randn(2, 3), inplace=True)
    agile(torch.randn(2, 3)).sum().backward()
    assert agile[1].scale.grad is not None  # type: ignore[index]


def test_examples_of_every_form():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: Tensor, *, shift: float = 0.0) -> dict[str, Any]:
            return {"y": (torch.relu(self.layer(x) + shift), None), "n": 3}

    x = torch.randn(2, 3)
    for example in (x, (x,), {"x": x, "shift": 0.5}):
        agile, report = ag.convert(Net(), example_inputs=example)
        assert len(report.converted) == 1
        assert set(agile(x)) == {"y", "n"}


def test_the_report_prints_as_a_table():
    _, report = converted(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Softmax(1)), torch.randn(2, 3))
    lines = str(report).splitlines()
    assert lines[0] == "1 converted, 1 skipped"
    assert lines[1].split() == ["name", "base", "status", "channels", "dim", "was", "reason"]
    assert "axis" in lines[4]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"example_inputs": None}, ag.ArgumentError, "pass example_inputs"),
        ({"example_inputs": [1]}, ag.ArgumentTypeError, "a tensor, a tuple"),
        ({"base": "rellu"}, ag.ArgumentError, "did you mean"),
        ({"base": {"beta": 1.0}}, ag.ArgumentError, "'name'"),
        ({"base": {"name": "relu", "beta": 1.0}}, ag.ArgumentError, "no option"),
        ({"base": 3}, ag.ArgumentTypeError, "base must be"),
        ({"granularity": "pixel"}, ag.ArgumentError, "granularity"),
        ({"sharing": "none"}, ag.ArgumentError, "sharing"),
        ({"terms": 0}, ag.ArgumentError, "terms"),
        ({"terms": 1.5}, ag.ArgumentTypeError, "terms"),
        ({"dim": "last"}, ag.ArgumentTypeError, "dim"),
        ({"filter_fn": "relu"}, ag.ArgumentTypeError, "filter_fn"),
    ],
    ids=str,
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], words: str):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with pytest.raises(error, match=words):
        ag.convert(model, **{"example_inputs": torch.randn(2, 3), **arguments})
    assert isinstance(model[1], nn.ReLU)


def test_no_module():
    with pytest.raises(ag.ArgumentTypeError, match="model must be"):
        ag.convert(torch.relu, example_inputs=torch.randn(2, 3))  # type: ignore[arg-type]
    with pytest.raises(ag.ArgumentTypeError, match="model must be"):
        ag.revert(3)  # type: ignore[arg-type]


def test_a_model_that_is_not_the_same_twice():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.relu, self.count = nn.Linear(3, 4), nn.ReLU(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return self.relu(self.layer(x)) + self.count  # type: ignore[no-any-return]

    model = Net()
    with pytest.raises(ag.ConversionError, match="same outputs twice"):
        ag.convert(model, example_inputs=torch.randn(2, 3), inplace=True)
    assert isinstance(model.relu, nn.ReLU)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_model_that_updates_a_parameter_in_evaluation(inplace: bool):
    """As a power iteration does that forgets to look at the mode."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.relu = nn.Linear(3, 4), nn.ReLU()
            self.u = nn.Parameter(torch.randn(4), requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.layer.weight
            with torch.no_grad():
                v = F.normalize(weight.t() @ self.u, dim=0)
                self.u.copy_(F.normalize(weight @ v, dim=0))
            return self.relu(self.layer(x) / torch.dot(self.u, weight @ v))  # type: ignore[no-any-return]

    with pytest.raises(ag.ConversionError, match="each run changes u, also in evaluation mode") as caught:
        ag.convert(Net(), example_inputs=torch.randn(2, 3), inplace=inplace)
    assert "deterministic" not in str(caught.value)


def test_a_model_that_looks_at_its_modules_is_refused_and_left_as_it_was():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.relu, self.tanh = nn.Linear(3, 4), nn.ReLU(), nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            y = torch.sigmoid(self.relu(self.layer(x)))
            return self.tanh(y) * (2.0 if isinstance(self.relu, nn.ReLU) else 3.0)  # type: ignore[no-any-return]

    model = Net()
    with pytest.raises(ag.ConversionError, match="conversion of relu"):
        ag.convert(model, example_inputs=torch.randn(2, 3), inplace=True)
    assert type(model) is Net
    assert [type(module) for module in model.children()] == [nn.Linear, nn.ReLU, nn.Tanh]


def test_without_values():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 2))
    agile, report = ag.convert(model, example_inputs=torch.empty(3, 5, device="meta"))
    assert sites(report) == {"1": ("gelu", 6, -1)}
    assert all(parameter.is_meta for parameter in agile.parameters())
    assert [site.scale for site in ag.lint(agile, torch.empty(3, 5, device="meta")).sites] == ["only reparametrises"]
    with pytest.raises(ag.ArgumentError, match=r"fold needs values, but 0\.weight is on the meta device"):
        ag.fold(agile, torch.empty(3, 5, device="meta"))
    with pytest.raises(ag.ArgumentError, match=r"calibrate needs values, but 0\.weight"):
        ag.calibrate(agile, torch.empty(3, 5, device="meta"))
