"""Models and tensors of unusual kinds: converted, or refused in one line that says what works."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag
from tests.transforms.converting import converted
from tests.transforms.random_models import set_pairs


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class _Sparse(nn.Module):
    """A sparse buffer, as Whisper has, and a product with it."""

    heads: Tensor

    def __init__(self, layout: torch.layout, uses: bool) -> None:
        super().__init__()
        self.layer, self.uses = nn.Linear(3, 4), uses
        dense = torch.eye(2) * 2
        self.register_buffer("heads", dense.to_sparse() if layout is torch.sparse_coo else dense.to_sparse_csr())

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.layer(x))
        return torch.sparse.mm(self.heads, y) if self.uses else y


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr], ids=str)
@pytest.mark.parametrize("uses", [False, True])
def test_a_sparse_buffer(layout: torch.layout, uses: bool):
    model, x = _Sparse(layout, uses), torch.randn(2, 3)
    agile, report = ag.convert(model, example_inputs=x)
    assert len(report.converted) == 1
    assert torch.equal(agile(x), model(x))
    assert torch.equal(agile.heads.to_dense(), model.heads.to_dense())  # type: ignore[operator]


class _ActivatedSparse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x.to_sparse()).to_dense() + torch.tanh(x)


def test_an_activation_of_a_sparse_tensor_is_left():
    _, report = converted(_ActivatedSparse(), torch.randn(2, 3))
    assert [site.base for site in report.converted] == ["tanh"]
    assert "sparse" in report.skipped[0].reason


LAYOUTS = pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)


def _nested(layout: torch.layout) -> Tensor:
    parts = [torch.randn(2, 3), torch.randn(4, 3)]
    return torch.nested.nested_tensor(parts, layout=layout)


@LAYOUTS
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_example_is_refused_in_one_line(layout: torch.layout):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with pytest.raises(
        ag.ArgumentTypeError, match=r"^example_inputs holds a nested tensor.*to_padded_tensor"
    ) as caught:
        ag.convert(model, example_inputs=_nested(layout))
    assert "\n" not in str(caught.value)


@LAYOUTS
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_inside_is_left_and_the_rest_converted(layout: torch.layout):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.relu, self.tanh = nn.Linear(3, 4), nn.ReLU(), nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            parts = torch.nested.nested_tensor([x, x[:1]], layout=layout)
            return self.tanh(self.relu(self.layer(parts)).to_padded_tensor(0.0))  # type: ignore[no-any-return]

    model, x = Net(), torch.randn(2, 3)
    agile, report = ag.convert(model, example_inputs=x, granularity="layer")
    assert [site.name for site in report.converted] == ["tanh"]
    assert "nested" in report.skipped[0].reason
    assert torch.equal(agile(x), model(x))


@LAYOUTS
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_agile_module_has_one_answer_to_nested_tensors(layout: torch.layout, moved: bool):
    for module in (ag.AgileReLU(3, dim=-1), ag.CombinedAgile("tanh", 3, dim=-1), ag.AgileWrapped(torch.sin, 3, dim=-1)):
        if moved:
            set_pairs(module, 0)
        with pytest.raises(ag.ArgumentTypeError, match="nested"):
            module(_nested(layout))


class _TwoNames(nn.Module):
    """A norm, or a convolution, that runs under its second name."""

    def __init__(self, norm: nn.Module, which: str) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), norm
        if which == "conv":
            self.body = nn.Sequential(self.conv, nn.InstanceNorm2d(4), nn.Tanh(), nn.Conv2d(4, 2, 1))
        else:
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), self.norm, nn.Tanh(), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("which", ["conv", "norm"])
@pytest.mark.parametrize(
    "norm",
    [nn.InstanceNorm2d(4), nn.InstanceNorm2d(4, affine=True), nn.BatchNorm2d(4, affine=False), nn.GroupNorm(2, 4)],
    ids=["instance", "instance affine", "batch", "group"],
)
def test_a_layer_under_two_names_converts_and_folds(norm: nn.Module, which: str):
    x = torch.randn(2, 3, 6, 6)
    agile, report = converted(_TwoNames(norm, which), x)
    assert len(report.converted) == 1
    set_pairs(agile, 1)
    plain, _ = ag.fold(agile, x)
    torch.testing.assert_close(plain(x), agile(x), rtol=1e-5, atol=1e-5)


class _Lambda(nn.Module):
    """A closure over the model itself: a copy of the model would run the original's modules."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.fc, self.act, self.out = nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)
        self.hooked = 0
        if kind == "lambda":
            self.run = lambda x: self.out(self.act(self.fc(x)))
        elif kind == "inner function":

            def run(x: Tensor) -> Tensor:
                return self.out(F.relu(self.fc(x)))  # type: ignore[no-any-return]

            self.run = run
        elif kind == "one module":
            act = self.act
            self.run = lambda x: act(x)
        else:
            self.table = {"act": lambda x: self.act(x)}
            self.run = lambda x: x

    def forward(self, x: Tensor) -> Tensor:
        if self.out.in_features == x.shape[-1]:
            return self.out(self.run(x))  # type: ignore[no-any-return]
        x = self.table["act"](x) if hasattr(self, "table") else x
        return self.run(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["lambda", "inner function", "one module", "in a dict"])
def test_a_closure_over_the_model_is_refused_by_a_copy_and_works_in_place(kind: str):
    model, x = _Lambda(kind), torch.randn(2, 3)
    expected = model(x)
    with pytest.raises(ag.ConversionError, match="holds on to it, such as a lambda"):
        ag.convert(model, example_inputs=x)
    assert type(model.act) is nn.ReLU
    if kind == "lambda":
        agile, report = ag.convert(model, example_inputs=x, inplace=True)
        assert len(report.converted) == 1
        assert torch.equal(agile(x), expected)
        # The plain copy would run the agile module of the original, and hide what it is.
        for way_out in (ag.fold, ag.lint):
            with pytest.raises(ag.FoldError, match="not in the model"):
                way_out(agile, x)


class _Hidden(nn.Module):
    """A network in a list, so that its parameters are not the model's: a copy has a copy of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.relu = nn.Linear(3, 4), nn.ReLU()
        self.teacher = [nn.Sequential(nn.Linear(3, 4), nn.Tanh())]

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.layer(x)) - self.teacher[0](x)  # type: ignore[no-any-return]


def test_a_network_that_is_kept_out_of_the_model_stays_as_it_is():
    agile, report = converted(_Hidden(), torch.randn(2, 3))
    assert [site.name for site in report.converted] == ["relu"]
    assert isinstance(agile.teacher[0][1], nn.Tanh)  # type: ignore[index]
    assert any(site.base == "tanh" and site.reason for site in report.skipped)


@torch.jit.script
def _scripted_relu(x: Tensor) -> Tensor:
    return torch.relu(x)


def test_a_scripted_function_is_named_also_where_it_may_not_run():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.kept = nn.Linear(3, 4), _scripted_relu

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.tanh(self.layer(x))
            return y if len(x) else _scripted_relu(self.kept(y))

    _, report = ag.convert(Net(), example_inputs=torch.randn(2, 3))
    assert [site.base for site in report.converted] == ["tanh"]
    assert sorted(site.base for site in report.skipped) == ["_scripted_relu", "kept"]
    for site in report.skipped:
        assert site.reason.startswith("it is scripted: whether it runs and what it does cannot be seen; convert first")
