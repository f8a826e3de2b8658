"""The operator against the plain activation and against what one would use instead."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agileact.bench.peers import PLAIN, Eager, LastAxisPReLU, Rational
from agileact.bench.rows import THREADS, Notify, Row, collect, gradients
from agileact.bench.timing import interleaved
from agileact.nn import Agile

# Shape, layout, channel axis.
SHAPES: tuple[tuple[tuple[int, ...], str, int], ...] = (
    ((100, 16, 28, 28), "contiguous", 1),
    ((100, 8, 14, 14), "contiguous", 1),
    ((100, 4, 7, 7), "contiguous", 1),
    ((32, 64, 56, 56), "contiguous", 1),
    ((32, 64, 56, 56), "channels_last", 1),
    ((8, 256, 28, 28), "contiguous", 1),
    ((4096, 1024), "contiguous", 1),
    ((64, 197, 768), "contiguous", 2),
)


def run(*, quick: bool = False, notify: Notify = lambda text: None) -> dict[str, Any]:
    """Time every base, shape, dtype and number of threads; return rows, summary and environment.

    ``quick`` leaves out ``torch.compile`` of the eager formula, as compilation takes most of the time.
    """
    result = collect("op", _rows(quick), notify)
    return {**result, "summary": summary(result["rows"])}


def _rows(quick: bool) -> Iterator[Row]:
    modes = ((torch.float32, "training"), (torch.float32, "inference"), (torch.bfloat16, "training"))
    for base, (shape, layout, dim), (dtype, mode) in itertools.product(PLAIN, SHAPES, modes):
        contenders = _contenders(base, shape, layout, dim, dtype, mode, not quick)
        for count in THREADS:
            torch.set_num_threads(count)
            yield {
                "base": base,
                "shape": list(shape),
                "layout": layout,
                "dtype": str(dtype).removeprefix("torch."),
                "mode": mode,
                "threads": count,
                **_times(contenders, quick),
            }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return geometric means and worst rows of fused / plain, and of bfloat16 / float32."""
    result: dict[str, Any] = {}
    for base in dict.fromkeys(row["base"] for row in rows):
        own = [row for row in rows if row["base"] == base]
        training = [row["ratio"] for row in own if row["mode"] == "training" and row["dtype"] == "float32"]
        inference = [row["ratio"] for row in own if row["mode"] == "inference"]
        half = [row for row in own if row["dtype"] == "bfloat16"]
        result[base] = {
            "training_mean": _mean(training),
            "training_worst": max(training),
            "inference_mean": _mean(inference),
            "inference_worst": max(inference),
            "bfloat16_mean": _mean([row["ratio"] for row in half]),
            "bfloat16_to_float32_mean": _mean([row["fused_us"] / row["float32_us"] for row in half]),
            "bfloat16_to_float32_worst": max(round(row["fused_us"] / row["float32_us"], 3) for row in half),
        }
    return result


def _mean(values: Sequence[float]) -> float:
    return round(math.exp(sum(map(math.log, values)) / len(values)), 3)


NAMES = ("plain", "fused", "eager", "compile", "prelu", "rational", "float32")
"""The contenders; the last one is the fused operator in float32 beside that in bfloat16."""


def _contenders(
    base: str, shape: tuple[int, ...], layout: str, dim: int, dtype: torch.dtype, mode: str, compiled: bool
) -> dict[str, Callable[[], object]]:
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype)
    if layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    channels = shape[dim]
    plain = PLAIN[base]()
    fused = Agile(base, channels, dim=dim)
    eager = Eager(plain, channels, dim, len(shape))
    with torch.no_grad():
        # Off the start: at scale 1 and location 0 the operator calls PyTorch's own kernel.
        fused.scale.copy_(eager.scale.flatten())
        fused.location.copy_(eager.location.flatten())
    eager.to(dtype)
    modules: dict[str, nn.Module] = {"plain": plain, "fused": fused, "eager": eager}
    if dtype == torch.float32 and mode == "training":
        modules["prelu"] = nn.PReLU(channels) if dim == 1 else LastAxisPReLU(channels)
        modules["rational"] = Rational()
        if compiled:
            modules["compile"] = torch.compile(eager, dynamic=False)  # type: ignore[assignment]
    result = {name: _call(module, x, mode) for name, module in modules.items()}
    if dtype == torch.bfloat16:
        result["float32"] = _call(fused, x.float(), mode)
    return result


def _times(contenders: dict[str, Callable[[], object]], quick: bool) -> dict[str, float | None]:
    times = interleaved(contenders, rounds=21 if quick else 41, budget=1.0)
    return {
        **{f"{name}_us": round(times[name], 2) if name in times else None for name in NAMES},
        "ratio": round(times["fused"] / times["plain"], 3),
    }


def _call(module: nn.Module, x: Tensor, mode: str) -> Callable[[], object]:
    if mode == "training":
        return gradients(module, x)

    def infer() -> object:
        with torch.inference_mode():
            return module(x)

    return infer
