"""An agile model under DistributedDataParallel, with two processes on one machine.

torchrun --standalone --nproc-per-node 2 examples/ddp.py
"""

import argparse

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import agileact as ag


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    if not dist.is_torchelastic_launched():
        parser.error("torchrun starts the processes: see --help")
    dist.init_process_group("gloo")
    train()
    dist.barrier()  # no process ends before the others
    dist.destroy_process_group()


def train() -> None:
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1))
    # Convert before wrapping: the wrapper must see every parameter.
    model, report = ag.convert(model, example_inputs=torch.randn(4, 2))
    if rank == 0:
        print(report)
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(ag.param_groups(wrapped, lr=0.01))
    generator = torch.Generator().manual_seed(rank)  # each process draws its own samples
    for step in range(1, 201):
        x = torch.rand(64, 2, generator=generator) * 2 - 1
        y = (x[:, :1] * x[:, 1:] > 0).float()
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(wrapped(x), y)
        loss.backward()
        optimizer.step()
        if rank == 0 and step % 50 == 0:
            print(f"step {step:3d}  loss {float(loss.detach()):.3f}")
    scale = model[1].scale.detach()
    every = [torch.empty_like(scale) for _ in range(world)]
    dist.all_gather(every, scale)
    assert all(torch.equal(one, scale) for one in every), "all processes must have the same model"
    if rank == 0:
        plain, report = ag.fold(model, example_inputs=torch.randn(4, 2))
        print(report)
        print(f"{world} processes ended with the same model; folded, it is {plain}")


if __name__ == "__main__":
    main()
