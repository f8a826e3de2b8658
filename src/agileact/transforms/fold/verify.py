"""Compare a folded model with the agile one: in evaluation, in training, and in float64 where that is in doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agileact.transforms.edit.revert import copied
from agileact.transforms.trace.recorder import eagerly, untouched
from agileact.transforms.trace.recording import Arguments, arguments, cloned, mapped, tensors

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}
"""How far outputs may be apart, relative to the largest number of the output."""

# In float64 everything that is more than rounding is seen.
PROVEN = 1e-9

_SEED = 0


@dataclass(frozen=True)
class Difference:
    """How far the outputs of two models are apart.

    Attributes:
        absolute: The largest absolute difference.
        relative: Likewise, relative to the largest number of the tensor in which it is.
    """

    absolute: float
    relative: float


def precision(model: nn.Module) -> torch.dtype:
    """Return the coarsest of the dtypes that a model computes in."""
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.dtype in TOLERANCES}
    return max(dtypes, key=lambda dtype: TOLERANCES[dtype], default=torch.float32)


def difference(first: nn.Module, second: nn.Module, example_inputs: Arguments, *, training: bool) -> Difference | None:
    """Run two models on an example, with the same random numbers, and compare all that they return.

    Args:
        first: A model.
        second: The model that is compared with it.
        example_inputs: The example.
        training: Whether in training mode: then copies of the models run, and their buffers are compared, too.

    Returns:
        None if the first model raises in training mode, as batch normalisation of a single number does.
    """
    if not training:
        return _largest(outputs(first, example_inputs), outputs(second, example_inputs))
    first, second = copied(first), copied(second)
    try:
        expected = _training(first, example_inputs)
    except (ValueError, RuntimeError):
        return None
    return _largest(expected, _training(second, example_inputs))


def sensitivity(model: nn.Module, example_inputs: Arguments, *, training: bool) -> float | None:
    """Return how far outputs in float64 move, relative to their size, if every parameter is changed in its last bit."""
    moved = copied(model)
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for parameter in moved.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.mul_(1 + 2.0**-52 * noise.to(parameter.device))
    found = difference(model, moved, example_inputs, training=training)
    return None if found is None else found.relative


def own_rounding(model: nn.Module, exact: nn.Module, example_inputs: Arguments) -> float:
    """Return how far the outputs of a model are from those of the same model in float64, relative to their size."""
    expected = [one.double() if one.dtype.is_floating_point else one for one in outputs(exact, wide(example_inputs))]
    actual = [one.double() if one.dtype.is_floating_point else one for one in outputs(model, example_inputs)]
    return _largest(expected, actual).relative


def outputs(model: nn.Module, example_inputs: Arguments) -> list[Tensor]:
    """Return all tensors that a model returns in evaluation mode."""
    args, kwargs = cloned(arguments(example_inputs))
    with untouched(model), torch.no_grad():
        torch.manual_seed(_SEED)
        return [tensor.clone() for tensor in tensors(model(*args, **kwargs))]


def _training(model: nn.Module, example_inputs: Arguments) -> list[Tensor]:
    args, kwargs = cloned(arguments(example_inputs))
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    model.train()
    with eagerly(), torch.random.fork_rng(devices=list(devices)), torch.no_grad():
        torch.manual_seed(_SEED)
        made = list(tensors(model(*args, **kwargs)))
    return made + list(model.buffers())


def _largest(expected: list[Tensor], actual: list[Tensor]) -> Difference:
    if [one.shape for one in expected] != [one.shape for one in actual]:
        return Difference(math.inf, math.inf)
    both = [_between(one, other) for one, other in zip(expected, actual, strict=True)]
    return Difference(max([0.0, *(one.absolute for one in both)]), max([0.0, *(one.relative for one in both)]))


def _between(expected: Tensor, actual: Tensor) -> Difference:
    if torch.equal(expected, actual) or not expected.numel():
        return Difference(0.0, 0.0)
    if not expected.dtype.is_floating_point:
        return Difference(math.inf, math.inf)
    wide, other = expected.to(torch.float64), actual.to(torch.float64)
    usual = torch.isfinite(wide)
    if not torch.equal(usual, torch.isfinite(other)) or not torch.equal(
        torch.nan_to_num(wide[~usual]), torch.nan_to_num(other[~usual])
    ):
        return Difference(math.inf, math.inf)
    if not usual.any():
        return Difference(0.0, 0.0)
    absolute = float((wide - other)[usual].abs().max())
    size = float(wide[usual].abs().max())
    return Difference(absolute, absolute / size if size else math.inf)


def wide(example_inputs: Arguments) -> Any:
    """Return an example with its floating-point tensors in float64."""

    def change(tensor: Tensor) -> Tensor:
        return tensor.to(torch.float64) if tensor.dtype.is_floating_point else tensor

    return mapped(example_inputs, change)
