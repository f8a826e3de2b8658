"""The kernels on a CUDA device: are they right, and how near are they to what memory allows?

    python benchmarks/gpu.py [--quick] [--out gpu.json]

compares values and gradients with formulas in float64 over the cases of tests/cases.py, and captures a forward and
backward pass in a CUDA graph. Then it times forward, and forward with backward, of agile, plain, PReLU and compiled
agile activations over twelve shapes up to 2 GiB, in float32 and bfloat16. It prints each row with the share of the
measured copy bandwidth, and writes all as JSON. It needs no download, and at most four minutes: rows that do not fit
into the time or into memory are named, not dropped in silence.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import agileact as ag
from agileact._common.terminal import print_table
from agileact.bench.peers import LastAxisPReLU
from agileact.bench.rows import gradients, off_start
from agileact.bench.timing import environment
from agileact.ops.fused import FUSED

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Shape, layout, channel axis; float32 sizes from 0.3 MiB to 2 GiB.
SHAPES: tuple[tuple[tuple[int, ...], str, int], ...] = (
    ((100, 4, 14, 14), "contiguous", 1),
    ((4096, 1024), "contiguous", 1),
    ((64, 197, 768), "contiguous", 2),
    ((32, 64, 56, 56), "contiguous", 1),
    ((32, 64, 56, 56), "channels_last", 1),
    ((256, 64, 56, 56), "contiguous", 1),
    ((256, 64, 56, 56), "channels_last", 1),
    ((256, 256, 28, 28), "contiguous", 1),
    ((256, 512, 7, 7), "contiguous", 1),
    ((16, 4096, 4096), "contiguous", 2),
    ((128, 64, 256, 128), "contiguous", 1),
    ((128, 64, 256, 256), "contiguous", 1),
)
PLAIN: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}
CLOSE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
FUNCTION: Any = ag.functional.agile
LIMIT = 225.0
"""Seconds after which no further row is begun."""


def check() -> dict[str, Any]:
    """Compare with float64 on the device; return the number of comparisons and what failed."""
    from tests.cases import CASES, INPUTS, parameters

    failures: list[str] = []
    count = 0
    for case in CASES:
        if case.base not in FUSED:
            continue
        for entry in INPUTS:
            if entry.name == "special":
                continue
            for dtype, close in CLOSE.items():
                x = entry.make(dtype).cuda()
                dim = entry.dim % x.ndim if x.ndim > 1 else 0
                grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype).cuda()
                pair = [t.cuda() for t in parameters(x.shape[dim], torch.float32)]
                got = _results(lambda *t, c=case, d=dim: FUNCTION(*t, c.base, d, **c.options), x, pair, grad)
                shape = [1] * x.ndim
                shape[dim] = -1
                want = _results(
                    lambda x, a, b, s=tuple(shape), c=case: a.view(s) * c.formula(x - b.view(s)),
                    x.double(), [t.double() for t in pair], grad.double(),
                )  # fmt: skip
                for part, (one, other) in enumerate(zip(got, want, strict=True)):
                    count += 1
                    size = max(1.0, float(other.abs().max())) if other.numel() else 1.0
                    if not torch.allclose(one.double(), other, rtol=close, atol=close * size, equal_nan=True):
                        failures.append(f"{case.id} {entry.name} {dtype} part {part}")
    x, pair = torch.randn(8, 5, 33, device="cuda"), [t.float().cuda() for t in parameters(5)]
    if not all(map(torch.equal, *(_results(_agile, x, pair, torch.ones_like(x)) for _ in range(2)))):
        failures.append("two runs differ in their bits")
    count += 1
    if not _graphed(x, pair):
        failures.append("a CUDA graph gives other numbers")
    return {"comparisons": count + 1, "failures": failures}


def _agile(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return ag.functional.agile(x, a, b, "silu")


def _results(function: Callable[..., Tensor], x: Tensor, pair: list[Tensor], grad: Tensor) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in (x, *pair)]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad)]


def _graphed(x: Tensor, pair: list[Tensor]) -> bool:
    """Return whether a captured forward and backward pass repeats what the eager one does, on new numbers."""
    grad = torch.ones_like(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    static = x.clone()
    with torch.cuda.stream(stream):
        for _ in range(3):
            _results(_agile, static, pair, grad)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = _results(_agile, static, pair, grad)
    static.copy_(x + 0.5)
    graph.replay()
    torch.cuda.synchronize()
    return all(map(torch.equal, captured, _results(_agile, x + 0.5, pair, grad)))


def seconds(run: Callable[[], object], rounds: int) -> float:
    """Return the median time of a call on the device."""
    for _ in range(3):
        run()
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return float(statistics.median(times))


def copy_bandwidth() -> float:
    """Return the bytes a second that a copy of 1 GiB reads and writes."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / seconds(lambda: target.copy_(source), 15)


def _forward(module: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        module(x)


def _row(
    base: str, shape: tuple[int, ...], layout: str, dim: int, dtype: torch.dtype, quick: bool, peak: float
) -> dict[str, Any]:
    size = math.prod(shape) * dtype.itemsize
    x = torch.randn(shape, device="cuda", dtype=dtype)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    channels = shape[dim]
    agile = off_start(ag.Agile(base, channels, dim=dim)).cuda()
    modules = {"plain": PLAIN[base]().cuda(), "agile": agile}
    if base == "relu":
        modules["prelu"] = (nn.PReLU(channels) if dim == 1 else LastAxisPReLU(channels)).to("cuda", dtype)
    if dtype == torch.float32 and not quick:
        modules["compiled"] = torch.compile(agile, dynamic=False)  # type: ignore[assignment]
    rounds = 7 if quick else 15
    row: dict[str, Any] = {"base": base, "shape": list(shape), "layout": layout}
    row |= {"dtype": str(dtype).removeprefix("torch."), "MiB": round(size / 2**20, 1)}
    for key, module in modules.items():
        row[f"{key}_forward_us"] = round(1e6 * seconds(partial(_forward, module, x), rounds), 1)
    for key, module in modules.items():
        row[f"{key}_training_us"] = round(1e6 * seconds(gradients(module, x), rounds), 1)
    # Forward reads and writes once; backward reads two tensors and writes one.
    row["forward_share"] = round(2 * size / (row["agile_forward_us"] / 1e6) / peak, 3)
    row["training_share"] = round(5 * size / (row["agile_training_us"] / 1e6) / peak, 3)
    row["forward_ratio"] = round(row["agile_forward_us"] / row["plain_forward_us"], 3)
    row["training_ratio"] = round(row["agile_training_us"] / row["plain_training_us"], 3)
    return row


def rows(quick: bool, peak: float, deadline: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Time all; return the rows and what was left out."""
    made, left_out = [], []
    for (shape, layout, dim), dtype, base in (
        (place, dtype, base) for place in SHAPES for dtype in (torch.float32, torch.bfloat16) for base in PLAIN
    ):
        size = math.prod(shape) * dtype.itemsize
        name = f"{base} {'x'.join(map(str, shape))} {layout} {str(dtype).removeprefix('torch.')}"
        if time.monotonic() > deadline or size * 6 > torch.cuda.mem_get_info()[0]:
            left_out.append(name)
            continue
        row = _row(base, shape, layout, dim, dtype, quick, peak)
        made.append(row)
        print(name, {key: value for key, value in row.items() if key.endswith(("share", "ratio"))}, file=sys.stderr)
        torch.cuda.empty_cache()
    return made, left_out


def main() -> int:
    """Check, time, print, write; return 1 if a comparison failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, nothing compiled")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no CUDA device here", file=sys.stderr)
        return 2
    deadline = time.monotonic() + LIMIT
    checked = check()
    print(
        f"{checked['comparisons']} comparisons, {len(checked['failures'])} failed", *checked["failures"][:20], sep="\n"
    )
    peak = copy_bandwidth()
    print(f"copy bandwidth {peak / 1e9:.0f} GB/s")
    made, left_out = rows(options.quick, peak, deadline)
    result = {"benchmark": "gpu", "device": torch.cuda.get_device_name(), "copy_bandwidth": peak, **checked,
              "left_out": left_out, "environment": environment(), "rows": made}  # fmt: skip
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    header = ("base", "shape", "layout", "dtype", "MiB", "forward_share", "training_share", "forward_ratio",
              "training_ratio")  # fmt: skip
    cells = [["x".join(map(str, row[key])) if key == "shape" else str(row[key]) for key in header] for row in made]
    print_table(
        "agile on the GPU: share of the copy bandwidth, and time over the plain activation's", header, cells, keys=4
    )
    for name in left_out:
        print(f"left out, for time or memory: {name}")
    return 1 if checked["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
