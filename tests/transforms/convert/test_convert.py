"""What convert finds, and what it names instead."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag
from agileact.transforms.trace.activation_tables import MODULES
from tests.transforms.converting import (
    Attribute,
    Block,
    Cell,
    Functional,
    LSTMClassifier,
    OwnGELU,
    SqueezeExcite,
    Swish,
    converted,
    sites,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_module_of_torch(kind: Callable[..., nn.Module], dtype: torch.dtype):
    activation = kind(0.5, 1.0) if kind is nn.Threshold else kind()
    model = nn.Sequential(nn.Conv2d(2, 3, 1), activation).to(dtype)
    agile, report = converted(model, torch.randn(2, 2, 5, 5).to(dtype))
    assert sites(report) == {"1": (MODULES[kind], 3, 1)}  # type: ignore[index]
    # In half precision the sign of a zero that PyTorch's softshrink gives depends on where in memory it lies: there
    # the conversion sees other bits, and leaves the work to PyTorch's own module.
    assert isinstance(agile[1], ag.AgileWrapped) == (kind is nn.Softshrink and dtype.itemsize == 2)  # type: ignore[index]
    assert agile[1].scale.dtype == dtype  # type: ignore[index]
    assert type(ag.revert(agile)[1]) is kind  # type: ignore[index]


def test_options_are_kept():
    model = nn.Sequential(
        nn.Linear(3, 4),
        nn.LeakyReLU(0.3),
        nn.ELU(0.7),
        nn.Softplus(2.0, 5.0),
        nn.Hardtanh(-0.5, 0.25),
        nn.GELU("tanh"),
        nn.Threshold(0.1, -2.0),
    )
    agile, _ = converted(model, torch.randn(6, 3))
    assert [module.options for module in agile.modules() if isinstance(module, ag.AgileModule)] == [
        {"negative_slope": 0.3},
        {"alpha": 0.7},
        {"beta": 2.0, "threshold": 5.0},
        {"min_val": -0.5, "max_val": 0.25},
        {"approximate": "tanh"},
        {"threshold": 0.1, "value": -2.0},
    ]
    assert repr(ag.revert(agile)) == repr(model)


def test_options_that_no_base_function_takes_are_wrapped():
    agile, report = converted(nn.Sequential(nn.Linear(3, 4), nn.Softplus(beta=-1.0)), torch.randn(2, 3))
    assert isinstance(agile[1], ag.AgileWrapped)  # type: ignore[index]
    assert report.converted[0].base == "Softplus"


class _Renamed(nn.SiLU):
    pass


class _Doubled(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class _Hard(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu6 = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.relu6(x + 3) / 6  # type: ignore[no-any-return]


def test_subclasses_wrappers_and_modules_of_ones_own():
    model = nn.Sequential(nn.Linear(3, 4), _Renamed(), _Doubled(), Swish(), OwnGELU(), _Hard())
    agile, report = converted(model, torch.randn(5, 3))
    assert [type(module).__name__ for module in agile.children()][1:] == [
        "AgileSiLU",
        "AgileWrapped",
        "AgileWrapped",
        "AgileGELU",
        "AgileWrapped",
    ]
    assert [site.base for site in report.sites] == ["silu", "_Doubled", "Swish", "gelu", "_Hard"]
    assert [type(module) for module in ag.revert(agile).children()] == [type(module) for module in model]


class _Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5) / 0.25


class _Learned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.slope * x)


def test_arithmetic_is_no_activation_and_learned_ones_are_not_wrapped():
    _, report = converted(nn.Sequential(_Scaled(), nn.Linear(3, 4), _Learned()), torch.randn(5, 3))
    assert not report.converted
    assert [(site.base, site.name) for site in report.skipped] == [("sigmoid", "2")]


def test_a_container_of_activations_is_not_one():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.ReLU(), nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))  # type: ignore[no-any-return]

    _, report = converted(nn.Sequential(nn.Linear(3, 4), Both()), torch.randn(5, 3))
    assert list(sites(report)) == ["1.first", "1.second"]


def test_functions_and_methods():
    agile, report = converted(Functional(), torch.randn(4, 5))
    assert sites(report) == {
        "leaky_relu": ("leaky_relu", 6, -1),
        "elu": ("elu", 6, -1),
        "relu": ("relu", 7, -1),
        "sigmoid": ("sigmoid", 7, -1),
        "tanh": ("tanh", 7, -1),
    }
    assert not report.skipped
    with torch.no_grad():
        agile.elu.scale.fill_(0.0)  # type: ignore[union-attr, operator]
    plain = Functional()
    plain.load_state_dict(ag.revert(agile).state_dict())
    x = torch.randn(4, 5)
    expected = torch.relu(plain.second(torch.zeros(4, 6))) + 1
    assert torch.equal(agile(x), expected.sigmoid().tanh())


def test_behind_a_linear_layer_the_channels_are_last_however_many_axes_there_are():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    agile, _ = converted(model, torch.randn(2, 3))
    tanh = agile.get_submodule("1")
    assert isinstance(tanh, ag.AgileTanh)
    with torch.no_grad():
        tanh.location.copy_(torch.arange(4.0))
    x = torch.randn(2, 4, 3)  # as many rows as channels: the wrong axis would not be noticed
    # Away from its start tanh is the kernel's own, which need not have PyTorch's last bit.
    torch.testing.assert_close(agile(x), torch.tanh(model[0](x) - torch.arange(4.0)), rtol=1e-6, atol=1e-6)


def test_attributes():
    model = Attribute()
    agile, report = converted(model, torch.randn(4, 3))
    assert sites(report) == {"activation": ("relu", 4, -1), "smooth": ("gelu", 4, -1)}
    assert type(agile) is Attribute
    plain = ag.revert(agile)
    assert plain.activation is F.relu
    assert list(plain.__dict__) == list(model.__dict__)


def test_one_activation_at_two_places():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Block(), Block())
    x = torch.randn(2, 3, 5, 5)
    agile, report = converted(model, x)
    assert list(sites(report)) == ["1.relu", "1.relu_2", "2.relu", "2.relu_2"]
    assert type(agile[1]) is type(agile[2]) is not Block  # type: ignore[index]
    assert isinstance(agile[1], Block)  # type: ignore[index]
    plain = ag.revert(agile)
    assert type(plain[1]) is Block  # type: ignore[index]
    assert list(plain.state_dict()) == list(model.state_dict())

    agile, report = converted(model, x, sharing="shared")
    assert list(sites(report)) == ["1.relu", "2.relu"]
    assert "called 2 times" in report.sites[0].reason
    assert type(agile[1]) is Block  # type: ignore[index]


@pytest.mark.parametrize("sharing", ["per_use", "shared"])
def test_one_instance_in_several_slots(sharing: str):
    activation = nn.ReLU()
    model = nn.Sequential(nn.Linear(3, 4), activation, nn.Sequential(nn.Linear(4, 4), activation))
    agile, report = converted(model, torch.randn(2, 3), sharing=sharing)
    assert len(report.converted) == (2 if sharing == "per_use" else 1)
    assert (agile[1] is agile[2][1]) == (sharing == "shared")  # type: ignore[index]
    plain = ag.revert(agile)
    assert plain[1] is plain[2][1]  # type: ignore[index]


def test_what_is_not_converted_is_shared_as_before():
    activation = nn.ReLU()
    model = nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 4), activation, nn.PReLU())
    agile, _ = converted(model, torch.randn(2, 3), filter_fn=lambda module, name: False)
    assert agile[1] is agile[3]  # type: ignore[index]


def test_a_block_used_several_times_shares_as_its_weights():
    block = Block()
    model = nn.Sequential(nn.Conv2d(3, 4, 1), block, block)
    agile, report = converted(model, torch.randn(2, 3, 5, 5))
    assert agile[1] is agile[2]  # type: ignore[index]
    assert list(sites(report)) == ["1.relu", "1.relu_2"]


@pytest.mark.parametrize("inplace", [False, True])
def test_an_activation_that_is_the_model(inplace: bool):
    model = nn.GELU()
    agile, report = ag.convert(model, example_inputs=torch.randn(2, 3), inplace=inplace)
    assert isinstance(agile, ag.AgileGELU)
    assert "by convention" in report.sites[0].reason
    assert isinstance(ag.revert(agile), nn.GELU)
    assert (ag.revert(agile, inplace=True) is model) == inplace


def test_a_sample_without_a_batch_has_a_pair_for_each_element():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
    agile, _ = ag.convert(model, example_inputs=torch.randn(4), granularity="element")
    assert [one.num_parameters for one in agile.modules() if isinstance(one, ag.AgileModule)] == [6]


def test_an_lstm_is_named():
    _, report = converted(LSTMClassifier(), torch.randint(0, 10, (3, 4)))
    assert sites(report) == {"head.1": ("tanh", 5, -1)}
    assert [(site.name, site.base) for site in report.skipped] == [("lstm", "LSTM")]
    assert "recurrent" in report.skipped[0].reason


def test_gates_are_named():
    _, report = converted(Cell(), torch.randn(2, 3, 3))
    assert not report.converted
    assert len(report.skipped) == 5
    assert all("gate" in site.reason for site in report.skipped)
    _, report = converted(SqueezeExcite(), torch.randn(2, 3, 5, 5))
    assert sites(report) == {"relu": ("relu", 2, -1)}
    assert "gate" in report.skipped[0].reason


@pytest.mark.parametrize(
    ("activation", "word"),
    [
        (nn.PReLU(), "learns"),
        (nn.RReLU(), "random"),
        (nn.GLU(1), "not elementwise"),
        (nn.Softmax(1), "not elementwise"),
        (torch.jit.script(nn.Sequential(nn.ReLU())), "scripted"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_agile_is_named(activation: nn.Module, word: str):
    # Not run in training mode: RReLU would differ from run to run.
    _, report = ag.convert(nn.Sequential(nn.Linear(3, 4), activation), example_inputs=torch.randn(2, 3))
    assert [site.status for site in report.sites] == ["skipped"]
    assert word in report.sites[0].reason


def test_transformer_encoder_leaves_its_fast_path():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(2, 5, 8)
    mask = torch.tensor([[False, False, False, True, True], [False] * 5])
    agile, report = converted(model, x)
    assert sites(report) == {f"layers.{i}.relu": ("relu", 16, -1) for i in range(2)}
    assert {site.base for site in report.skipped} == {"MultiheadAttention"}
    with torch.no_grad():
        for module in agile.modules():
            if isinstance(module, ag.AgileModule):
                module.scale.zero_()
        # Nothing passes the second linear layer but its bias, on the fast path or not.
        assert not torch.allclose(agile(x), model(x))
        assert agile.eval()(x, src_key_padding_mask=mask).shape == x.shape
    plain = ag.revert(agile)
    assert plain.layers[0].activation_relu_or_gelu == 1  # type: ignore[union-attr, index]
    assert plain.use_nested_tensor == model.use_nested_tensor
    assert plain.state_dict().keys() == model.state_dict().keys()


def test_torchs_transformer():
    model = nn.Transformer(8, 2, 1, 1, 12, batch_first=True)
    agile, report = converted(model, (torch.randn(2, 5, 8), torch.randn(2, 4, 8)))
    assert [name.rpartition(".")[2] for name in sites(report)] == ["relu", "relu"]
    copied = copy.deepcopy(agile)
    assert isinstance(copied.decoder.layers[0].relu, ag.AgileReLU)  # type: ignore[union-attr, index]


def test_in_place_on_a_value_used_again():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layer(x)
            self.relu(x)
            y = self.layer(x)
            return x + F.silu(y, inplace=True) * y  # type: ignore[no-any-return]

    _, report = converted(Net(), torch.randn(4, 3))
    assert not report.converted
    assert all("in place" in site.reason for site in report.skipped)


def test_in_place_otherwise_is_nothing_special():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3), nn.ReLU(inplace=True))
    x = torch.randn(4, 3)
    before = x.clone()
    agile, report = ag.convert(model, example_inputs=x)
    assert torch.equal(x, before)
    assert len(report.converted) == 2
    assert torch.equal(agile(x), model(x.clone()))


def test_modules_that_do_not_run_are_named():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.used, self.unused = nn.Linear(3, 3), nn.ReLU(), nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            return self.used(self.layer(x))  # type: ignore[no-any-return]

    _, report = converted(Net(), torch.randn(2, 3))
    assert [(site.name, site.status) for site in report.sites] == [("used", "converted"), ("unused", "skipped")]
    assert "does not reach" in report.skipped[0].reason


def test_a_module_that_something_else_calls_is_left():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.relu = nn.Linear(3, 3), nn.ReLU()
            self.hidden = [self.relu]

        def forward(self, x: Tensor) -> Tensor:
            return self.hidden[0](self.layer(x))  # type: ignore[no-any-return]

    agile, report = converted(Net(), torch.randn(2, 3))
    assert "does not reach it" in report.skipped[0].reason
    assert isinstance(agile.relu, nn.ReLU)
