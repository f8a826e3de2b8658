"""A few calls of every compiled kernel, small enough for valgrind; see docs/sanitizers.md."""

from __future__ import annotations

import torch
from torch import Tensor

import agileact as ag
from agileact.ops import CPU
from agileact.ops.fused import FUSED

INPUTS = (
    (torch.randn(3, 5, 7, 9), 1),
    (torch.randn(7, 5), 1),
    (torch.randn(3, 5, 7, 9).contiguous(memory_format=torch.channels_last), 1),
    (torch.randn(2, 70, 3), 2),
    (torch.randn(6, 10, 9)[::2, 1::3], 1),
)


def touch(y: Tensor, inputs: tuple[Tensor, ...]) -> int:
    """Read every gradient, so that one made from uninitialised memory is noticed."""
    gradients = torch.autograd.grad(y, inputs, torch.ones_like(y))
    return sum(int(float(gradient.sum()) < torch.inf) for gradient in gradients)


def main() -> None:
    """Run forward and backward of the activation, of two terms, and of the pooling."""
    if not CPU.loaded:
        raise SystemExit(f"there is nothing to check: {CPU.reason}")
    torch.set_num_threads(1)
    count = 0
    for base in sorted(set(FUSED) - {"gelu_tanh"}):
        for x, dim in INPUTS:
            for dtype in (torch.float32, torch.bfloat16):
                leaf = x.to(dtype).requires_grad_()
                scale = (1 + 0.1 * torch.randn(x.shape[dim])).requires_grad_()
                location = (0.1 * torch.randn(x.shape[dim])).requires_grad_()
                inputs = (leaf, scale, location)
                count += touch(ag.functional.agile(*inputs, base, dim), inputs)
                both = torch.stack([scale, location])
                count += touch(ag.functional.combined_agile(leaf, both, both.flip(0), base, dim), inputs)
                if x.ndim == 4:
                    pooled = ag.functional.agile_max_pool2d(*inputs, 2, base=base)
                    assert isinstance(pooled, Tensor)
                    count += touch(pooled, inputs)
    print(f"{CPU.capability}: {count} gradients")


if __name__ == "__main__":
    main()
