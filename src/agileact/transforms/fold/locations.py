"""Move a shift of a signal backwards through a recorded model, into a bias that takes it up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from agileact.transforms.fold.labels import Activation, aligned, compact, inside, named
from agileact.transforms.fold.weights import Source, Weights
from agileact.transforms.trace.operations import (
    AVERAGE_POOLING,
    DROPPING,
    JOINING,
    LINEAR,
    MAX_POOLING,
    NORMS,
    PASSING,
    REARRANGING,
    UPSAMPLING,
)
from agileact.transforms.trace.recording import Call, Recording, Ref, Value, words
from agileact.transforms.trace.writable import hooked

_BIAS = {"batch_norm": 4, "instance_norm": 4, "layer_norm": 3, "group_norm": 3}
# The factors of the two operands.
_SUMS: dict[str, Callable[[float], tuple[float, float]]] = {
    "add": lambda alpha: (1.0, alpha),
    "sub": lambda alpha: (1.0, -alpha),
    "rsub": lambda alpha: (-alpha, 1.0),
}
_OUTPUT_AXIS = {**LINEAR, **NORMS}
# Modules whose forward hands self.bias on, so that a bias that is made takes effect.
_BIASED: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
)


class Blocked(Exception):  # noqa: N818 - an answer, not an error
    """A shift cannot be moved; the message says why."""


@dataclass(frozen=True)
class Target:
    """A bias, by name, that takes up a shift in float64 and of its shape; it may have to be created."""

    name: str
    shift: Tensor
    created: bool = False


class Shifts:
    """Moves shifts through one recorded model."""

    def __init__(self, model: nn.Module, recording: Recording, weights: Weights, *, training: bool = True) -> None:
        self.model = model
        self.recording = recording
        self.weights = weights
        self.training = training
        self._seen = {
            value.index: visit.name or "the model"
            for visit in recording.visits
            if hooked(visit.module)
            for value in visit.inputs + visit.outputs * hooked(visit.module, behind=True)
        }

    def uses(self, target: Target) -> bool:
        """Return whether the run uses a bias, or what one is to be made for."""
        if target.created:
            owner = self.model.get_submodule(target.name.rpartition(".")[0])
            return self.recording.runs.get(self.recording.names[id(owner)][0], 0) > 0
        return any(one.users for one in self.recording.values if one.kind == "parameter" and one.name == target.name)

    def absorb(self, value: Value, shift: Tensor, consumer: Call) -> list[Target]:
        """Return the biases by which a value is shifted for the one call that takes it; raise if there is no way."""
        shift = compact(aligned(shift, len(value.shape)))
        if not bool(shift.any()):
            return []
        self._check_users(value, shift, consumer)
        if isinstance(self.weights.of(value), Source) or value.kind == "parameter":
            return [self._parameter(value, shift)]
        if value.maker is None:
            raise Blocked("the signal comes straight from the model's input")
        call = value.maker
        if call.name in ("addmm", "baddbmm"):
            return self._added(call, shift)
        if call.name in LINEAR or call.name in NORMS:
            return [self._bias(call, shift)]
        if call.name in REARRANGING:
            return self._rearranged(call, value, shift)
        if call.name in _SUMS:
            return self._summed(call, shift)
        given, moved = self._step(call, shift)
        return self.absorb(given, moved, call)

    def _check_users(self, value: Value, shift: Tensor, consumer: Call) -> None:
        if value.returned:
            raise Blocked("the model also returns the signal before it")
        if value.kept:
            raise Blocked(f"the model keeps the signal before it in {value.kept}")
        if value.tainted:
            raise Blocked("the memory of the signal before it is changed or read in ways not recorded")
        if value.index in self._seen:
            raise Blocked(f"a hook of {self._seen[value.index]} sees the signal before it")
        others = list(value.users)
        others.remove(consumer)
        for other in others:
            if other is consumer or not self._untouched(other, value, shift):
                raise Blocked(f"the signal before it is used elsewhere too, by {named(other)}")

    @staticmethod
    def _untouched(call: Call, value: Value, shift: Tensor) -> bool:
        """Whether a call takes only a part of a value that is not shifted."""
        if call.name not in REARRANGING or len(call.inputs) != 1:
            return False
        shifted = (shift != 0).to(torch.int64).expand(value.shape).contiguous()
        made = call.rearranged({value.index: shifted})
        return made is not None and not any(bool(one.any()) for one in made)

    def _parameter(self, value: Value, shift: Tensor) -> Target:
        source = self.weights.of(value)
        if isinstance(source, str):
            raise Blocked(source)
        shift = shift.expand(value.shape)
        if source.places is None:
            return Target(source.parameter.name, shift.clone())
        moved = torch.zeros(source.parameter.shape.numel(), dtype=torch.float64)
        moved[source.places] = shift
        return Target(source.parameter.name, moved.reshape(source.parameter.shape))

    def _added(self, call: Call, shift: Tensor) -> list[Target]:
        """``addmm`` and ``baddbmm``: the matrix that is added takes the shift."""
        added = call.argument(0, "input")
        if call.kwargs.get("beta", 1) != 1 or not isinstance(added, Ref):
            raise Blocked(f"{call.name} before it has no plain bias")
        value = self.recording.values[added.index]
        return self.absorb(value, _fitted(shift, value), call)

    def _bias(self, call: Call, shift: Tensor) -> Target:
        if call.name == "rms_norm":
            raise Blocked(f"rms_norm before it has no bias{inside(call)}")
        bias = call.argument(_BIAS.get(call.name, 2), "bias")
        weight = call.argument(3 if call.name in ("batch_norm", "instance_norm") else 2, "weight")
        axes = len(call.argument(1, "normalized_shape")) if call.name == "layer_norm" else 1
        shape = call.outputs[0].shape
        first = len(shape) - axes if call.name == "layer_norm" else _OUTPUT_AXIS[call.name] % len(shape)
        if any(size > 1 and not first <= axis < first + axes for axis, size in enumerate(shift.shape)):
            raise Blocked(f"its location differs within a channel of {call.name}{inside(call)}")
        wanted = shape[first : first + axes]
        vector = shift.reshape(shift.shape[first : first + axes]).expand(wanted).clone()
        if isinstance(bias, Ref):
            value = self.recording.values[bias.index]
            if value.shape != vector.shape:
                raise Blocked(f"{value.name} has not one number for each channel")
            return self._parameter(value, vector)
        owner = self.model.get_submodule(call.owner)
        if not isinstance(owner, _BIASED) or getattr(owner, "bias", self) is not None or not _native(owner):
            raise Blocked(f"{named(call)} has no bias, and there is no torch module to give it one")
        if hooked(owner, behind=True):
            raise Blocked(f"a hook sees what goes out of {call.owner}")
        several = isinstance(weight, Ref) and len(self.recording.values[weight.index].users) > 1
        if several or self.recording.runs.get(self.recording.names[id(owner)][0], 1) > 1:
            raise Blocked(f"{call.owner} has no bias and is used in more than one place")
        return Target(f"{call.owner}.bias" if call.owner else "bias", vector, created=True)

    def _rearranged(self, call: Call, value: Value, shift: Tensor) -> list[Target]:
        data = call.inputs if call.name in JOINING else call.inputs[:1]
        if len(call.inputs) > len(data) and not call.name.endswith("_as"):
            return self._picked(call, shift)
        if len({one.index for one in data}) != len(data):
            raise Blocked(f"{named(call)} before it takes one signal twice")
        given = {one.index: torch.zeros(one.shape, dtype=torch.int64) for one in call.inputs}
        start = 0
        for one in data:
            given[one.index] = torch.arange(start, start + one.shape.numel()).reshape(one.shape)
            start += one.shape.numel()
        made = call.rearranged(given)
        if made is None:
            raise Blocked(f"{named(call)} before it cannot be followed")
        source = made[call.outputs.index(value)].reshape(-1)
        wanted = shift.expand(value.shape).reshape(-1)
        moved = torch.zeros(start, dtype=torch.float64)
        moved[source] = wanted
        if not torch.equal(moved[source], wanted):
            raise Blocked(f"{named(call)} before it repeats numbers that are shifted differently")
        targets = []
        start = 0
        for one in data:
            part = moved[start : start + one.shape.numel()].reshape(one.shape)
            start += one.shape.numel()
            targets += self.absorb(one, part, call)
        return targets

    def _picked(self, call: Call, shift: Tensor) -> list[Target]:
        """Rows that are picked by an index, along an axis on which the shift is the same everywhere."""
        source, index = call.inputs[0], call.inputs[1]
        dim = call.argument(1, "dim") if call.name == "index_select" else 0
        plain = call.name == "index_select" or (call.name == "getitem" and isinstance(call.args[1], Ref))
        if not plain or not isinstance(dim, int) or index.dtype.is_floating_point:
            raise Blocked(f"{named(call)} before it takes an index")
        dim %= len(source.shape)
        masked = len(index.shape) if index.dtype == torch.bool else 1
        came = 1 if call.name == "index_select" or index.dtype == torch.bool else len(index.shape)
        shape = list(shift.shape)
        if any(size > 1 for size in shape[dim : dim + came]):
            raise Blocked(f"its location differs among what {named(call)} picks")
        return self.absorb(source, shift.reshape(shape[:dim] + [1] * masked + shape[dim + came :]), call)

    def _step(self, call: Call, shift: Tensor) -> tuple[Value, Tensor]:
        """Return which input of a call is to be shifted, and by what."""
        name = call.name.removesuffix("_with_indices")
        first = call.inputs[0] if call.inputs else None
        if first is None or name == "module":
            raise Blocked(f"a nonlinearity lies before it: {named(call)}")
        if name in PASSING or (name in DROPPING and call.argument(1, "p", 0.5) == 0):
            return first, shift
        if name in DROPPING and not self.training:
            return first, shift
        if name in DROPPING:
            raise Blocked(f"{named(call)} before it drops units in training")
        if name in ("neg", "negative"):
            return first, -shift
        if name in MAX_POOLING | AVERAGE_POOLING | UPSAMPLING | words("max min amin"):
            return first, self._pooled(call, name, first, shift)
        if name in ("mul", "div"):
            return first, self._scaled(call, name, shift)
        raise Blocked(f"a nonlinearity or a product lies before it: {named(call)}")

    @staticmethod
    def _pooled(call: Call, name: str, value: Value, shift: Tensor) -> Tensor:
        axes = len(value.shape)
        if name in ("mean", "amax", "amin", "max", "min"):
            wanted = call.argument(1, "dim", call.kwargs.get("axis"))
            if isinstance(wanted, Ref):
                raise Blocked(f"a nonlinearity lies before it: {named(call)}")
            chosen = range(axes) if wanted is None else (wanted,) if isinstance(wanted, int) else wanted
            dims = sorted(dim % axes for dim in chosen)
            if shift.ndim != axes:
                for dim in dims:
                    shift = shift.unsqueeze(dim)
        else:
            dims = list(range(2, axes)) if name in UPSAMPLING else list(range(axes - int(name[-2]), axes))
            if name.startswith("avg"):
                padding = call.argument(3, "padding", 0)
                padded = any(padding) if isinstance(padding, (tuple, list)) else padding != 0
                if (padded and call.argument(5, "count_include_pad", True)) or call.argument(6, "divisor_override"):
                    raise Blocked(f"{named(call)} before it takes means with zeros of its padding")
        if any(shift.shape[dim] > 1 for dim in dims):
            raise Blocked(f"its location differs within what {named(call)} pools")
        return shift

    def _summed(self, call: Call, shift: Tensor) -> list[Target]:
        """Shift one operand of a sum: the first that can be."""
        operands = [call.argument(0, "input"), call.argument(1, "other")]
        alpha = call.kwargs.get("alpha", 1)
        signs = _SUMS[call.name](alpha)
        why = ""
        for operand, sign in zip(operands, signs, strict=True):
            if not isinstance(operand, Ref) or sign == 0:
                continue
            value = self.recording.values[operand.index]
            try:
                return self.absorb(value, _fitted(shift, value) / sign, call)
            except Blocked as blocked:
                why = why or str(blocked)
        raise Blocked(why)

    def _scaled(self, call: Call, name: str, shift: Tensor) -> Tensor:
        other = call.argument(1, "other")
        signal = call.argument(0, "input")
        if isinstance(signal, Ref) and isinstance(other, Ref):
            value = self.recording.values[other.index]
            if value.kind not in ("parameter", "buffer") or value.tainted or signal.index != call.inputs[0].index:
                raise Blocked(f"a product of two signals lies before it: {named(call)}")
            state: dict[str, Any] = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
            factor = state[value.name].detach().to("cpu", torch.float64)
        else:
            number = other if isinstance(signal, Ref) else signal
            factor = torch.as_tensor(number, dtype=torch.float64)
        if not bool((torch.isfinite(factor) & (factor != 0)).all()) or call.argument(2, "rounding_mode") is not None:
            raise Blocked(f"a factor of 0 lies before it: {named(call)}")
        moved = shift / factor if name == "mul" else shift * factor
        return _fitted(compact(aligned(moved, max(moved.ndim, shift.ndim))), call.inputs[0])


_BROADCAST = "a signal that is broadcast would have to be shifted differently in different places"


def _fitted(shift: Tensor, value: Value) -> Tensor:
    """Return a shift for a value that was broadcast to the shift's shape."""
    axes = len(value.shape)
    for _ in range(shift.ndim - axes):
        if shift.shape[0] > 1:
            raise Blocked(_BROADCAST)
        shift = shift[0]
    if any(have > 1 and size == 1 for have, size in zip(shift.shape, value.shape, strict=True)):
        raise Blocked(_BROADCAST)
    return shift


def _native(module: nn.Module) -> bool:
    """Whether a module's forward is that of torch.nn, perhaps called by a forward of a class derived from it."""
    return type(module).forward.__module__.startswith("torch.nn.")


def move_locations(
    shifts: Sequence[Shifts], sites: Mapping[str, Activation], locations: Mapping[str, Tensor]
) -> tuple[dict[str, list[Target]], dict[str, str]]:
    """Return the biases that take up the location of each site, in each run the same, and why others stay, by name."""
    targets: dict[str, list[Target]] = {}
    stays: dict[str, str] = {}
    for name, site in sites.items():
        location = locations[name]
        try:
            if site.blocked and bool(location.any()):
                raise Blocked(site.blocked)
            if not bool(torch.isfinite(location).all()):
                raise Blocked("its location is not finite")
            found: dict[int, list[Target]] = {run: [] for run in range(len(shifts))}
            for use in site.uses:
                shift = -location[torch.from_numpy(use.index)].reshape(use.shape)
                for run, call in use.calls:
                    found[run] += shifts[run].absorb(call.inputs[0], shift, call)
            targets[name] = _agreed(shifts, found)
        except Blocked as blocked:
            stays[name] = str(blocked)
    return targets, stays


def _agreed(shifts: Sequence[Shifts], found: Mapping[int, list[Target]]) -> list[Target]:
    """Return the targets of all runs, if each bias takes up the same in every run that uses it."""
    chosen: dict[str, Target] = {}
    taken: dict[int, dict[str, Target]] = {}
    for run, targets in found.items():
        here = taken[run] = {}
        for target in targets:
            before = here.get(target.name)
            here[target.name] = replace(target, shift=target.shift + before.shift) if before else target
        for name, target in here.items():
            if not torch.equal(chosen.setdefault(name, target).shift, target.shift):
                raise Blocked(f"{name} would take up another location in another run")
    for run, here in taken.items():
        for name, target in chosen.items():
            if name not in here and shifts[run].uses(target):
                raise Blocked(f"{name} is used without it in another run")
    return list(chosen.values())
