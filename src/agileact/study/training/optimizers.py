"""Optimizers by name, as a spec refers to them, schedules of their learning rates, and one for many networks."""

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from agileact._common.errors import ArgumentError
from agileact._common.names import unknown

_KINDS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "nadam": (torch.optim.NAdam, {"foreach": True}),
    "rmsprop": (torch.optim.RMSprop, {"foreach": True}),
    "sgd": (torch.optim.SGD, {"fused": True}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "fused": True}),
}
_NOT_OPTIONS = ("self", "params", "lr", "weight_decay", "foreach", "fused", "capturable", "differentiable", "maximize")
"""Arguments of optimizers that are fields of their own, or say how it computes and not what."""


def names() -> list[str]:
    """Return the names of all optimizers, sorted."""
    return sorted(_KINDS)


def build(name: str, groups: Iterable[dict[str, Any]], options: Mapping[str, Any] = {}) -> torch.optim.Optimizer:
    """Build the optimizer ``name`` over parameter groups that carry their learning rates."""
    if name not in _KINDS:
        raise ArgumentError(unknown("optimizer", name, _KINDS))
    kind, usual = _KINDS[name]
    known = [one for one in inspect.signature(kind).parameters if one not in _NOT_OPTIONS]
    for option in options:
        if option not in known:
            raise ArgumentError(unknown(f"option of the optimizer {name!r}:", option, known))
    try:
        return kind(groups, **{**usual, **options})
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise ArgumentError(f"the optimizer {name!r} does not take {given}: {error}") from None


def scheduler(
    optimizer: torch.optim.Optimizer, schedule: str, warmup: float, iterations: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """Return what sets all learning rates after each of so many steps; None if they stay as they are.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(3))
        >>> sgd = torch.optim.SGD([weight], lr=1.0)
        >>> steps, rates = scheduler(sgd, "linear", 0.25, 8), []
        >>> for _ in range(8):
        ...     rates.append(sgd.param_groups[0]["lr"])
        ...     sgd.step()
        ...     steps.step()
        >>> [round(rate, 3) for rate in rates]
        [0.5, 1.0, 1.0, 0.833, 0.667, 0.5, 0.333, 0.167]
    """
    rules = torch.optim.lr_scheduler
    if schedule == "one-cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        # Of a cycle of fewer steps torch's rule has no end.
        return rules.OneCycleLR(optimizer, rates, max(2, iterations), pct_start=warmup or 0.3, cycle_momentum=False)
    factor = factors(schedule, warmup, iterations)
    return None if factor is None else rules.LambdaLR(optimizer, factor)


@functools.lru_cache(maxsize=64)
def factors(schedule: str, warmup: float, iterations: int) -> Callable[[int], float] | None:
    """Return what the learning rates of each step are multiplied by, steps from 0; None if they stay as they are."""
    if schedule == "one-cycle":
        one = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        steps, found = scheduler(one, schedule, warmup, iterations), []
        assert steps is not None
        for step in range(iterations):
            found.append(float(one.param_groups[0]["lr"]))
            one.step()
            if step + 1 < iterations:
                steps.step()
        return found.__getitem__
    if schedule == "constant" and not warmup:
        return None
    rise = math.ceil(warmup * iterations)
    fall = {
        "constant": lambda share: 1.0,
        "linear": lambda share: 1.0 - share,
        "cosine": lambda share: (1.0 + math.cos(math.pi * share)) / 2,
    }[schedule]

    def factor(step: int) -> float:
        return (step + 1) / rise if step < rise else fall(min(1.0, (step - rise) / max(1, iterations - rise)))

    return factor


@dataclass(frozen=True)
class Numbers:
    """What the optimizer of one network is told.

    Attributes:
        kind: Its name and options.
        groups: By the name of each parameter that it moves: "lr" and "weight_decay", and "activation_decay" of those
            that decay towards their start.
        factor: What the learning rates of each step are multiplied by; None for 1.
        clip_norm: Largest norm of the gradient of all parameters together; None for any.
    """

    kind: tuple[str, tuple[tuple[str, Any], ...]]
    groups: Mapping[str, Mapping[str, Any]]
    factor: Callable[[int], float] | None = None
    clip_norm: float | None = None


class StackedOptimizer:
    r"""Steps of several networks that are side by side in the same tensors, each network with numbers of its own.

    All optimizers here take steps in proportion to the learning rate :math:`\eta`, as
    :math:`p \leftarrow (1 - \eta d) p + \eta u`. Here d is a decay apart from the gradient, and u follows from
    gradients and options alone. So networks with the same options share an optimizer, which moves zeros at a learning
    rate of 1: that is u. Rates, decays, schedules and norms are tensors over the networks. A number that is not finite
    stays in its network.

    Args:
        numbers: What each network's optimizer is told. Neighbours with the same options share one.
        layout: By name, each parameter of the networks as it is in the stack, and the sizes of the view
            (before, networks, behind) in which ``[:, s]`` is of network s.
        starts: By name, where what decays towards its start has started, in that view.
        after: What is called after each step.
    """

    def __init__(
        self,
        numbers: Sequence[Numbers],
        layout: Mapping[str, tuple[nn.Parameter, tuple[int, int, int]]],
        starts: Mapping[str, Tensor],
        after: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._names = list(numbers[0].groups)
        self._numbers, self._after, self._taken = numbers, after, 0
        self._parameters = [layout[name][0] for name in self._names]
        self._values = [layout[name][0].detach().view(layout[name][1]) for name in self._names]
        self._rates = self._each("lr")
        apart = [kind == "adamw" or bool(dict(options).get("decoupled_weight_decay")) for kind, options in self._kinds]
        decays = self._each("weight_decay")
        self._decays_apart = self._some([one * self._tensor(apart) for one in decays])
        self._decays = self._some([one * ~self._tensor(apart) for one in decays])
        self._towards = self._some(self._each("activation_decay"))
        self._starts = {index: starts[self._names[index]] for index in self._towards}
        clips = [math.inf if one.clip_norm is None else one.clip_norm for one in numbers]
        self._clip = None if min(clips) == math.inf else self._tensor(clips).view(-1, 1)
        # What a step adds: a row for each network, of all its numbers in a parameter.
        moved = [_by_network(torch.zeros_like(value)) for value in self._values]
        self._moved = [
            rows.view(-1, len(value), value.shape[2]).transpose(0, 1)
            for rows, value in zip(moved, self._values, strict=True)
        ]
        self._shared: list[tuple[torch.optim.Optimizer, list[nn.Parameter], slice]] = []
        first = 0
        for (name, options), alike in itertools.groupby(self._kinds):
            rows = slice(first, first + len(list(alike)))
            parts = [nn.Parameter(one[rows]) for one in moved]
            self._shared.append((build(name, [{"params": parts, "lr": 1.0}], dict(options)), parts, rows))
            first = rows.stop

    @property
    def _kinds(self) -> list[tuple[str, tuple[tuple[str, Any], ...]]]:
        return [one.kind for one in self._numbers]

    def _tensor(self, values: Sequence[Any]) -> Tensor:
        """Return a number of each network, in the shape that fits the views."""
        return torch.tensor(values, device=self._parameters[0].device).view(1, -1, 1)

    def _each(self, name: str) -> list[Tensor]:
        """Return a group's number by parameter and network."""
        return [self._tensor([float(one.groups[key].get(name, 0.0)) for one in self._numbers]) for key in self._names]

    @staticmethod
    def _some(values: Sequence[Tensor]) -> dict[int, Tensor]:
        """Return those that are not 0 for all networks, by their place."""
        return {index: value for index, value in enumerate(values) if bool(value.any())}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take a step of each network."""
        grads = [
            _by_network(torch.zeros_like(value) if p.grad is None else p.grad.reshape(value.shape))
            for p, value in zip(self._parameters, self._values, strict=True)
        ]
        if self._clip is not None:
            norms = torch.stack([grad.square().sum(1) for grad in grads]).sum(0).sqrt().unsqueeze(1)
            shorter = (self._clip / (norms + 1e-6)).clamp(max=1.0)
            grads = [grad * shorter for grad in grads]
        for index, decay in self._decays.items():
            grads[index] = grads[index] + _by_network(self._values[index] * decay)
        for optimizer, parts, rows in self._shared:
            for part, grad in zip(parts, grads, strict=True):
                part.grad = grad[rows]
            optimizer.step()
        rates = self._rates
        if any(one.factor for one in self._numbers):
            now = [1.0 if one.factor is None else one.factor(self._taken) for one in self._numbers]
            factor = self._tensor(now)
            rates = [rate * factor for rate in rates]
        for index, decay in self._decays_apart.items():
            self._values[index].mul_(1.0 - rates[index] * decay)
        torch._foreach_mul_(self._moved, rates)
        torch._foreach_add_(self._values, self._moved)
        torch._foreach_zero_(self._moved)
        for index, decay in self._towards.items():
            value = self._values[index]
            value.sub_((value - self._starts[index]) * (rates[index] * decay))
        self._taken += 1
        for call in self._after:
            call()


def _by_network(value: Tensor) -> Tensor:
    """Return a row for each network of what is by (before, networks, behind)."""
    return value.transpose(0, 1).flatten(1)
