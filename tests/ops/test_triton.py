"""The Triton kernels under Triton's interpreter, on CPU tensors, over the cases of the CPU kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="the package triton is missing")

# The interpreter is chosen when Triton is first imported, so the cases run in a process of their own.
_PROGRAM = """
import json, sys
import torch
from agileact.ops import default as _default
from agileact import bases
from agileact.ops import triton as _triton
from agileact.ops.fused import unfused
from tests.cases import INPUTS, parameters

pytestmark = pytest.mark.slow


failures, count = [], 0

def compare(name, x, grad, call, wide, close):
    global count
    got = [_triton.agile(x, *call), *_triton.agile_backward(grad, x, *call)]
    want = [_default.agile(x.double(), *wide), *_default.agile_backward(grad.double(), x.double(), *wide)]
    again = [_triton.agile(x, *call), *_triton.agile_backward(grad, x, *call)] if call[2] == "relu" else got
    for part, one, other, same in zip(("y", "x", "scale", "location"), got, want, again):
        count += 1
        size = max(1.0, float(other.nan_to_num(0, 0, 0).abs().max())) if other.numel() else 1.0
        fits = torch.allclose(one.double(), other.double(), rtol=close, atol=close * size, equal_nan=True)
        if not fits or not torch.allclose(one, same, rtol=0, atol=0, equal_nan=True):
            failures.append([name, call[2], str(x.dtype), part, float((one.double() - other.double()).abs().max())])

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
            for start, count_ in places:
                size = x.shape[start : start + count_].numel()
                scale, location = parameters(size, torch.float32)
                call = (scale, location, base, *numbers, start, count_)
                wide = (scale.double(), location.double(), base, *numbers, start, count_)
                compare(entry.name, x, grad, call, wide, close)
                if base == "silu" and entry.name == "filters":
                    compare(entry.name, x, grad, (None, *call[1:]), (None, *wide[1:]), close)
                    compare(entry.name, x, grad, (scale, None, *call[2:]), (scale.double(), None, *wide[2:]), close)
            if base in ("relu", "sigmoid", "silu") and dtype == torch.float32 and entry.name in ("nodes", "filters"):
                for size in (0.0, -2.0, 1e-30, 1e30):
                    scale = torch.full((x.shape[dim],), size)
                    location = torch.zeros_like(scale)
                    call = (scale, location, base, *numbers, dim, 1)
                    wide = (scale.double(), location.double(), base, *numbers, dim, 1)
                    compare(entry.name, x, grad, call, wide, close)
print(json.dumps({"count": count, "failures": failures}))
"""


def test_same_as_the_default_kernels() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["count"] > 500
    assert result["failures"] == []
