"""One training step of a whole network: agile, plain, by the eager formula, and with standardised weights."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from agileact import transforms
from agileact.bench.networks import Kind, build, training_batch
from agileact.bench.rows import THREADS, Notify, Row, collect, timed, training_step
from agileact.bench.timing import interleaved
from agileact.optim import standardize_weights
from agileact.study import models as networks
from agileact.study.spec.trial import ArmSpec

MODELS = ("paper", "resnet18")
RECIPES: dict[str, tuple[Callable[[ArmSpec], nn.Module], tuple[int, ...]]] = {
    "three-layers": (lambda arm: networks.fully_connected(arm, (784,), 10, 0, nodes=(32, 32, 32)), (100, 784)),
    "paper": (lambda arm: networks.paper_cnn(arm, (1, 28, 28), 10, 0), (100, 1, 28, 28)),
    "residual-plain": (lambda arm: networks.residual_plain(arm, (1, 28, 28), 10, 0), (100, 1, 28, 28)),
}
"""Networks that can do without normalisation, by the arm, and the shape of a batch."""


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
    """Time training steps of ``models`` (names from ``NETWORKS``); return rows, bytes saved and environment.

    ``recipe`` has the networks of ``RECIPES``: a step with standardised weights, their projection included, over one of
    the same network with batch normalisation and over the plain one; then evaluation of what fold makes of it.
    """
    memory: list[Row] = []
    result = collect("step", _rows(quick, models, memory), notify)
    return {**result, "saved_bytes": memory, "recipe": timed(_recipe_rows(quick), notify)}


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


def _recipe_rows(quick: bool) -> Iterator[Row]:
    for name, (make, shape) in RECIPES.items():
        x, target = torch.randn(shape), torch.randint(10, shape[:1])
        nets: dict[str, nn.Module] = {
            # As anybody writes it: a study's own chain takes an activation and the pooling behind it in one go.
            kind: nn.Sequential(
                OrderedDict(make(ArmSpec((("*", base),), normalisation=normalisation)).named_children())
            )
            for kind, base, normalisation in (
                ("recipe", "agile-relu", "none"),
                ("plain", "relu", "none"),
                ("batchnorm", "relu", "batch"),
            )
        }
        nets["recipe"], _ = transforms.standardize(nets["recipe"], x, inplace=True)
        optimizers = {kind: torch.optim.Adam(net.parameters(), lr=1e-4, fused=True) for kind, net in nets.items()}
        standardize_weights(optimizers["recipe"], nets["recipe"])
        rounds = 7 if name == "residual-plain" else 61
        rounds = max(3, rounds // 3) if quick else rounds
        steps = {kind: training_step(net, x, target, optimizers[kind]) for kind, net in nets.items()}
        for count in THREADS:
            torch.set_num_threads(count)
            yield _against("training", name, count, interleaved(steps, rounds=rounds))
        ready = {kind: net.eval() for kind, net in nets.items()}
        ready["recipe"], _ = transforms.fold(ready["recipe"], x)
        calls = {kind: partial(net, x) for kind, net in ready.items()}
        for count in THREADS:
            torch.set_num_threads(count)
            with torch.inference_mode():
                times = interleaved(calls, rounds=rounds)
            yield _against("evaluation, folded", name, count, times)


def _against(mode: str, name: str, threads: int, times: dict[str, float]) -> Row:
    return {
        "mode": mode,
        "model": name,
        "threads": threads,
        **{f"{kind}_us": round(value, 1) for kind, value in times.items()},
        **{f"ratio_{kind}": round(times["recipe"] / times[kind], 3) for kind in ("batchnorm", "plain")},
    }
