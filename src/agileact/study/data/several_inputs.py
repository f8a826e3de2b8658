"""Several inputs of a network in one tensor: batches, workers, stores and evaluation know of a single one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agileact._common.errors import DataError
from agileact.study.data.on_disk import built

Layout = tuple[tuple[str, str, tuple[int, ...], int], ...]
"""Of each input its name ("" where inputs go by position), dtype, a sample's shape, and the largest whole number."""

_EXACT = 2**24
"""Whole numbers below it are the same in float32."""


def layout_of(target: str, parts: Sequence[Mapping[str, Tensor]], *, named: bool) -> Layout:
    """Return the layout of inputs by name, the same in each part, of numbers that float32 can hold."""
    first = parts[0]
    layout = []
    for name, x in first.items():
        for part in parts:
            other = part.get(name)
            if list(part) != list(first) or other is None or (other.dtype, other.shape[1:]) != (x.dtype, x.shape[1:]):
                raise DataError(
                    f"the parts of the data {target!r} have different inputs: {_told(first)}, and {_told(part)}"
                )
        highest = 0
        if not x.is_floating_point():
            highest = max(int(part[name].max()) for part in parts if part[name].numel())
            if highest >= _EXACT or min(int(part[name].min()) for part in parts if part[name].numel()) <= -_EXACT:
                raise DataError(f"the input {name!r} of the data {target!r} holds whole numbers of {_EXACT:,} or more")
        dtype = "float32" if x.is_floating_point() else str(x.dtype).removeprefix("torch.")
        layout.append((name if named else "", dtype, tuple(x.shape[1:]), highest))
    return tuple(layout)


def _told(part: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {x.dtype} {tuple(x.shape[1:])}" for name, x in part.items())


def packed(inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the inputs concatenated, (N, numbers of a sample) of float32."""
    columns = [x.flatten(1) if x.dim() > 1 else x[:, None] for x in inputs.values()]
    numbers = 4 * sum(x.shape[1] for x in columns)
    return built(
        len(columns[0]), numbers, lambda where: torch.cat([x[where].to(torch.float32) for x in columns], dim=1)
    )


@dataclass(frozen=True)
class Unpack:
    """Gives a network its inputs out of one tensor; a hook before its ``forward``, so that its names stay."""

    layout: Layout

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments that the network takes, for the one that it was called with."""
        (x,) = args
        pieces = x.split([math.prod(shape) for _, _, shape, _ in self.layout], dim=1)
        inputs = [
            piece.reshape(len(x), *shape).to(getattr(torch, dtype))
            for piece, (_, dtype, shape, _) in zip(pieces, self.layout, strict=True)
        ]
        names = [name for name, *_ in self.layout]
        return ((), dict(zip(names, inputs, strict=True))) if names[0] else (tuple(inputs), {})

    def example(self, samples: int) -> Tensor:
        """Return samples to try a network with: normal numbers, and whole ones up to the largest."""
        generator = torch.Generator().manual_seed(0)
        return packed(
            {
                str(index): torch.randn(samples, *shape, generator=generator)
                if dtype == "float32"
                else torch.randint(highest + 1, (samples, *shape), generator=generator)
                for index, (_, dtype, shape, highest) in enumerate(self.layout)
            }
        )
