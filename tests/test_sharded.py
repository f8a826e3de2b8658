"""Under FSDP2, where parameters are sharded: groups, decay, ranges and the monitor do what they do without it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

import agileact as ag


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_sharded_as_unsharded(mesh: DeviceMesh):
    torch.manual_seed(0)
    plain: Any = nn.Sequential(nn.Linear(4, 8), ag.AgileReLU(8), nn.Linear(8, 8), ag.CombinedAgile("sigmoid", 8))
    sharded = copy.deepcopy(plain)
    fully_shard(sharded, mesh=mesh)
    monitors = []
    for model in (plain, sharded):
        optimizer = torch.optim.AdamW(ag.param_groups(model, 0.1, activation_decay=0.3))
        ag.decay_activations(optimizer, model)
        ag.constrain_scale(optimizer, model, (0.7, 1.05))
        monitor = ag.Monitor(model, optimizer=optimizer, activations_every=2)
        for step in range(5):
            optimizer.zero_grad()
            model(torch.linspace(-2, 2, 40).view(10, 4) + step).square().sum().backward()
            optimizer.step()
        monitors.append(monitor)
    assert hasattr(sharded[1].scale, "to_local")
    for one, other in zip(plain.parameters(), sharded.parameters(), strict=True):
        torch.testing.assert_close(one.detach(), other.full_tensor().detach())
    for first, second in zip(monitors[0].records, monitors[1].records, strict=True):
        assert first[:4] == second[:4]
        assert first.value == pytest.approx(second.value, abs=1e-6)


def test_directions_stay_directions_when_sharded(mesh: DeviceMesh):
    torch.manual_seed(0)
    x = torch.linspace(-2, 2, 40).view(10, 4)
    plain: Any = nn.Sequential(nn.Linear(4, 8), ag.AgileReLU(8), nn.Linear(8, 8), ag.AgileGELU(8), nn.Linear(8, 3))
    plain, _ = ag.standardize(plain, x)
    sharded = copy.deepcopy(plain)
    fully_shard(sharded, mesh=mesh)
    for model in (plain, sharded):
        optimizer = torch.optim.AdamW(ag.param_groups(model, 0.1, weight_decay=0.1, activation_decay=0.3))
        ag.standardize_weights(optimizer, model)
        ag.decay_activations(optimizer, model)
        for step in range(5):
            optimizer.zero_grad()
            model(x + step).square().sum().backward()
            optimizer.step()
    for one, other in zip(plain.parameters(), sharded.parameters(), strict=True):
        torch.testing.assert_close(one.detach(), other.full_tensor().detach())
    torch.testing.assert_close(sharded[2].weight.full_tensor().detach().norm(dim=1), torch.ones(8))
    found = [ag.calibrate(model, x).rows for model in (plain, sharded)]
    assert found[1] == {name: pytest.approx(pair) for name, pair in found[0].items()}
    assert list(found[1]) == ["0", "2"]
    turned: Any = nn.Sequential(nn.ConvTranspose1d(4, 6, 3), ag.AgileReLU(6), nn.Conv1d(6, 2, 1))
    turned, _ = ag.standardize(turned, torch.randn(2, 4, 5))
    fully_shard(turned, mesh=mesh)
    with pytest.raises(ag.ArgumentError, match="its rows are shared out over processes"):
        ag.standardize_weights(torch.optim.SGD(turned.parameters(), 0.1), turned)


def test_directions_stay_directions_in_data_parallel(mesh: DeviceMesh):
    torch.manual_seed(0)
    x = torch.linspace(-2, 2, 40).view(10, 4)
    model, _ = ag.standardize(nn.Sequential(nn.Linear(4, 8), ag.AgileReLU(8), nn.Linear(8, 3)), x)
    parallel: Any = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(ag.param_groups(parallel, 0.1))
    ag.standardize_weights(optimizer, parallel)
    parallel(x).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close(parallel.module[0].weight.detach().norm(dim=1), torch.ones(8))
