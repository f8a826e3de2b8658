"""One training step of a whole network, agile against plain and against the eager formula; and what it saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agileact.bench.peers import Eager
from agileact.bench.timing import environment, interleaved, keep_freed_memory
from agileact.nn import AgileMaxPool2d, AgileReLU

Kind = Literal["plain", "fused", "eager"]


def _activation(kind: Kind, channels: int, ndim: int) -> nn.Module:
    if kind == "plain":
        return nn.ReLU()
    if kind == "eager":
        return Eager(nn.ReLU(), channels, 1, ndim)
    return _off_start(AgileReLU(channels))


def _off_start(module: nn.Module) -> nn.Module:
    # At scale 1 and location 0 the operator calls PyTorch's own kernel.
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_((1.0 if name == "scale" else 0.0) + 0.1 * torch.randn(parameter.shape))
    return module


def paper(kind: Kind) -> nn.Module:
    """The paper's network (section 4): filters 16, 8 and 4, each pooled; 30 nodes; 10 outputs."""
    layers: list[nn.Module] = []
    channels = 1
    for filters in (16, 8, 4):
        layers.append(nn.Conv2d(channels, filters, 3, padding=1))
        if kind == "fused":
            layers.append(_off_start(AgileMaxPool2d(filters, 2)))
        else:
            layers += [_activation(kind, filters, 4), nn.MaxPool2d(2)]
        channels = filters
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(36, 30), _activation(kind, 30, 2), nn.Linear(30, 10))


class _Block(nn.Module):
    def __init__(self, kind: Kind, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), _activation(kind, after, 4)
        )
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))
        self.short = nn.Sequential()
        if stride != 1 or before != after:
            self.short = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.last = _activation(kind, after, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.second(self.first(x)) + self.short(x))
        return y


def resnet18(kind: Kind) -> nn.Module:
    """A ResNet-18 for images of 32 by 32: eight blocks of two convolutions, 64 to 512 filters."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 3, 1, 1, bias=False),
        nn.BatchNorm2d(64),
        _activation(kind, 64, 4),
    ]
    before = 64
    for after, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        layers.append(_Block(kind, before, after, stride))
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


MODELS: dict[str, tuple[Callable[[Kind], nn.Module], tuple[int, ...]]] = {
    "paper": (paper, (100, 1, 28, 28)),
    "resnet18": (resnet18, (16, 3, 32, 32)),
}


def saved_bytes(model: nn.Module, x: Tensor) -> int:
    """Return what a forward pass keeps for backward, in bytes of distinct storages, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    alive = []

    def keep(t: Tensor) -> Tensor:
        # Held, so that no freed address is counted for another tensor.
        alive.append(t)
        if t.untyped_storage().data_ptr() not in own:
            sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model(x)
    return sum(sizes.values())


def _step(model: nn.Module, x: Tensor, target: Tensor) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), target).backward()
        optimizer.step()

    return step


def run(
    *,
    quick: bool = False,
    threads: Sequence[int] = (1, 2),
    models: Sequence[str] = tuple(MODELS),
    notify: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Time training steps; return rows, bytes saved and environment.

    Args:
        quick: Fewer rounds.
        threads: The numbers of threads.
        models: Names from ``MODELS``.
        notify: Is told each row when it is there.
    """
    keep_freed_memory()
    before = torch.get_num_threads()
    rows, memory = [], []
    try:
        for name in models:
            make, shape = MODELS[name]
            x, target = torch.randn(shape), torch.randint(10, (shape[0],))
            kinds: tuple[Kind, ...] = ("plain", "fused", "eager")
            nets: dict[Kind, nn.Module] = {kind: make(kind) for kind in kinds}
            saved = {str(kind): saved_bytes(net, x) for kind, net in nets.items()}
            memory.append({"model": name, **saved, "ratio": round(saved["fused"] / saved["plain"], 4)})
            for count in threads:
                torch.set_num_threads(count)
                rounds = 7 if name == "resnet18" else 61
                times = interleaved(
                    {str(kind): _step(net, x, target) for kind, net in nets.items()},
                    rounds=max(3, rounds // 3) if quick else rounds,
                )
                for baseline in ("plain", "eager"):
                    row = {
                        "model": name,
                        "baseline": baseline,
                        "threads": count,
                        "step_us": round(times["fused"], 1),
                        "baseline_us": round(times[baseline], 1),
                        "ratio": round(times["fused"] / times[baseline], 3),
                    }
                    rows.append(row)
                    notify(" ".join(f"{key}={value}" for key, value in row.items()))
    finally:
        torch.set_num_threads(before)
    return {"benchmark": "step", "environment": environment(), "saved_bytes": memory, "rows": rows}
