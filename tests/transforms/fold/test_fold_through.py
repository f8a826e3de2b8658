"""Weights that are turned, cut, computed or contracted, rows that are picked and added, modules with two names."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import agileact as ag
from tests.transforms.folding import DOUBLE, checked, drawn, sequence, statuses

X = torch.randn(5, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(4))


class Weighted(nn.Module):
    """A hidden layer by a layer of torch, and its activation; then a product with a parameter."""

    def __init__(self, product: Callable[..., Tensor], *shapes: tuple[int, ...], before: bool = False) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(6, 8), ag.AgileTanh(8)
        self.product = product
        self.weights = nn.ParameterList([torch.randn(shape) for shape in shapes])

    def forward(self, x: Tensor) -> Tensor:
        return self.product(self.act(self.fc(x)), *self.weights)


PRODUCTS: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "to a dtype": (lambda h, w: F.linear(h, w.to(h.dtype)), ((3, 8),)),
    "type_as, contiguous": (lambda h, w: F.linear(h, w.type_as(h).contiguous()), ((3, 8),)),
    "w.T": (lambda h, w: h @ w.T, ((3, 8),)),
    "w.t()": (lambda h, w: F.linear(h, w.t()), ((8, 3),)),
    "w.mT": (lambda h, w: torch.matmul(h, w.mT), ((3, 8),)),
    "permute and reshape": (lambda h, w: h @ w.permute(1, 0, 2).reshape(8, 6), ((2, 8, 3),)),
    "half of a weight": (lambda h, w: h @ w[:, :3], ((8, 6),)),
    "both halves": (lambda h, w: torch.stack([F.linear(h, part) for part in w.chunk(2)]), ((6, 8),)),
    "the weight first": (lambda h, w: w @ h.T, ((3, 8),)),
    "einsum": (lambda h, w: torch.einsum("bi,oi->bo", h, w), ((3, 8),)),
    "einsum, weight first": (lambda h, w: torch.einsum("io,bi->ob", w, h), ((8, 3),)),
    "einsum in groups": (lambda h, w: torch.einsum("bgi,gio->bgo", h.view(5, 2, 4), w), ((2, 4, 3),)),
    "einsum over two axes": (lambda h, w: torch.einsum("bgi,ogi->bo", h.view(5, 2, 4), w), ((3, 2, 4),)),
    "einsum with an ellipsis": (lambda h, w: torch.einsum("...i,oi->...o", h.view(5, 1, 8), w), ((3, 8),)),
    "einsum with two": (lambda h, w: torch.einsum("...gi,...gio->...o", h.view(5, 2, 4), w), ((2, 4, 3),)),
    "einsum without an arrow": (lambda h, w: torch.einsum("bi,io", h, w), ((8, 3),)),
    "addmm": (lambda h, b, w: torch.addmm(b, h, w), ((3,), (8, 3))),
    "addmm of a transposed": (lambda h, b, w: torch.addmm(b, h, w.t()), ((3,), (3, 8))),
    "bmm": (lambda h, w: torch.bmm(h.view(5, 2, 4).transpose(0, 1), w), ((2, 4, 3),)),
    "baddbmm": (lambda h, b, w: torch.baddbmm(b, h.view(5, 2, 4).transpose(0, 1), w), ((2, 1, 3), (2, 4, 3))),
    "matmul of a stack": (lambda h, w: h.view(5, 2, 4).transpose(0, 1) @ w, ((2, 4, 3),)),
    "matmul of one for a stack": (lambda h, w: torch.stack([h, h + 0]) @ w, ((8, 3),)),
    "a bias that is cast": (lambda h, b, w: F.linear(h, w, b.to(h.dtype)), ((3,), (3, 8))),
}


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_scale_goes_into(name: str, negative: bool):
    product, shapes = PRODUCTS[name]
    model = drawn(Weighted(product, *shapes).double(), negative=negative)
    _, report = checked(model, X)
    assert statuses(report) == ["folded"], report


@pytest.mark.parametrize("name", ["w.T", "einsum in groups", "addmm", "baddbmm", "the weight first"])
def test_a_scale_of_zero_goes_into(name: str):
    product, shapes = PRODUCTS[name]
    model = drawn(Weighted(product, *shapes).double())
    with torch.no_grad():
        model.act.scale[::3] = 0
    assert statuses(checked(model, X)[1]) == ["folded"]


STAYS: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...], str]] = {
    "a weight used twice": (lambda h, w: h @ w + F.linear(h, w), ((8, 8),), "shared"),
    "a turned weight used twice": (lambda h, w: (lambda t: h @ t + h.exp() @ t)(w.T), ((3, 8),), "shared"),
    "one weight for all": (lambda h, w: h @ w.expand(8, 8), ((1, 8),), "shared"),
    "a computed weight": (lambda h, w: h @ w.exp(), ((8, 3),), "computed"),
    "a diagonal": (lambda h, w: torch.einsum("bi,ii->bi", h, w), ((8, 8),), "einsum"),
    "a product of two signals": (lambda h, w: torch.einsum("bi,ci->bc", h, h) @ w, ((5, 3),), "einsum"),
    "addmm with a factor": (lambda h, b, w: torch.addmm(b, h, w, alpha=2), ((3,), (8, 3)), "addmm"),
    "a channel in two halves": (lambda h, w: h.view(10, 4) @ w, ((4, 3),), "meets other signals"),
}


@pytest.mark.parametrize("name", STAYS)
def test_a_scale_stays_before(name: str):
    product, shapes, why = STAYS[name]
    _, report = checked(drawn(Weighted(product, *shapes).double()), X)
    assert report.sites[0].kept == ("scale",)
    assert why in report.sites[0].reason


class Placed(nn.Module):
    """Products and sums with parameters in front of the activation, which take its location."""

    def __init__(self, product: Callable[..., Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.weights = nn.ParameterList([torch.randn(shape) for shape in shapes])
        self.product, self.act, self.head = product, ag.AgileReLU(8, dim=-1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.act(self.product(x, *self.weights)))
        return y


BIASES: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "addmm": (lambda x, w, b: torch.addmm(b, x, w), ((6, 8), (8,))),
    "baddbmm": (lambda x, w, b: torch.baddbmm(b, x.expand(2, 5, 6), w), ((2, 6, 8), (2, 1, 8))),
    "a cast bias": (lambda x, w, b: F.linear(x, w.t(), b.to(x.dtype)), ((6, 8), (8,))),
    "a cut bias": (lambda x, w, b: x @ w + b[2:], ((6, 8), (10,))),
    "a turned bias": (lambda x, w, b: x @ w + b.T, ((6, 8), (8, 1))),
    "picked rows": (lambda x, w, b: (x @ w + b)[torch.tensor([0, 2, 2, 1])], ((6, 8), (8,))),
    "masked rows": (lambda x, w, b: (x @ w + b)[torch.arange(5) > 1], ((6, 8), (8,))),
    "selected rows": (lambda x, w, b: torch.index_select(x @ w + b, 0, torch.tensor([3, 1])), ((6, 8), (8,))),
    "pairs of rows": (lambda x, w, b: (x @ w + b)[torch.tensor([[0, 1], [2, 4]])], ((6, 8), (8,))),
}


@pytest.mark.parametrize("name", BIASES)
def test_a_location_goes_into(name: str):
    product, shapes = BIASES[name]
    _, report = checked(drawn(Placed(product, *shapes).double()), X)
    assert statuses(report) == ["folded"], report
    assert report.sites[0].location_into == ("weights.1",)


class Graph(nn.Module):
    """A network over nodes and edges, as PyTorch Geometric computes it: messages are picked, summed and used."""

    def __init__(self, gathering: Callable[[Tensor, Tensor, Tensor], Tensor], base: str = "tanh") -> None:
        super().__init__()
        self.one, self.act = nn.Linear(6, 8), ag.Agile(base, 8)
        self.two, self.out, self.head = nn.Linear(8, 8), ag.AgileReLU(8), nn.Linear(8, 2)
        self.gathering = gathering
        self.edges: Tensor
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]]))

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.one(x))
        h = self.gathering(h, self.edges[0], self.edges[1])
        y: Tensor = self.head(self.out(self.two(h)))
        return y


def _scattered(reduce: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def gathering(h: Tensor, source: Tensor, target: Tensor) -> Tensor:
        index = target.view(-1, 1).expand(-1, h.shape[-1])
        return torch.zeros_like(h).scatter_reduce(0, index, h[source], reduce)

    return gathering


GATHERINGS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "index_add": lambda h, s, t: torch.zeros(5, 8, dtype=h.dtype).index_add(0, t, h.index_select(0, s)),
    "index_add_": lambda h, s, t: h.new_zeros(5, 8).index_add_(0, t, h[s]),
    "scatter_add": lambda h, s, t: h.new_zeros(5, 8).scatter_add_(0, t.view(-1, 1).expand(-1, 8), h[s]),
    "sum": _scattered("sum"),
    "mean": _scattered("mean"),
    "amax": _scattered("amax"),
    "itself and its neighbours": lambda h, s, t: h.index_add(0, t, h[s]),
    "gather": lambda h, s, t: h.gather(0, s[:, None].expand(-1, 8)),
    "where": lambda h, s, t: torch.where((s < 3)[:5, None], h, torch.zeros_like(h)),
    "maximum with zeros": lambda h, s, t: torch.maximum(h, torch.zeros_like(h)),
    "difference of both ends": lambda h, s, t: h[s] - h[t],
    "rows of a batch": lambda h, s, t: torch.stack([h, h * 2])[:, s].flatten(0, 1),
}


@pytest.mark.parametrize("name", GATHERINGS)
def test_rows_are_picked_and_added(name: str):
    model = drawn(Graph(GATHERINGS[name]).double())
    _, report = checked(model, X)
    assert statuses(report) == ["folded", "folded"], report
    with torch.no_grad():
        model.act.scale[::2] *= -1
        model.act.scale[1] = 0
    _, report = checked(model, X)
    assert (report.sites[0].status == "folded") == (name not in ("amax", "maximum with zeros"))


@pytest.mark.parametrize(
    ("gathering", "why"),
    [
        (lambda h, s, t: torch.ones(5, 8, dtype=h.dtype).index_add(0, t, h[s]), "stays as it is"),
        (lambda h, s, t: h.new_zeros(5, 8).scatter_reduce(0, t[:, None].expand(-1, 8), h[s], "prod"), "scatter_reduce"),
        (lambda h, s, t: h.new_zeros(5, 8).index_add(1, torch.arange(8).flip(0), h), "index_add"),
    ],
)
def test_rows_that_meet_others(gathering: Any, why: str):
    _, report = checked(drawn(Graph(gathering).double()), X)
    assert report.sites[0].kept == ("scale",)
    assert why in report.sites[0].reason


@pytest.mark.parametrize("norm", [weight_norm, nn.utils.weight_norm], ids=["parametrised", "by a hook"])
@pytest.mark.parametrize("kind", ["linear", "conv", "depthwise"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weight_norm_takes_a_scale_by_its_magnitude(norm: Any, kind: str):
    """A ReLU hands its scale to the layer before it; what a magnitude has no number for stays."""
    x = X if kind == "linear" else torch.randn(2, 6, 5, 5, dtype=DOUBLE)
    if kind == "linear":
        layers = [norm(nn.Linear(6, 8)), ag.AgileReLU(8), nn.Softplus()]
    else:
        groups = 6 if kind == "depthwise" else 1
        layers = [norm(nn.Conv2d(6, 12, 3, groups=groups)), ag.AgileReLU(12), nn.Softplus()]
    model = sequence(*layers)
    plain, report = ag.fold(model, x)
    assert statuses(report) == ["folded"], report
    assert report.sites[0].scale_into == ("0",)
    behind = sequence(nn.Linear(6, 8), ag.AgileTanh(8), norm(nn.Linear(8, 3)))
    stays, report = ag.fold(behind, X)
    assert report.sites[0].kept == ("scale",)
    assert "parametrised" in report.sites[0].reason
    for one, other, example in ((model, plain, x), (behind, stays, X)):
        torch.testing.assert_close(other(example), one(example), rtol=1e-12, atol=1e-13)


def test_a_depthwise_magnitude_takes_what_comes_in():
    model = sequence(nn.Conv2d(6, 6, 1), ag.AgileTanh(6), weight_norm(nn.Conv2d(6, 12, 3, groups=6)), nn.Softplus())
    _, report = checked(model, torch.randn(2, 6, 5, 5, dtype=DOUBLE))
    assert statuses(report) == ["folded"]


@pytest.mark.parametrize("norm", [spectral_norm, nn.utils.spectral_norm], ids=["parametrised", "by a hook"])
def test_spectral_norm_has_no_magnitude_but_a_bias(norm: Any):
    model = sequence(norm(nn.Linear(6, 8)), ag.AgileTanh(8), nn.Linear(8, 8), ag.AgileReLU(8), norm(nn.Linear(8, 3)))
    model.eval()
    plain, report = ag.fold(model, X)
    assert [site.kept for site in report.sites] == [(), ()]
    assert report.sites[0].location_into == ("0.bias",)
    torch.testing.assert_close(plain(X), model(X), rtol=1e-12, atol=1e-13)


def test_a_pruned_scale_folds_and_leaves_no_hook():
    model = sequence(nn.Linear(6, 8), ag.AgileTanh(8), nn.Linear(8, 3))
    prune.l1_unstructured(model[1], "scale", amount=0.5)
    prune.random_unstructured(model[1], "location", amount=0.5)
    expected = model(X)
    plain: Any
    plain, report = ag.fold(model, X)
    assert statuses(report) == ["folded"]
    torch.testing.assert_close(plain(X), expected, rtol=1e-12, atol=1e-13)
    assert not plain[1]._forward_pre_hooks
    assert "scale" not in dict(plain[1].named_buffers())
    stays = sequence(nn.Linear(6, 8), ag.AgileTanh(8))
    prune.l1_unstructured(stays[1], "scale", amount=0.5)
    plain, report = ag.fold(stays, X)
    assert report.sites[0].kept == ("scale",)
    torch.testing.assert_close(copy.deepcopy(plain)(X), stays(X), rtol=1e-12, atol=1e-13)


def test_a_scale_that_is_computed_folds_as_what_it_is():
    class Positive(nn.Module):
        def forward(self, raw: Tensor) -> Tensor:
            return F.softplus(raw)

    model = sequence(nn.Linear(6, 8), ag.AgileTanh(8), nn.Linear(8, 3))
    nn.utils.parametrize.register_parametrization(model[1], "scale", Positive())
    plain, report = ag.fold(model, X)
    assert statuses(report) == ["folded"]
    torch.testing.assert_close(plain(X), model(X), rtol=1e-12, atol=1e-13)


class TwoNames(nn.Module):
    """Modules that are registered twice and run once."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.act = ag.AgileReLU(8)
        self.fc, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.layers: Any
        if how == "sequential":
            self.net = nn.Sequential(self.fc, self.act, self.head)
        elif how == "list":
            self.layers = nn.ModuleList([self.fc, self.act, self.head])
        else:
            self.layers = nn.ModuleDict({"0": self.fc, "1": self.act, "2": self.head})
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "sequential":
            return self.net(x)  # type: ignore[no-any-return]
        for layer in self.layers if self.how == "list" else self.layers.values():
            x = layer(x)
        return x


@pytest.mark.parametrize("how", ["sequential", "list", "dict"])
def test_a_module_under_two_names_runs_once_and_folds(how: str):
    model = drawn(TwoNames(how).double())
    plain: Any
    plain, report = checked(model, X)
    assert statuses(report) == ["folded"]
    inside = plain.net[1] if how == "sequential" else plain.layers[1 if how == "list" else "1"]
    assert plain.act is inside
    (site,) = ag.lint(model, X).sites
    assert (site.scale, site.location) == ("only reparametrises", "only reparametrises")
    with torch.no_grad():
        model.act.scale[0] = -1
        model.act.location[1] = float("inf")
    plain, report = ag.fold(model, X)
    inside = plain.net[1] if how == "sequential" else plain.layers[1 if how == "list" else "1"]
    assert plain.act is inside
    assert report.sites[0].kept == ("location",)


def test_a_hook_before_a_module_sees_only_what_goes_in():
    seen: list[Tensor] = []
    model = sequence(nn.Linear(6, 8), ag.AgileTanh(8), nn.Linear(8, 3), ag.AgileReLU(3), nn.Linear(3, 2))
    model[2].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    plain, report = ag.fold(model, X)
    assert report.sites[0].kept == ("scale",)
    seen.clear()
    model(X)
    plain(X)
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-12, atol=1e-13)
    model = sequence(nn.Sequential(nn.Linear(6, 8), ag.AgileTanh(8)), nn.Linear(8, 3))
    model[0].register_forward_pre_hook(lambda module, args: None)
    _, report = checked(model, X)
    assert statuses(report) == ["folded"]


def _old_name(how: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def gathering(h: Tensor, source: Tensor, target: Tensor) -> Tensor:
        out = torch.zeros_like(h)
        if how == "index_add_":
            out.index_add_(0, target, h[source])
        elif how == "scatter_add_":
            out.scatter_add_(0, target.view(-1, 1).expand(-1, 8), h[source])
        elif how == "add_":
            out.add_(h)
        else:
            out += h
            out.mul_(2.0)
        return out

    return gathering


@pytest.mark.parametrize("how", ["index_add_", "scatter_add_", "add_", "twice"])
@pytest.mark.parametrize("last", [False, True])
def test_what_is_written_into_zeros_and_read_by_its_old_name(how: str, last: bool):
    model = drawn(Graph(_old_name(how)).double(), negative=True)
    if last:
        model.two, model.out, model.head = nn.Identity(), nn.Identity(), nn.Identity()
    _, report = checked(model, X)
    assert report.sites[0].status == ("partly folded" if last else "folded"), report
    assert not last or "the model returns it" in report.sites[0].reason


def test_a_view_of_what_is_overwritten_is_not_followed():
    def gathering(h: Tensor, source: Tensor, target: Tensor) -> Tensor:
        out = torch.zeros_like(h)
        rows = out[:4]
        out.index_add_(0, target, h[source])
        return rows

    _, report = checked(drawn(Graph(gathering).double()), X)
    assert report.sites[0].kept == ("scale",)
    assert "its memory is changed" in report.sites[0].reason
