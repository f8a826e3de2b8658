"""Rows of weights that are directions: how long they are, and by what angle a step turns them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from agileact.nn.rows import directions, laid_out, local


class Turning:
    """Compares the rows of standardised layers before and after a step.

    The copy of the rows is memory that is there already; between two measurements nothing is done.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = {name.removeprefix("_orig_mod."): layer for name, layer in directions(model).items()}
        self._before: dict[str, Tensor] | None = None

    @torch.no_grad()
    def note(self) -> None:
        """Keep the rows as they are before a step."""
        now = {name: local(layer) for name, layer in self.layers.items()}
        if self._before is None:
            self._before = {name: torch.empty_like(weight) for name, weight in now.items()}
        for name, weight in now.items():
            self._before[name].copy_(weight)

    @torch.no_grad()
    def measure(self) -> Tensor | None:
        """Return for each layer the shortest and the longest row, and the median and largest angle since :meth:`note`.

        None before the first note. The angle of unit rows u and v is 2 asin(|u - v| / 2), which keeps its digits for
        the small angles of a step.
        """
        if self._before is None:
            return None
        found = []
        for name, layer in self.layers.items():
            rows = []
            for weight in (self._before[name], local(layer)):
                view, axes = laid_out(layer, weight.float())
                length = torch.linalg.vector_norm(view, dim=axes, keepdim=True)
                rows.append((length, view / length, axes))
            (_, before, axes), (length, after, _) = rows
            angle = 2 * torch.asin((torch.linalg.vector_norm(after - before, dim=axes) / 2).clamp(max=1.0))
            if angle.numel():
                found += [length.min(), length.max(), angle.flatten().quantile(0.5), angle.max()]
            else:  # a process that has no part of a sharded weight
                found += [length.new_tensor(math.nan)] * 4
        return torch.stack(found).double().cpu()
