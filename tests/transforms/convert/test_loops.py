"""A call in a loop over layers: a pair for each turn, in the order of the run."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag
from agileact.transforms import restore_site
from tests.transforms.converting import converted, sites
from tests.transforms.random_models import set_pairs

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


class _Layers(nn.Module):
    def __init__(self, widths: tuple[int, ...] = (3, 4, 6, 2)) -> None:
        super().__init__()
        torch.manual_seed(0)
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairs)


class For(_Layers):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class Documented(_Layers):
    def forward(self, x: Tensor) -> Tensor:
        """Begins with a text."""
        for layer in self.layers:
            x = layer(x).tanh()
        return x


class Enumerated(_Layers):
    def forward(self, x: Tensor) -> Tensor:
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index < last:
                x = F.leaky_relu(
                    x,
                    0.2,
                )
        return x


class If(_Layers):
    def forward(self, x: Tensor, *, deep: bool = True) -> Tensor:
        if deep:
            for layer in self.layers:
                x = torch.sigmoid(F.elu(layer(x)) + 1)
        return x


class While(_Layers):
    def forward(self, x: Tensor) -> Tensor:
        left = list(self.layers)
        while left:
            x = F.silu(left.pop(0)(x))
        return x


class Comprehension(_Layers):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.gelu(layer(x)) for layer in self.layers], 1)


class With(_Layers):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autograd.profiler.record_function("layers"):
            for layer, slope in zip(self.layers, (0.1, 0.2, 0.3), strict=True):
                x = F.leaky_relu(layer(x), slope)
        return x


class Method(_Layers):
    """The loop is in a method that runs twice."""

    def inner(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.inner(x + 1)


class OneModule(_Layers):
    """One module for all turns: it has one name, and widths that may differ."""

    def __init__(self, widths: tuple[int, ...] = (3, 4, 6, 2)) -> None:
        super().__init__(widths)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.act(layer(x))
        return x


class OneModuleBefore(OneModule):
    """It is called before the loop, too: that call keeps its name."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(x)
        for layer in self.layers:
            x = self.act(layer(x))
        return x


LOOPS: dict[str, tuple[type[_Layers], tuple[int, ...], dict[str, int]]] = {
    "for": (For, (3, 4, 6, 2), {"relu.0": 4, "relu.1": 6, "relu.2": 2}),
    "documented": (Documented, (3, 4, 6, 2), {"tanh.0": 4, "tanh.1": 6, "tanh.2": 2}),
    "enumerated": (Enumerated, (3, 4, 4, 2), {"leaky_relu.0": 4, "leaky_relu.1": 4}),
    "if": (
        If,
        (3, 4, 6, 2),
        {"elu.0": 4, "sigmoid.0": 4, "elu.1": 6, "sigmoid.1": 6, "elu.2": 2, "sigmoid.2": 2},
    ),
    "while": (While, (3, 4, 6, 2), {"silu.0": 4, "silu.1": 6, "silu.2": 2}),
    "comprehension": (Comprehension, (3, 3, 3, 3), {"gelu.0": 3, "gelu.1": 3, "gelu.2": 3}),
    "with": (With, (3, 4, 6, 2), {"leaky_relu.0": 4, "leaky_relu.1": 6, "leaky_relu.2": 2}),
    "one module": (OneModule, (3, 4, 6, 2), {"act_2.0": 4, "act_2.1": 6, "act_2.2": 2}),
    "one module before": (OneModuleBefore, (3, 4, 6, 2), {"act": 3, "act_2.0": 4, "act_2.1": 6, "act_2.2": 2}),
    "method": (Method, (3, 4, 6, 3), {"relu.0": 4, "relu.1": 6, "relu.2": 3}),
}


@pytest.mark.parametrize("name", LOOPS)
def test_each_turn_has_a_pair_of_its_own(name: str):
    kind, widths, expected = LOOPS[name]
    model = kind(widths)
    agile, report = converted(model, X)
    assert not report.skipped
    assert {site: found[1] for site, found in sites(report).items()} == expected
    assert list(sites(report)) == list(expected), "in the order of the run"
    set_pairs(agile, 0, negative=False, zero=False)
    with torch.no_grad():
        for module in agile.modules():
            if isinstance(module, ag.AgileModule):
                module.location.sub_(1.0)
    for other in (copy.deepcopy(agile), pickle.loads(pickle.dumps(agile))):
        assert torch.equal(other(X), agile(X))
    first = agile.get_submodule(next(iter(expected)))
    before = agile(X)
    with torch.no_grad():
        first.scale.zero_()  # type: ignore[operator]
    assert not torch.equal(agile(X), before), "the first turn has the first pair"
    plain = ag.revert(agile)
    assert [type(one) for one in plain.modules()] == [type(one) for one in model.modules()]
    assert torch.equal(plain(X), model(X))


def test_the_equation_turn_by_turn():
    model = For()
    agile, _ = ag.convert(model, example_inputs=X)
    set_pairs(agile, 3)
    y: Any = X
    turns: Any = agile.relu
    for layer, pair in zip(model.layers, turns, strict=True):
        y = pair.scale * torch.relu(layer(y) - pair.location)
    torch.testing.assert_close(agile(X), y)


@pytest.mark.parametrize("name", ["for", "if", "comprehension", "one module"])
def test_loops_compile_and_export(name: str):
    kind, widths, _ = LOOPS[name]
    agile, _ = ag.convert(kind(widths), example_inputs=X)
    compiled = torch.compile(agile, fullgraph=True, backend="eager")
    assert torch.equal(compiled(X), agile(X))
    assert torch.equal(torch.export.export(agile, (X,)).module()(X), agile(X))


def test_turns_go_back_one_by_one_and_fold():
    model = For()
    agile, report = ag.convert(model, example_inputs=X)
    for order in (sites(report), list(sites(report))[::-1]):
        one, _ = ag.convert(model, example_inputs=X)
        for name in order:
            restore_site(one, name)
            assert torch.equal(one(X), model(X))
        assert type(one) is For
    set_pairs(agile, 1, negative=False, zero=False)
    plain, folding = ag.fold(agile, X)
    assert len(folding.folded) == 3, str(folding)
    torch.testing.assert_close(plain(X), agile(X))


class _Recurrent(nn.Module):
    """A loop over time: one layer, and so one pair, for as many steps as there are."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(3 + 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4)
        for step in range(x.shape[1]):
            h = torch.tanh(self.cell(torch.cat([x[:, step], h], 1)))
        return h


def test_a_loop_over_time_keeps_one_pair():
    agile, report = converted(_Recurrent(), torch.randn(2, 5, 3))
    assert [(site.name, site.channels) for site in report.converted] == [("tanh", 4)]
    assert "called 5 times" in report.converted[0].reason
    assert agile(torch.randn(2, 9, 3)).shape == (2, 4)


class _Changing(_Layers):
    """The number of turns changes from run to run of the method."""

    def inner(self, x: Tensor, depth: int) -> Tensor:
        for layer in self.layers[:depth]:
            x = F.relu(layer(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, 2).sum() + self.inner(x, 3)


def test_a_changing_number_of_turns():
    _, report = converted(_Changing(), X)
    assert not report.converted
    assert "granularity='layer'" in report.skipped[0].reason
    _, report = converted(_Changing((3, 3, 3, 3)), X)
    assert [site.name for site in report.converted] == ["relu"]


def test_shared_keeps_one_pair_for_all_turns():
    _, report = converted(For((3, 4, 4, 4)), X, sharing="shared")
    assert [(site.name, site.channels) for site in report.converted] == [("relu", 4)]


def test_more_turns_than_pairs_are_an_error_that_says_so():
    agile, _ = ag.convert(For((3, 3, 3)), example_inputs=X)
    layers: Any = agile.layers
    layers.append(nn.Linear(3, 3))
    with pytest.raises(IndexError, match="2 is out of range"):
        agile(X)


class _Alias(OneModule):
    def forward(self, x: Tensor) -> Tensor:
        for layer, act in zip(self.layers, [self.act] * 3, strict=True):
            x = act(layer(x))
        return x


def test_one_module_for_all_turns_goes_back_folds_and_is_not_found_again():
    model = OneModule()
    agile, _ = converted(model, X)
    _, report = converted(agile, X)
    assert [(site.name, site.status) for site in report.sites][-1] == ("act", "skipped")
    assert report.sites[-1].reason == "agile modules are called in its place"
    set_pairs(agile, 1, negative=False, zero=False)
    plain, folding = ag.fold(agile, X)
    assert [site.status for site in folding.sites] == ["folded"] * 3
    torch.testing.assert_close(plain(X), agile(X))
    _, shared = converted(OneModule((3, 4, 4, 4)), X, sharing="shared")
    assert [(site.name, site.channels) for site in shared.converted] == [("act", 4)]


def test_turns_that_the_source_does_not_show_share_a_pair_or_say_why_not():
    _, report = converted(_Alias((3, 4, 4, 4)), X)
    assert [site.name for site in report.converted] == ["act"]
    assert "its 3 uses share one pair: it is called as act, and what that is can change" in report.converted[0].reason
    _, report = converted(_Alias(), X)
    assert "one place is called with 2 and 4 and 6 channels" in report.skipped[0].reason
    assert "it is called as act" in report.skipped[0].reason
