from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import agileact as ag
from agileact.transforms._known import MODULES
from agileact.transforms._recording import tensors
from agileact.transforms._report import ConversionReport
from tests.transforms.converting import (
    Attribute,
    Block,
    Cell,
    Functional,
    LSTMClassifier,
    OwnGELU,
    SqueezeExcite,
    Swish,
)


def bits(tensor: Tensor) -> Tensor:
    """The bits of a tensor, so that 0 and -0 differ, and NaN equals itself."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.detach().contiguous().view(integer)


def converted(model: nn.Module, example: Any, **options: Any) -> tuple[nn.Module, ConversionReport]:
    """Convert, and compare the outputs to the bit in both modes; the model itself must not change."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = repr(model)
    agile, report = ag.convert(model, example_inputs=example, **options)
    assert repr(model) == text
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if options.get("base") is None:
        args = example if isinstance(example, tuple) else (example,)
        for training in (False, True):
            torch.manual_seed(0)
            expected = list(tensors(copy.deepcopy(model).train(training)(*args)))
            torch.manual_seed(0)
            result = list(tensors(copy.deepcopy(agile).train(training)(*args)))
            assert len(result) == len(expected) > 0
            for one, other in zip(result, expected, strict=True):
                assert torch.equal(bits(one), bits(other))
    return agile, report


def sites(report: ConversionReport) -> dict[str, tuple[str, int, int | None]]:
    return {site.name: (site.base, site.channels, site.dim) for site in report.converted}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# --- What is found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_module_of_torch(kind: Callable[..., nn.Module], dtype: torch.dtype):
    activation = kind(0.5, 1.0) if kind is nn.Threshold else kind()
    model = nn.Sequential(nn.Conv2d(2, 3, 1), activation).to(dtype)
    agile, report = converted(model, torch.randn(2, 2, 5, 5).to(dtype))
    # In half precision the sign of a zero that PyTorch's softshrink gives depends on where in memory it lies: there
    # the conversion sees other bits, and leaves the work to PyTorch's own module.
    wrapped = kind is nn.Softshrink and dtype.itemsize == 2
    assert sites(report) == {"1": ("Softshrink" if wrapped else MODULES[kind], 3, 1)}  # type: ignore[index]
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
    assert torch.equal(agile(x), torch.tanh(model[0](x) - torch.arange(4.0)))


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


# --- What is kept ---------------------------------------------------------------------------------------------------


def test_hooks_go_along_and_their_handles_work():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    seen: list[str] = []
    after = model[1].register_forward_hook(lambda module, args, output: seen.append(type(module).__name__))
    model[1].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    agile, _ = ag.convert(model, example_inputs=torch.randn(2, 3), inplace=True)
    x = torch.randn(2, 3)
    seen.clear()
    assert torch.equal(agile(x), torch.relu(model[0](x) + 1))
    assert seen == ["AgileReLU"]
    after.remove()
    agile(x)
    assert seen == ["AgileReLU"]


def test_hooks_on_the_state_cannot_go_along():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    model[1].register_state_dict_post_hook(lambda *args: None)
    _, report = ag.convert(model, example_inputs=torch.randn(2, 3))
    assert "hooks on its state" in report.skipped[0].reason


def test_training_mode_requires_grad_and_ties():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Sequential(nn.Tanh()))
    model[2].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    model[3].eval()
    agile, _ = converted(model, torch.randn(2, 4))
    assert agile[2].weight is agile[0].weight  # type: ignore[index]
    assert not agile[0].bias.requires_grad  # type: ignore[index]
    assert agile[1].training  # type: ignore[index]
    assert not agile[3][0].training  # type: ignore[index]
    assert agile[1].scale.requires_grad  # type: ignore[index]


def test_batch_statistics_and_random_state_are_untouched():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout())
    state = torch.random.get_rng_state()
    x = torch.ones(3, 3)
    agile, _ = ag.convert(model, example_inputs=x, inplace=True)
    assert torch.equal(state, torch.random.get_rng_state())
    assert agile[1].num_batches_tracked == 0  # type: ignore[index]


def test_parameters_in_the_models_dtype_under_autocast():
    model = nn.Sequential(nn.Linear(3, 4), nn.Softplus())
    x = torch.randn(2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        agile, _ = ag.convert(model, example_inputs=x)
        assert torch.equal(agile(x), model(x))
    assert agile[1].scale.dtype == torch.float32  # type: ignore[index]


@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.__name__)
def test_autocast(kind: Callable[..., nn.Module]):
    activation = kind(0.5, 1.0) if kind is nn.Threshold else kind()
    model = nn.Sequential(nn.Linear(7, 9), activation)
    x = torch.randn(4, 7)
    agile, _ = ag.convert(model, example_inputs=x)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = agile(x), model(x)
    assert one.dtype == other.dtype
    assert torch.equal(bits(one), bits(other))


def test_devices_of_the_parameters():
    agile, _ = ag.convert(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), dim=1)
    assert agile.to("meta")[1].scale.device.type == "meta"  # type: ignore[index]


def _stored(model: nn.Module) -> nn.Module:
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=False)
    assert isinstance(loaded, nn.Module)
    return loaded


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, _stored, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "save", "pickle"]
)
@pytest.mark.parametrize(
    ("model", "shape"),
    [(Functional(), (4, 5)), (nn.Sequential(nn.Conv2d(3, 4, 1), Block()), (2, 3, 5, 5)), (Attribute(), (4, 3))],
    ids=["functional", "block", "attribute"],
)
def test_copies_are_converted_too(model: nn.Module, shape: tuple[int, ...], copied: Callable[[nn.Module], nn.Module]):
    x = torch.randn(shape)
    agile, _ = ag.convert(model, example_inputs=x)
    with torch.no_grad():
        for parameter in agile.parameters():
            parameter.add_(0.1)
    other = copied(agile)
    assert torch.equal(other(x), agile(x))
    assert not torch.equal(other(x), model(x))
    with torch.no_grad():
        for module in other.modules():
            if isinstance(module, ag.AgileModule):
                module.scale.fill_(0.0)
    assert not torch.equal(other(x), agile(x))
    plain = ag.revert(other)
    assert [type(module) for module in plain.modules()] == [type(module) for module in model.modules()]
    assert list(plain.state_dict()) == list(model.state_dict())


def test_state_goes_from_one_converted_model_to_another():
    x = torch.randn(4, 5)
    one, _ = ag.convert(Functional(), example_inputs=x)
    other, _ = ag.convert(Functional(), example_inputs=x)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.normal_()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))


def test_gradients_are_those_of_the_equation():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    agile, _ = ag.convert(model, example_inputs=x)
    agile(x).sum().backward()
    a, b = (torch.full((4,), value, dtype=torch.float64, requires_grad=True) for value in (1.0, 0.0))
    model[2](a * torch.tanh(model[0](x) - b)).sum().backward()
    torch.testing.assert_close(agile[1].scale.grad, a.grad)  # type: ignore[index]
    torch.testing.assert_close(agile[1].location.grad, b.grad)  # type: ignore[index]
    torch.testing.assert_close(agile[0].weight.grad, model[0].weight.grad)  # type: ignore[index]


@pytest.mark.parametrize("model", [Functional(), nn.Sequential(nn.Linear(5, 4), Swish(), nn.ReLU())], ids=["f", "m"])
def test_compile_and_export(model: nn.Module):
    x = torch.randn(4, 5)
    agile, _ = ag.convert(model, example_inputs=x)
    compiled = torch.compile(agile, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), agile(x))
    exported = torch.export.export(agile, (x,))
    assert torch.equal(exported.module()(x), agile(x))


def test_the_source_that_tools_read_has_the_new_call():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.layer(x))

    agile, _ = ag.convert(Net(), example_inputs=torch.randn(2, 3))
    assert "self.relu(self.layer(x))" in inspect.getsource(agile.forward)


def test_checkpointing():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def inner(self, x: Tensor) -> Tensor:
            return F.gelu(self.layer(x))

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=False)  # type: ignore[no-any-return]

    x = torch.randn(2, 3, requires_grad=True)
    agile, report = converted(Net(), x)
    assert sites(report) == {"gelu": ("gelu", 4, -1)}
    agile(x).sum().backward()
    assert agile.gelu.scale.grad is not None  # type: ignore[union-attr]


# --- What is asked for ----------------------------------------------------------------------------------------------


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
    _, report = converted(Net(), x)
    assert "4 and 5 channels" in report.skipped[0].reason
    _, report = converted(Net(), x, granularity="layer")
    assert len(report.converted) == 1


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


class _Gated(nn.Module):
    """GEGLU: the activation gets every second half of the rows of a larger tensor."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.layer, self.activation, self.head = nn.Linear(5, 64), activation, nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.layer(x).chunk(2, dim=-1)
        return self.head(self.activation(x) * gate)  # type: ignore[no-any-return]


@pytest.mark.parametrize("activation", [nn.GELU(), nn.SiLU(), nn.ReLU(), nn.Tanh(), nn.Sigmoid()], ids=repr)
def test_a_part_of_a_chunk_keeps_its_bits(activation: nn.Module):
    """PyTorch may have other bits for the same number in a tensor with other strides."""
    _, report = converted(_Gated(activation), torch.randn(7, 5))
    assert [site.name for site in report.converted] == ["activation"]


@pytest.mark.parametrize("activation", [nn.SELU(), nn.CELU(), nn.Mish(), nn.ELU(), nn.Softplus()], ids=repr)
def test_what_has_other_bits_anyhow_is_left_and_the_rest_converted(activation: nn.Module):
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), _Gated(activation))
    agile, report = ag.convert(model, example_inputs=torch.randn(7, 5))
    assert "1" in {site.name for site in report.converted}
    assert all("other bits" in site.reason for site in report.skipped)
    x = torch.randn(7, 5)
    assert torch.equal(bits(agile(x)), bits(model(x)))


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
