"""How active units are, by f'(x - b) on a sample of what arrives at a module; how far rows of weights turn."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from agileact import bases
from agileact.monitor.units import as_rows, units_of
from agileact.nn import AgileModule, AgileWrapped
from agileact.nn.rows import directions, laid_out, local

_ACTIVE = 1e-3
"""A slope below this share of the largest one is none: a unit that never has more is dead."""


class Activity:
    """What is known of the units of one module, from at most ``samples`` values of each in one forward pass.

    A unit of a bounded f is saturated if its mean slope is below the share ``saturation`` of the largest one.
    """

    def __init__(self, module: AgileModule, samples: int, saturation: float) -> None:
        self.module = module
        self.samples = samples
        self.saturation = saturation
        self.bounded = all(map(math.isfinite, module.facts.bounds))
        self.derivative = _derivative(module)
        x = torch.linspace(-20, 20, 4001, dtype=torch.float32, device=module.scale.device)
        with torch.no_grad():
            steepest = float(self.derivative(x).abs().nan_to_num(0.0, 0.0, 0.0).max())
        self.steepest = steepest if steepest > 0 else 1.0
        self.idle: Tensor | None = None
        self.measured = 0
        self._handle: RemovableHandle | None = None
        self._forget()

    def _forget(self) -> None:
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None
        self._count = 0

    def watch(self) -> None:
        """Look at every forward pass that records gradients, until :meth:`result`."""
        if self._handle is None:
            self._handle = self.module.register_forward_pre_hook(self._hook)

    def stop(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _hook(self, module: Any, args: tuple[Any, ...]) -> None:
        # In a graph that is being compiled or exported this is nothing; in evaluation other data may arrive. Another
        # module is one inside that shares the hooks of the one around it.
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or module is not self.module:
            return
        x = args[0] if args else None
        if not isinstance(x, Tensor) or torch._C._functorch.is_functorch_wrapped_tensor(x):
            return
        with torch.no_grad():
            self._look(x.detach())

    def _look(self, x: Tensor) -> None:
        module = self.module
        start, stop = units_of(module, x)
        x = _sample(x, start, stop, self.samples)
        if x.dtype in (torch.float16, torch.bfloat16):
            x = x.float()
        rows = as_rows(x, start, stop)
        slope = torch.zeros_like(rows)
        for scale, location in zip(
            module.scale.detach().view(module.terms, -1), module.location.detach().view(module.terms, -1), strict=True
        ):
            z = rows - location.to(rows.dtype)[:, None]
            gain = getattr(module, "gain", None)
            part = self.derivative(z if gain is None else z * gain.detach().to(rows.dtype)[:, None]).abs()
            # A term of scale 0 passes nothing.
            slope = torch.maximum(slope, part * (scale != 0)[:, None])
        finite, largest, total = rows.isfinite().all(), slope.amax(dim=1), slope.sum(dim=1)
        if self._seen is None:
            self._seen = largest, total, finite
        else:
            before = self._seen
            self._seen = torch.maximum(before[0], largest), before[1] + total, before[2] & finite
        self._count += rows.shape[1]

    def result(self, window: int) -> tuple[float, float, bool] | None:
        """Stop, and return the shares of dead and of saturated units and whether all values were finite.

        None if nothing was seen. The share of saturated units is NaN if f is not bounded. A unit is dead if it was not
        active in ``window`` measurements, or in all if there were fewer.
        """
        self.stop()
        seen, count = self._seen, self._count
        self._forget()
        if seen is None or count == 0:
            return None
        largest, mean, finite = seen[0].cpu(), (seen[1] / count).cpu(), bool(seen[2])
        if self.idle is None or self.idle.shape != largest.shape:
            self.idle = torch.zeros(largest.shape, dtype=torch.int64)
        # What is not finite is not dead: it is reported as what it is.
        active = ~(largest <= _ACTIVE * self.steepest)
        self.idle = torch.where(active, 0, self.idle + 1)
        self.measured += 1
        dead = float((self.idle >= min(window, self.measured)).double().mean())
        saturated = float((mean < self.saturation * self.steepest).double().mean()) if self.bounded else math.nan
        return dead, saturated, finite


def _derivative(module: AgileModule) -> Callable[[Tensor], Tensor]:
    if not isinstance(module, AgileWrapped):
        return partial(bases.get(module.base).derivative, **module.options)

    def derivative(x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(module.function(leaf).sum(), leaf)[0]

    return derivative


def _sample(x: Tensor, start: int, stop: int, samples: int) -> Tensor:
    """Return every so manieth element along the axes that are no units': at most ``samples`` of each unit; a view."""
    others = [axis for axis in range(x.ndim) if not start <= axis < stop]

    def excess() -> float:
        return math.prod(x.shape[axis] for axis in others) / samples

    # From the last axis to the first, so that what cannot be spread evenly is left to the samples of the batch; and
    # again, if some axes were too short to give their part.
    while excess() > 1:
        long = [axis for axis in others if x.shape[axis] > 1]
        for index, axis in reversed(list(enumerate(long))):
            step = min(math.ceil(excess() ** (1 / (index + 1))), x.shape[axis])
            x = x[(slice(None),) * axis + (slice(None, None, step),)]
            if excess() <= 1:
                break
    return x


class Turning:
    """Compares the rows of standardised layers before and after a step.

    The copy of the rows is memory that is there already; between two measurements nothing is done. ``whole`` returns
    what is compared of a weight; of one that FSDP has sharded that is this process's part, unless told otherwise.
    """

    def __init__(self, model: nn.Module, whole: Callable[[Any], Tensor] = local) -> None:
        self.layers = {name.removeprefix("_orig_mod."): layer for name, layer in directions(model).items()}
        self._whole = whole
        self._before: dict[str, Tensor] | None = None

    @torch.no_grad()
    def note(self) -> None:
        """Keep the rows as they are before a step."""
        now = {name: self._whole(layer.weight) for name, layer in self.layers.items()}
        if self._before is None:
            self._before = {name: torch.empty_like(weight) for name, weight in now.items()}
        for name, weight in now.items():
            self._before[name].copy_(weight)

    @torch.no_grad()
    def each(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return for each layer the lengths of its rows, and their angles since :meth:`note`, which came before."""
        assert self._before is not None
        found = {}
        for name, layer in self.layers.items():
            rows = []
            for weight in (self._before[name], self._whole(layer.weight)):
                view, axes = laid_out(layer, weight.float())
                length = torch.linalg.vector_norm(view, dim=axes, keepdim=True)
                rows.append((length, view / length, axes))
            (_, before, axes), (length, after, _) = rows
            angle = 2 * torch.asin((torch.linalg.vector_norm(after - before, dim=axes) / 2).clamp(max=1.0))
            found[name] = length, angle
        return found

    @torch.no_grad()
    def measure(self) -> Tensor | None:
        """Return for each layer the shortest and the longest row, and the median and largest angle since :meth:`note`.

        None before the first note. The angle of unit rows u and v is 2 asin(|u - v| / 2), which keeps its digits for
        the small angles of a step.
        """
        if self._before is None:
            return None
        found = []
        for length, angle in self.each().values():
            if angle.numel():
                found += [length.min(), length.max(), angle.flatten().quantile(0.5), angle.max()]
            else:  # a process that has no part of a sharded weight
                found += [length.new_tensor(math.nan)] * 4
        return torch.stack(found).double().cpu()
