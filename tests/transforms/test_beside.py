"""Converted models beside what people use with theirs: checkpoints, averages, pruning, parametrizations, autocast."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

import agileact as ag


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.hidden = nn.Linear(8, 10)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        out: Tensor = self.head(nn.functional.gelu(self.hidden(x.mean((2, 3)))))
        return out


X = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def converted() -> nn.Module:
    torch.manual_seed(0)
    model, report = ag.convert(Network(), example_inputs=X)
    assert len(report.converted) == 2
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ag.AgileModule):
                module.scale.uniform_(0.5, 1.5)
                module.location.normal_(0, 0.3)
    return model


def train(model: nn.Module, steps: int = 3) -> nn.Module:
    optimizer = torch.optim.AdamW(ag.param_groups(model, lr=0.01, weight_decay=0.1))
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
    return model


def test_safetensors_keep_every_bit(tmp_path: Path):
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    model = train(converted())
    safetensors.save_model(model, str(tmp_path / "model.safetensors"))
    other, _ = ag.convert(Network(), example_inputs=X)
    safetensors.load_model(other, str(tmp_path / "model.safetensors"))
    assert torch.equal(other.eval()(X), model.eval()(X))


def test_a_deep_copy_trains_on_its_own():
    model = converted()
    twin = copy.deepcopy(model)
    before = model.eval()(X)
    train(twin.train())
    assert torch.equal(model(X), before)
    assert not torch.equal(twin.eval()(X), before)


def test_an_exponential_moving_average_averages_scale_and_location():
    model = converted()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    average.update_parameters(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model)
    average.update_parameters(model)
    mean = dict(average.module.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(mean[name].detach(), (before[name] + parameter.detach()) / 2)
    plain, _ = ag.fold(average.module.eval(), example_inputs=X)
    torch.testing.assert_close(plain(X), average.module(X), rtol=1e-5, atol=1e-5)


def test_activation_checkpointing_gives_the_same_gradients():
    model = converted().eval()
    model(X).square().mean().backward()
    wanted = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    checkpoint(model, X, use_reentrant=False).square().mean().backward()
    for gradient, parameter in zip(wanted, model.parameters(), strict=True):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient)


def test_autocast_to_bfloat16_trains_and_stays_near():
    model = converted().eval()
    wanted = model(X)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(X)
        found.float().square().mean().backward()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, rtol=0.1, atol=0.1)
    for module in model.modules():
        if isinstance(module, ag.AgileModule):
            assert module.scale.grad is not None
            assert module.scale.grad.dtype == torch.float32


def test_a_pruned_layer_converts_and_its_fold_waits_until_pruning_is_permanent():
    model = Network()
    prune.l1_unstructured(model.hidden, "weight", amount=0.5)
    agile, _ = ag.convert(model, example_inputs=X)
    assert torch.equal(agile.eval()(X), model.eval()(X))
    train(agile.train()).eval()
    relu = agile.get_submodule("relu")
    assert isinstance(relu, ag.AgileReLU)
    with torch.no_grad():
        relu.scale.neg_()  # cannot go back through the ReLU, only forward into the pruned weight
    plain, report = ag.fold(agile, example_inputs=X)
    torch.testing.assert_close(plain(X), agile(X), rtol=1e-5, atol=1e-5)
    assert any("hidden" in site.reason for site in report.sites if site.status != "folded")
    hidden = agile.get_submodule("hidden")
    assert isinstance(hidden, nn.Module)
    prune.remove(hidden, "weight")
    plain, report = ag.fold(agile, example_inputs=X)
    assert len(report.folded) == 2
    torch.testing.assert_close(plain(X), agile(X), rtol=1e-5, atol=1e-5)
    weight = plain.get_submodule("hidden").weight
    assert isinstance(weight, Tensor)
    assert float((weight == 0).float().mean()) >= 0.5, "a fold scales what is zero to zero"


def test_a_parametrized_weight_is_not_written_to():
    model = Network()
    parametrizations.weight_norm(model.hidden)
    agile, _ = ag.convert(model, example_inputs=X)
    train(agile).eval()
    relu = agile.get_submodule("relu")
    assert isinstance(relu, ag.AgileReLU)
    with torch.no_grad():
        relu.scale.neg_()  # cannot go back through the ReLU, only forward into the parametrized weight
    plain, report = ag.fold(agile, example_inputs=X)
    torch.testing.assert_close(plain(X), agile(X), rtol=1e-5, atol=1e-5)
    (left,) = [site for site in report.sites if site.status != "folded"]
    assert left.name == "relu"
    assert "hidden" in left.reason
    before, after = agile.state_dict(), plain.state_dict()
    for name in before:
        if "parametrizations" in name:
            assert torch.equal(before[name], after[name])


class Mapped(nn.Module):
    """Samples one by one, by vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 5)
        self.relu = nn.ReLU()
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.vmap(lambda one: self.relu(self.hidden(one)))(x)
        out: Tensor = self.head(y)
        return out


def test_inside_vmap_a_module_converts_and_its_fold_stays_where_it_is():
    torch.manual_seed(0)
    plain, x = Mapped(), torch.randn(4, 3)
    converted_, report = ag.convert(plain, example_inputs=x)
    agile: Any = converted_
    assert [site.name for site in report.converted] == ["relu"]
    assert torch.equal(agile(x), plain(x))
    with torch.no_grad():
        agile.relu.scale.uniform_(0.5, 1.5)
        agile.relu.location.normal_()
    given = agile(x)
    expected = agile.relu.scale * torch.relu(plain.hidden(x) - agile.relu.location)
    torch.testing.assert_close(given, plain.head(expected))
    folded, folding = ag.fold(agile, x)
    # How the samples leave vmap is not written down, so nothing is moved past it.
    assert [site.kept for site in folding.sites] == [("location", "scale")]
    torch.testing.assert_close(folded(x), given)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # PyTorch's own, when it copies such a module
def test_an_exported_module_is_left_as_it_is():
    x = torch.randn(2, 3)
    program = torch.export.export(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), (x,)).module()
    agile, report = ag.convert(program, example_inputs=x)
    assert not report.converted
    assert [site.base for site in report.skipped] == ["relu"]
    assert torch.equal(agile(x), program(x))


@pytest.mark.slow
def test_a_compiled_training_step_equals_the_eager_one():
    model = converted()
    compiled: Any = torch.compile(copy.deepcopy(model), fullgraph=True)
    model(X).square().mean().backward()
    compiled(X).square().mean().backward()
    for eager, other in zip(model.parameters(), compiled.parameters(), strict=True):
        assert eager.grad is not None
        torch.testing.assert_close(other.grad, eager.grad, rtol=1e-4, atol=1e-5)


def _every_kind() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        ag.AgileMaxPool2d(8, 2, base="relu"),
        nn.Flatten(),
        nn.Linear(32, 6),
        ag.AgileReLU(6),
        ag.CombinedAgile("tanh", 6, terms=2),
        ag.AgileWrapped(torch.sin, 6),
    )
    return model.eval(), torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_a_symbolic_trace_keeps_agile_modules_whole():
    model, x = _every_kind()
    traced = torch.fx.symbolic_trace(model)
    assert torch.equal(traced(x), model(x))
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == list("0123456")
    with pytest.raises(ag.ArgumentTypeError, match="x must be a tensor, not str"):
        ag.AgileReLU(3)("x")


@pytest.mark.filterwarnings("ignore")  # what PyTorch has deprecated
def test_quantization_by_graph_keeps_agile_modules_in_floating_point():
    quantize_fx: Any = pytest.importorskip("torch.ao.quantization.quantize_fx")
    from torch.ao.quantization import get_default_qconfig_mapping

    model = converted().eval()
    prepared = quantize_fx.prepare_fx(model, get_default_qconfig_mapping(), (X,))
    torch.testing.assert_close(prepared(X), model(X))  # it fuses convolution and norm
    assert sum(isinstance(module, ag.AgileModule) for module in prepared.modules()) == 2


@pytest.mark.filterwarnings("ignore")  # what PyTorch has deprecated, and what its tracer fixes
def test_what_torch_jit_cannot_do_names_what_works():
    model, x = _every_kind()
    for module in model[1], model[4], model[5], model[6], model:  # type: ignore[index]
        with pytest.raises(ag.ConversionError, match=r"^torch\.jit\.script cannot compile .*agileact\.fold") as caught:
            torch.jit.script(module)
        assert "\n" not in str(caught.value)
    with pytest.raises(ag.ConversionError, match=r"cannot follow an agile pooling; use torch\.export"):
        torch.jit.trace(model, x)
    rest = model[3:]  # type: ignore[index]
    traced: Any = torch.jit.trace(rest, torch.ones(1, 32))
    assert torch.equal(traced(torch.ones(2, 32)), rest(torch.ones(2, 32)))
