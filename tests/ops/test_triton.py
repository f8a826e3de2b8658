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
from agileact.ops import _default, _triton
from agileact import bases
from agileact.ops._fused import unfused
from tests.cases import INPUTS, parameters

failures, count = [], 0
for entry in INPUTS:
    if entry.name in ("special", "no-samples"):
        continue
    for base in _triton.CODES:
        for dtype, close in ((torch.float32, 2e-5), (torch.bfloat16, 2e-2)):
            # Every base over two ways that parameters can lie, and one base over all cases.
            if base != "relu" and (
                dtype == torch.bfloat16 or entry.name not in ("nodes", "filters")
            ):
                continue
            x = entry.make(dtype)
            dim = entry.dim % x.ndim if x.ndim > 1 else 0
            scale, location = parameters(x.shape[dim], torch.float32)
            name, options = unfused(base, 0.0, 0.0)
            if base not in ("gelu", "gelu_tanh"):
                options = bases.get(base).resolve({})
            numbers = ([float(v) for v in options.values() if not isinstance(v, str)] + [0.0, 0.0])[:2]
            grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
            call = (scale, location, base, *numbers, dim, 1)
            wide = (scale.double(), location.double(), base, *numbers, dim, 1)
            got = [_triton.agile(x, *call), *_triton.agile_backward(grad, x, *call)]
            want = [_default.agile(x.double(), *wide)]
            want += _default.agile_backward(grad.double(), x.double(), *wide)
            again = got if base != "relu" else [_triton.agile(x, *call), *_triton.agile_backward(grad, x, *call)]
            for part, one, other, same in zip(("y", "x", "scale", "location"), got, want, again):
                count += 1
                size = max(1.0, float(other.abs().max()))
                if float((one.double() - other).abs().max()) > close * size or not torch.equal(one, same):
                    failures.append([entry.name, base, str(dtype), part, float((one.double() - other).abs().max())])
print(json.dumps({"count": count, "failures": failures}))
"""


def test_same_as_the_default_kernels() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["count"] > 150
    assert result["failures"] == []
