"""One training step of a whole network, agile against plain and against the eager formula; and what it saves."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agileact.bench.networks import Kind, build, training_batch
from agileact.bench.rows import THREADS, Notify, Row, collect, training_step
from agileact.bench.timing import interleaved

MODELS = ("paper", "resnet18")


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


def run(*, quick: bool = False, models: Sequence[str] = MODELS, notify: Notify = lambda text: None) -> dict[str, Any]:
    """Time training steps of ``models`` (names from ``NETWORKS``); return rows, bytes saved and environment."""
    memory: list[Row] = []
    result = collect("step", _rows(quick, models, memory), notify)
    return {**result, "saved_bytes": memory}


def _rows(quick: bool, models: Sequence[str], memory: list[Row]) -> Iterator[Row]:
    for name in models:
        x, target = training_batch(name)
        kinds: tuple[Kind, ...] = ("plain", "fused", "eager")
        nets = {str(kind): build(name, kind) for kind in kinds}
        saved = {kind: saved_bytes(net, x) for kind, net in nets.items()}
        memory.append({"model": name, **saved, "ratio": round(saved["fused"] / saved["plain"], 4)})
        for count in THREADS:
            torch.set_num_threads(count)
            rounds = 7 if name == "resnet18" else 61
            times = interleaved(
                {kind: training_step(net, x, target) for kind, net in nets.items()},
                rounds=max(3, rounds // 3) if quick else rounds,
            )
            for baseline in ("plain", "eager"):
                yield {
                    "model": name,
                    "baseline": baseline,
                    "threads": count,
                    "step_us": round(times["fused"], 1),
                    "baseline_us": round(times[baseline], 1),
                    "ratio": round(times["fused"] / times[baseline], 3),
                }
