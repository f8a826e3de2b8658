"""Compare what a folded model makes with what the agile one does, each quantity by its own size."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agileact.transforms.edit.revert import copied
from agileact.transforms.trace.recording import Outcome, mapped

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}
"""How far outputs may be apart, relative to the largest number of the output."""

# In float64 everything that is more than rounding is seen.
PROVEN = 1e-9

_SEED = 0


@dataclass(frozen=True)
class Gap:
    """How far a quantity of two models is apart: absolutely, and relative to its size."""

    absolute: float = 0.0
    relative: float = 0.0


def largest(gaps: dict[str, Gap]) -> Gap:
    """Return the largest absolute and the largest relative gap."""
    return Gap(
        max((gap.absolute for gap in gaps.values()), default=0.0),
        max((gap.relative for gap in gaps.values()), default=0.0),
    )


def compared(expected: Outcome, actual: Outcome, *, buffers: bool) -> dict[str, Gap]:
    """Return how far apart each output is, what the model keeps in attributes, and on demand each buffer.

    An output is measured by its own largest number. Of a running mean that is nothing: it may be 0 but for rounding,
    so it is measured by the standard deviation beside it, too.
    """
    if [one.shape for one in expected.outputs] != [one.shape for one in actual.outputs]:
        return {"the number or the shape of the outputs": Gap(math.inf, math.inf)}
    single = len(expected.outputs) == 1
    gaps = {
        "the output" if single else f"output {index}": _between(one, other)
        for index, (one, other) in enumerate(zip(expected.outputs, actual.outputs, strict=True))
    }
    for name, kept in expected.kept.items():
        gaps[name] = _between(kept, actual.kept.get(name))
    for name, buffer in expected.buffers.items() if buffers else ():
        gaps[name] = _between(buffer, actual.buffers.get(name), _spread(name, expected.buffers))
    return gaps


def _spread(name: str, buffers: dict[str, Tensor]) -> float:
    """Return the size that rounding of a running statistic is relative to, as the one beside it tells."""
    owner, _, last = name.rpartition("running_")
    mean, variance = (buffers.get(f"{owner}running_{one}") for one in ("mean", "var"))
    if last not in ("mean", "var") or mean is None or variance is None or mean.shape != variance.shape:
        return 0.0
    deviation = variance.double().abs().sqrt()
    sizes = deviation if last == "mean" else deviation * mean.double().abs()
    return float(sizes.nan_to_num(0.0, 0.0, 0.0).amax()) if sizes.numel() else 0.0


def _between(expected: Tensor, actual: Tensor | None, least: float = 0.0) -> Gap:
    if actual is None or expected.shape != actual.shape:
        return Gap(math.inf, math.inf)
    if expected.layout is not torch.strided:
        expected, actual = expected.to_dense(), actual.to_dense()
    if expected.is_complex() and actual.is_complex():
        expected, actual = torch.view_as_real(expected.resolve_conj()), torch.view_as_real(actual.resolve_conj())
    if torch.equal(expected, actual) or not expected.numel():
        return Gap()
    if not expected.dtype.is_floating_point:
        return Gap(math.inf, math.inf)
    one, other = expected.to(torch.float64), actual.to(torch.float64)
    usual = torch.isfinite(one)
    if not torch.equal(usual, torch.isfinite(other)) or not torch.equal(
        torch.nan_to_num(one[~usual]), torch.nan_to_num(other[~usual])
    ):
        return Gap(math.inf, math.inf)
    if not usual.any():
        return Gap()
    absolute = float((one - other)[usual].abs().max())
    size = max(float(one[usual].abs().max()), least)
    return Gap(absolute, absolute / size if size else math.inf)


def disturbed(model: nn.Module) -> nn.Module:
    """Return a model in float64 with every parameter changed in its last bit: what it changes is rounding."""
    moved = copied(model)
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for parameter in moved.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.mul_(1 + 2.0**-52 * noise.to(parameter.device))
    return moved


def precision(model: nn.Module) -> torch.dtype:
    """Return the coarsest of the dtypes that a model computes in."""
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.dtype in TOLERANCES}
    return max(dtypes, key=lambda dtype: TOLERANCES[dtype], default=torch.float32)


def wide(value: Any) -> Any:
    """Return an example or outputs with floating-point tensors in float64."""
    return mapped(value, lambda tensor: tensor.double() if tensor.dtype.is_floating_point else tensor)
