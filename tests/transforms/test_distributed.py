"""Two processes give the gradients of one: DistributedDataParallel and FSDP2 over gloo."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import agileact as ag

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="PyTorch was built without gloo"),
]


def build() -> nn.Module:
    """A converted model whose activations are far from their start; 17 does not divide by two."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 17), nn.SiLU(), nn.Linear(17, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    model, _ = ag.convert(plain, example_inputs=batch())
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ag.AgileModule):
                module.scale.uniform_(0.5, 1.5)
                module.location.normal_()
    return model


def batch() -> Tensor:
    return torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def gradients(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    model(x).square().mean().backward()
    found = {}
    for name, parameter in model.named_parameters():
        gradient: Any = parameter.grad
        assert gradient is not None, name
        found[name.removeprefix("module.")] = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    return found


def work(rank: int, rendezvous: str, kind: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2, init_method=f"file://{rendezvous}")
    try:
        compare(rank, kind)
        # Nobody leaves while the other one still works, and what the wrapper holds goes before its group does.
        gc.collect()
        dist.barrier()
    finally:
        dist.destroy_process_group()


def compare(rank: int, kind: str) -> None:
    wanted = gradients(build(), batch())
    model = build()
    wrapped: Any
    if kind == "ddp":
        wrapped = DistributedDataParallel(model)
    else:
        mesh = init_device_mesh("cpu", (2,))
        for module in list(model.children()):
            if isinstance(module, nn.Linear):
                fully_shard(module, mesh=mesh)
        wrapped = fully_shard(model, mesh=mesh)
    found = gradients(wrapped, batch().chunk(2)[rank])
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_give_the_gradients_of_one(tmp_path: Path, kind: str):
    multiprocessing: Any = torch.multiprocessing
    multiprocessing.spawn(work, args=(str(tmp_path / "rendezvous"), kind), nprocs=2)
