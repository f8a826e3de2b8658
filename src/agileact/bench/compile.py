"""A training step of compiled networks: agile activations, plain ones and PReLU, each under ``torch.compile``."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from agileact.bench.networks import NETWORKS, Kind, build, training_batch
from agileact.bench.rows import THREADS, Notify, Row, collect, training_step
from agileact.bench.timing import interleaved

KINDS: tuple[Kind, ...] = ("plain", "fused", "prelu")


def run(
    *,
    quick: bool = False,
    models: Sequence[str] = tuple(NETWORKS),
    backend: str = "inductor",
    notify: Notify = lambda text: None,
) -> dict[str, Any]:
    """Time training steps of ``models`` (names from ``NETWORKS``), compiled by ``backend``; return rows."""
    # Inductor keeps code by graph, not by instruction set: code of another set reads beyond its tensors.
    capability = torch.backends.cpu.get_cpu_capability()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/agileact-inductor-{capability}")
    return collect("compile", _rows(quick, models, backend), notify)


def _rows(quick: bool, models: Sequence[str], backend: str) -> Iterator[Row]:
    for name in models:
        x, target = training_batch(name)
        for count in THREADS:
            torch.set_num_threads(count)
            # Code is made for a number of threads.
            torch.compiler.reset()
            steps = {}
            for kind in KINDS:
                model: Any = torch.compile(build(name, kind), dynamic=False, backend=backend)
                steps[str(kind)] = training_step(model, x, target)
            times = interleaved(steps, rounds=11 if quick else 41, seconds=0.02, budget=10.0 if quick else 60.0)
            yield {
                "model": name,
                "threads": count,
                **{f"{'agile' if kind == 'fused' else kind}_us": round(times[kind], 1) for kind in KINDS},
                "ratio": round(times["fused"] / times["plain"], 3),
                "prelu_ratio": round(times["prelu"] / times["plain"], 3),
            }
