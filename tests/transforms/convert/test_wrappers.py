"""Models that are wrapped before they are converted: done right, or refused with the right order of calls."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import agileact as ag
from tests.transforms.converting import Functional

X = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
gloo = pytest.mark.skipif(not dist.is_gloo_available(), reason="PyTorch was built without gloo")


class _Wrapper(nn.Module):
    """A user's own: nothing is known of it, and nothing has to be."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = model

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)  # type: ignore[no-any-return]


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{tmp_path / 'rendezvous'}")
    yield
    dist.destroy_process_group()


@gloo
@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("inplace", [False, True])
def test_what_exchanges_gradients_is_refused_with_the_right_order(inplace: bool):
    for wrapped in (DistributedDataParallel(Functional()), nn.Sequential(DistributedDataParallel(Functional()))):
        with pytest.raises(ag.ArgumentError, match=r"convert first: DistributedDataParallel\(agileact\.convert"):
            ag.convert(wrapped, example_inputs=X, inplace=inplace)
    sharded: Any = Functional()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ag.ArgumentError, match=r"convert first: fully_shard\(agileact\.convert"):
        ag.convert(sharded, example_inputs=X, inplace=inplace)


@gloo
@pytest.mark.usefixtures("group")
def test_the_inside_of_a_wrapper_is_not_changed_in_place_but_its_copy_converts():
    model = nn.Sequential(Functional(), nn.Tanh())
    wrapped = DistributedDataParallel(model)
    for inside in (wrapped.module, model[0]):
        with pytest.raises(ag.ArgumentError, match="inside a DistributedDataParallel"):
            ag.convert(inside, example_inputs=X, inplace=True)
        assert not any(isinstance(module, ag.AgileModule) for module in model.modules())
    agile, report = ag.convert(wrapped.module, example_inputs=X)
    assert len(report.converted) == 6
    assert torch.equal(DistributedDataParallel(agile)(X), model(X))


@gloo
@pytest.mark.slow
@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore")  # FSDP1 says that it is old, and that it is without an accelerator
def test_fsdp1_is_refused_with_the_right_order_which_works():
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
    expected = model(X)
    agile, _ = ag.convert(model, example_inputs=X)
    settings: Any = {"device_id": torch.device("cpu"), "use_orig_params": True}
    wrapped: Any = FullyShardedDataParallel(model, **settings)
    for given, inplace in ((wrapped, False), (wrapped, True), (nn.Sequential(wrapped), False)):
        with pytest.raises(ag.ArgumentError, match=r"convert first: FullyShardedDataParallel\(agileact\.convert"):
            ag.convert(given, example_inputs=X, inplace=inplace)
    with pytest.raises(ag.ArgumentError, match="inside a FullyShardedDataParallel"):
        ag.convert(wrapped.module, example_inputs=X, inplace=True)
    torch.testing.assert_close(FullyShardedDataParallel(agile, **settings)(X), expected)


@pytest.mark.parametrize(
    ("name", "home", "order"),
    [
        (
            "FullyShardedDataParallel",
            "torch.distributed.fsdp.fully_sharded_data_parallel",
            r"FullyShardedDataParallel\(",
        ),
        ("DeepSpeedEngine", "deepspeed.runtime.engine", r"deepspeed\.initialize\(model="),
        ("DistributedDataParallel", "torch.nn.parallel.distributed", r"DistributedDataParallel\("),
    ],
)
def test_wrappers_are_known_by_name_and_home(name: str, home: str, order: str, monkeypatch: pytest.MonkeyPatch):
    """Classes of the same names stand for packages that are not there; so does one that is derived from them."""
    kind = type(name, (_Wrapper,), {"__module__": home})
    for wrapped in (kind(Functional()), nn.Sequential(kind(Functional())), type("Own", (kind,), {})(Functional())):
        with pytest.raises(
            ag.ArgumentError, match=rf"is wrapped by {name}, and the processes would .* {order}agileact"
        ):
            ag.convert(wrapped, example_inputs=X)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    inside = kind(Functional())
    with pytest.raises(ag.ArgumentError, match=rf"inside a {name}, .* {order}agileact"):
        ag.convert(inside.module, example_inputs=X, inplace=True)
    of_ones_own = type(name, (_Wrapper,), {})
    assert ag.convert(of_ones_own(Functional()), example_inputs=X)[1].converted


def test_an_average_is_refused_and_the_other_order_works():
    model = Functional()
    with pytest.raises(ag.ArgumentError, match=r"then AveragedModel\(model\)"):
        ag.convert(AveragedModel(model), example_inputs=X)
    agile, _ = ag.convert(model, example_inputs=X)
    average = AveragedModel(agile)
    average.update_parameters(agile)
    assert torch.equal(average(X), model(X))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("inner", [Functional, nn.ReLU])
def test_data_parallel_keeps_its_wrapper(inner: type[nn.Module], inplace: bool):
    model = nn.DataParallel(inner())
    expected = model(X)
    agile, report = ag.convert(model, example_inputs=X, inplace=inplace)
    assert isinstance(agile, nn.DataParallel)
    assert (agile is model) == inplace
    assert torch.equal(agile(X), expected)
    for site in report.converted:
        assert isinstance(agile.get_submodule(site.name), ag.AgileModule)
    if not inplace:
        assert not any(isinstance(module, ag.AgileModule) for module in model.modules())


def test_data_parallel_is_standardized_when_asked():
    model = nn.DataParallel(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)))
    agile, report = ag.convert(model, example_inputs=X, weights="standardized")
    assert report.weights is not None
    assert [site.name for site in report.weights.standardized] == ["module.0"]
    weight: Any = agile.get_submodule("module.0").weight
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(6))
    centred, _ = ag.convert(model, example_inputs=X, weights="standardized", centre="all")
    assert float(centred.get_submodule("module.0").get_parameter("weight").detach().mean(1).abs().max()) < 1e-6


@pytest.mark.parametrize("inplace", [False, True])
def test_a_compiled_model_runs_what_is_new(inplace: bool):
    model: Any = torch.compile(Functional(), backend="eager")
    expected = model(X)
    agile, report = ag.convert(model, example_inputs=X, inplace=inplace)
    assert len(report.converted) == 5
    assert torch.equal(agile(X), expected)
    with torch.no_grad():
        for module in agile.modules():
            if isinstance(module, ag.AgileModule):
                module.scale.fill_(0.5)
    eager: Any = copy.deepcopy(agile._orig_mod)
    torch.testing.assert_close(agile(X), eager(X))  # compiled, an activation is the expression, not the kernel
    assert not torch.equal(agile(X), expected)
    assert torch.equal(model(X), expected) != inplace


def test_a_wrapper_of_ones_own_is_a_module_like_any_other():
    agile, report = ag.convert(_Wrapper(Functional()), example_inputs=X)
    assert [site.name.partition(".")[0] for site in report.converted] == ["module"] * 5
    assert torch.equal(agile(X), ag.revert(agile)(X))
