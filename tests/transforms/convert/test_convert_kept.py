"""What a conversion leaves as it was: bits, hooks, modes, dtypes, copies, compilers, checkpoints."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import agileact as ag
from agileact.transforms.trace.activation_tables import MODULES
from tests.transforms.converting import (
    Attribute,
    Block,
    Functional,
    Swish,
    bits,
    converted,
    sites,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


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


@pytest.mark.slow
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


def test_a_copied_decoder_layer_keeps_the_activation_that_is_a_module():
    # nn.TransformerDecoderLayer gives its copies F.relu where it finds no function.
    torch.manual_seed(0)
    model, x = nn.TransformerDecoderLayer(8, 2, 16, activation=nn.GELU(), batch_first=True).eval(), torch.randn(2, 3, 8)
    agile, report = ag.convert(model, example_inputs=(x, x))
    assert [(site.name, site.base) for site in report.converted] == [("activation", "gelu")]
    assert torch.equal(agile(x, x), model(x, x))
    assert isinstance(ag.revert(agile).get_submodule("activation"), nn.GELU)
