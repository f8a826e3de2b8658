"""A model that writes down when its training starts, and its data, for the tests of the engine.

Training takes its time without a load on the machine, so that a signal can meet a trial at any moment of it.
"""

from __future__ import annotations

import os
import time

import torch
from torch import Tensor, nn

SECONDS_PER_STEP = 0.004


class Net(nn.Module):
    """A small network that knows the seed of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.seed = torch.initial_seed()
        self.told = False
        self.first, self.activation, self.last = nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            self.tell()
            time.sleep(SECONDS_PER_STEP)
        return self.last(self.activation(self.first(x)))  # type: ignore[no-any-return]

    def tell(self) -> None:
        log = os.environ.get("AGILEACT_TEST_LOG")
        if log and not self.told:
            self.told = True
            line = f"{time.time_ns()} {self.seed} {type(self.activation).__name__} {os.getpid()}\n"
            handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, line.encode())  # one call: a line is there or not
            os.close(handle)


def build() -> nn.Module:
    return Net()


def load() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(90, 6, generator=generator)
    return [(x[i : i + 30], (x[i : i + 30, 0] > 0).long() + (x[i : i + 30, 1] > 0).long()) for i in (0, 30, 60)]
