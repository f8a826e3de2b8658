"""The Triton kernels under Triton's interpreter, on CPU tensors, over the cases of the CPU kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the package triton is missing")
pytestmark = pytest.mark.slow

# The interpreter is chosen when Triton is first imported, so the cases run in a process of their own.
_PROGRAM = """
import json, sys
import torch
from agileact.ops import default as _default
from agileact import bases
from agileact.ops import triton as _triton
from agileact.ops.fused import unfused
from agileact.ops import pool as _pool
from tests.cases import INPUTS, parameters

failures, count = [], 0

def differ(name, got, want, close):
    global count
    for part, (one, other) in enumerate(zip(got, want)):
        count += 1
        size = max(1.0, float(other.nan_to_num(0, 0, 0).abs().max())) if other.numel() else 1.0
        if not torch.allclose(one.double(), other.double(), rtol=close, atol=close * size, equal_nan=True):
            failures.append([*map(str, name), part, float((one.double() - other.double()).abs().max())])

def compare(name, x, grad, call, close, second=True):
    generator = torch.Generator().manual_seed(2)
    x64, grad64, call64 = x.double(), grad.double(), tuple(t.double() if torch.is_tensor(t) else t for t in call)
    got = [_triton.agile(x, *call), *_triton.agile_backward(grad, x, *call)]
    differ((name, call[2], x.dtype), got,
           [_default.agile(x64, *call64), *_default.agile_backward(grad64, x64, *call64)], close)
    assert got[0].stride() == got[1].stride() == torch.empty_like(x).stride()
    if call[2] == "relu":
        again = [_triton.agile(x, *call), *_triton.agile_backward(grad, x, *call)]
        differ((name, "again"), again, got, 0.0)
    if second and x.dtype == torch.float32:
        tangents = [torch.randn(t.shape, generator=generator) for t in (x, call[0], call[1])]
        wide = [t.double() for t in tangents]
        differ((name, call[2], "second"), _triton.agile_double_backward(*tangents, grad, x, *call),
               _default.agile_double_backward(*wide, grad64, x64, *call64), close)

for entry in INPUTS:
    for base in _triton.CODES:
        for dtype, close in ((torch.float32, 2e-5), (torch.bfloat16, 2e-2), (torch.float16, 4e-3)):
            # Infinities follow torch's own functions in float32, where these are not the formula.
            if entry.name == "special" and (dtype != torch.float32 or base not in ("relu", "sigmoid", "silu")):
                continue
            # Two bases over every case and dtype, and every base over the ways that parameters can lie.
            usual = entry.name in ("nodes", "filters", "tokens", "channels-last")
            if base not in ("relu", "silu") and not (usual and dtype == torch.float32):
                continue
            x = entry.make(dtype)
            dim = entry.dim % x.ndim if x.ndim > 1 else 0
            name, options = unfused(base, 0.0, 0.0)
            if base not in ("gelu", "gelu_tanh"):
                options = bases.get(base).resolve({})
            numbers = ([float(v) for v in options.values() if not isinstance(v, str)] + [0.0, 0.0])[:2]
            grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
            # The axes of the parameters: a channel, and, for some, one pair for all and one for each element.
            first = min(1, x.ndim - 1)
            places = [(dim, 1)] + ([(0, 0), (first, x.ndim - first)] if base == "silu" and usual else [])
            for start, axes in places:
                size = x.shape[start : start + axes].numel()
                scale, location = parameters(size, torch.float32)
                call = (scale, location, base, *numbers, start, axes)
                compare(entry.name, x, grad, call, close, second=entry.name != "special")
                if base in ("silu", "relu", "softplus") and usual:
                    scale, location = parameters(3 * size, torch.float32, seed=3)
                    compare(entry.name + " terms", x, grad, (scale, location, *call[2:], 3), close)
                if base == "silu" and entry.name == "filters":
                    compare(entry.name, x, grad, (None, *call[1:]), close, second=False)
                    compare(entry.name, x, grad, (scale[:size], None, *call[2:]), close, second=False)
            if base in ("relu", "sigmoid", "silu") and dtype == torch.float32 and entry.name in ("nodes", "filters"):
                for size in (0.0, -2.0, 1e-30, 1e30):
                    scale = torch.full((x.shape[dim],), size)
                    compare(entry.name, x, grad, (scale, torch.zeros_like(scale), base, *numbers, dim, 1), close)
            # From the output, where the default kernels work from the input.
            if base in ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "identity") and entry.name in (
                "filters", "channels-last"
            ) and dtype == torch.float32:
                scale, location = 1.5 + torch.arange(x.shape[dim]) / 4, torch.full((x.shape[dim],), 0.125)
                call = (scale, location, base, *numbers, dim, 1)
                y = _triton.agile(x, *call)
                differ((entry.name, base, "from output"), _triton.agile_backward(grad, y, *call, 1, True),
                       _triton.agile_backward(grad, x, *call), 1e-5)
                u = torch.ones_like(x), torch.ones_like(scale), torch.zeros_like(scale)
                differ((entry.name, base, "second, from output"),
                       _triton.agile_double_backward(*u, grad, y, *call, 1, True),
                       _triton.agile_double_backward(*u, grad, x, *call), 1e-5)

# One pair for all of many elements, and rows that fill more than one program.
for shape, start, axes in (((70000,), 0, 0), ((2, 3, 2500), 1, 1), ((300, 260), 1, 1), ((2, 130, 2, 3), 1, 1)):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    call = (*parameters(x.shape[start : start + axes].numel(), torch.float32), "relu", 0.0, 0.0, start, axes)
    compare(str(shape), x, torch.ones_like(x), call, 1e-5)

WINDOWS = (
    ((2, 2), (2, 2), (0, 0), (1, 1), False),
    ((3, 2), (1, 2), (1, 1), (1, 1), False),
    ((2, 3), (2, 1), (0, 1), (2, 1), True),
)
for *window, ceil in WINDOWS:
    for layout in (torch.contiguous_format, torch.channels_last):
        for size in (3, 1, 0):
            x = torch.randn(2, 3, 7, 8, generator=torch.Generator().manual_seed(5)).contiguous(memory_format=layout)
            scale = torch.tensor([-0.7, 1.5, 0.4][:size]) if size else None
            location = torch.tensor([0.1, -0.2, 0.3][:size]) if size else None
            out = _pool.output_size((7, 8), *window, ceil)
            call = (scale, location, "silu", 0.0, 0.0, *window)
            got, want = _triton.agile_max_pool2d(x, *call, out), _pool.forward(x, *call, out)
            differ(("pool", window, layout), got, want, 1e-5)
            grad = torch.randn(got[0].shape, generator=torch.Generator().manual_seed(6))
            made = _triton.agile_max_pool2d_backward(grad, *got[1:], *call, (7, 8))
            differ(("pool backward", window, layout), made, _pool.backward(grad, *want[1:], *call, (7, 8)), 1e-5)
            assert made[0].is_contiguous(memory_format=layout)
print(json.dumps({"count": count, "failures": failures}))
"""


def test_same_as_the_default_kernels() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM], env=environment, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["count"] > 500
    assert result["failures"] == []
