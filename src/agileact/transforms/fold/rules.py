"""What each function of PyTorch demands of the gauges of what it takes and makes: one rule for each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agileact.nn import AgileMaxPool2d, AgileModule
from agileact.transforms.fold.labels import (
    Activation,
    Constraints,
    Map,
    Product,
    Use,
    again,
    aligned,
    channel_index,
    compact,
    flat,
    inside,
)
from agileact.transforms.trace.operations import (
    AVERAGE_POOLING,
    DROPPING,
    JOINING,
    LINEAR,
    MAX_POOLING,
    NORMS,
    PASSING,
    REARRANGING,
    SHAPED_BY,
    UPSAMPLING,
)
from agileact.transforms.trace.recording import Call, Recording, Ref, Value, words
from agileact.transforms.trace.writable import Writable, hooked

# What takes only the shape of a tensor.
_SHAPE_ONLY = words(
    "zeros_like ones_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones new_empty new_full"
)
# Positively homogeneous and elementwise.
_HOMOGENEOUS = words("relu leaky_relu prelu abs absolute clamp_min")
_SAME = PASSING | DROPPING | words("neg negative")


def constraints(model: nn.Module, recording: Recording) -> Constraints:
    """Return what a model that was recorded, with agile modules as leaves, demands of the gauges of its signals."""
    return _Rules(model, recording).found


class _Rules:
    def __init__(self, model: nn.Module, recording: Recording) -> None:
        self.model = model
        self.recording = recording
        self.found = Constraints()
        self.labels = self.found.values
        self.writable = Writable(model, recording)
        # Values that do not depend on the model's input.
        self.static = {value.index for value in recording.values if value.kind in ("parameter", "buffer", "constant")}
        for value in recording.values:
            if value.maker is None:
                self.labels[value.index] = self._grounded(value)
        for call in recording.calls:
            self._follow(call)
        for visit in recording.visits:
            if hooked(visit.module):
                for value in visit.inputs + visit.outputs:
                    self.found.ground(self.labels[value.index], f"a hook of {visit.name or 'the model'} sees it")
        for value in recording.values:
            if value.returned:
                self.found.ground(self.labels[value.index], "the model returns it")
            if value.tainted:
                self.found.ground(self.labels[value.index], "its memory is changed or read in ways not recorded")

    @staticmethod
    def _grounded(value: Value) -> Tensor:
        return torch.zeros((1,) * len(value.shape), dtype=torch.int64)

    def _follow(self, call: Call) -> None:
        if call.name in _SHAPE_ONLY:
            for value in call.inputs[1:]:
                self.found.ground(self.labels[value.index], f"it fills a tensor in {call.name}")
            self.static.update(value.index for value in call.outputs)
            self._set(call, [self._grounded(value) for value in call.outputs])
        elif call.name == "module":
            self._module(call)
        elif all(value.index in self.static for value in call.inputs):
            self.static.update(value.index for value in call.outputs)
            self._set(call, [self._grounded(value) for value in call.outputs])
        elif not call.outputs or not all(value.dtype.is_floating_point for value in call.outputs[:1]):
            self._unknown(call)
        else:
            rule = _RULES.get(call.name)
            made = rule(self, call) if rule else None
            if made is None or len(made) != len(call.outputs):
                self._unknown(call)
            else:
                self._set(call, made)

    def _set(self, call: Call, made: list[Tensor]) -> None:
        for value, labels in zip(call.outputs, made, strict=True):
            labels = aligned(labels, len(value.shape))
            if value.index in self.labels:
                # The function gave back what it got.
                self.found.tie(labels, self.labels[value.index])
            self.labels[value.index] = labels

    def _unknown(self, call: Call) -> None:
        for value in call.inputs:
            self.found.ground(self.labels[value.index], f"it goes into {call.name}" + inside(call))
        self._set(call, [self._grounded(value) for value in call.outputs])

    def _of(self, argument: Any) -> Tensor | None:
        return self.labels[argument.index] if isinstance(argument, Ref) else None

    def _value(self, argument: Any) -> Value | None:
        return self.recording.values[argument.index] if isinstance(argument, Ref) else None

    # Rules: each returns the labels of what the call makes, or None where it does not understand the call.

    def same(self, call: Call) -> list[Tensor]:
        return [self.labels[call.inputs[0].index]]

    def homogeneous(self, call: Call) -> list[Tensor] | None:
        if call.name in ("clamp", "clip", "clamp_min") and (
            call.argument(1, "min", 0) != 0 or (call.name != "clamp_min" and call.argument(2, "max") is not None)
        ):
            return None
        labels = self.labels[call.inputs[0].index]
        self.found.positive(labels, f"it goes into {call.name}" + inside(call))
        return [labels]

    def rearranging(self, call: Call) -> list[Tensor] | None:
        data = call.inputs if call.name in JOINING else call.inputs[:1]
        if len(call.inputs) > len(data) and call.name not in SHAPED_BY:
            return None  # An index, whose numbers are not known.
        given = {value.index: torch.zeros(value.shape, dtype=torch.int64) for value in call.inputs}
        given |= {
            v.index: self.labels[v.index].expand(v.shape).clone(memory_format=torch.contiguous_format) for v in data
        }
        made = again(call, given)
        return None if made is None else [compact(labels) for labels in made]

    def adding(self, call: Call) -> list[Tensor] | None:
        first, second = call.argument(0, "input"), call.argument(1, "other")
        if isinstance(first, Ref) and isinstance(second, Ref):
            axes = max(len(self.recording.values[one.index].shape) for one in (first, second))
            labels = [aligned(self._signal(one, call), axes) for one in (first, second)]
            for one, other in ((0, 1), (1, 0)):
                if not labels[one].any():
                    self.found.ground(labels[other], "something is added to it that stays as it is" + inside(call))
                    return [torch.broadcast_tensors(*labels)[other]]
            return [self.found.tie(*labels)]
        number = first if isinstance(second, Ref) else second
        labels_ = self.labels[call.inputs[0].index]
        if number != 0:
            self.found.ground(labels_, "a number is added to it" + inside(call))
        return [labels_]

    def _signal(self, argument: Ref, call: Call) -> Tensor:
        """Return the labels of a value; a parameter that is used as a signal can take up any gauge."""
        value = self.recording.values[argument.index]
        if value.kind != "parameter" or self.writable.refusal(value):
            return self.labels[value.index]
        labels = self.found.fresh(value.shape)
        self.labels[value.index] = labels
        self.static.discard(value.index)
        self.found.maps.append(Map(call, "parameter", value.name, None, flat(labels[:0]), flat(labels)))
        return labels

    def multiplying(self, call: Call) -> list[Tensor] | None:
        first, second = self._of(call.argument(0, "input")), self._of(call.argument(1, "other"))
        if first is None or second is None or call.argument(0, "input") is None:
            return self.same(call)
        axes = max(first.ndim, second.ndim)
        pair = torch.broadcast_tensors(aligned(first, axes), aligned(second, axes))
        indices = [value.index in self.static for value in call.inputs[:2]]
        if any(indices):
            return [pair[indices.index(False)]]
        output = self.found.fresh(pair[0].shape)
        product = Product(flat(output), flat(pair[0]), flat(pair[1]))
        self.found.products.append(product)
        self.found.nonzero += [product.output, product.first, product.second]
        return [output]

    def dividing(self, call: Call) -> list[Tensor] | None:
        if call.argument(2, "rounding_mode") is not None:
            return None
        second = self._value(call.argument(1, "other"))
        first = self.labels[call.inputs[0].index]
        if second is not None:
            if call.inputs[0] is second:
                return None
            self.found.ground(self.labels[second.index], "another signal is divided by it" + inside(call))
        return [aligned(first, len(call.outputs[0].shape))]

    def choosing(self, call: Call) -> list[Tensor] | None:
        """``where`` and ``masked_fill``."""
        axes = len(call.outputs[0].shape)
        if call.name == "where":
            condition, options = call.argument(0, "condition"), [call.argument(1, "self"), call.argument(2, "other")]
            if any(option is None for option in options):
                return None
        else:
            condition, options = call.argument(1, "mask"), [call.argument(0, "input"), call.argument(2, "value")]
        if isinstance(condition, Ref):
            self.found.ground(self.labels[condition.index], "it decides between two signals")
        signals = [aligned(self.labels[one.index], axes) for one in options if isinstance(one, Ref)]
        if not signals or any(not isinstance(one, Ref) and one != 0 for one in options):
            return None
        if len(signals) == 1:
            return signals
        return [self.found.tie(*signals)]

    def largest(self, call: Call) -> list[Tensor] | None:
        """``maximum`` and ``minimum`` of two signals; ``max`` and ``min`` also along an axis."""
        if isinstance(call.argument(1, "other"), Ref):
            made = self.adding(call)
            if made is not None:
                self.found.positive(made[0], f"it goes into {call.name}")
            return made
        return self.along(call)

    def pooling(self, call: Call) -> list[Tensor] | None:
        name = call.name.removesuffix("_with_indices")
        value = call.inputs[0]
        spatial = int(name[-2])
        labels = self.found.merged(self.labels[value.index], range(len(value.shape) - spatial, len(value.shape)))
        if "max" in name:
            self.found.positive(labels, "it goes into max pooling" + inside(call))
        return [labels] + [self._grounded(other) for other in call.outputs[1:]]

    def along(self, call: Call) -> list[Tensor] | None:
        """Reductions along named axes: mean, sum, amax, amin, max, min."""
        value = call.inputs[0]
        axes = len(value.shape)
        wanted = call.argument(1, "dim", call.kwargs.get("axis"))
        if isinstance(wanted, Ref):
            return None
        chosen = range(axes) if wanted is None or wanted == () or wanted == [] else wanted
        dims = [dim % axes for dim in ((chosen,) if isinstance(chosen, int) else chosen)]
        labels = self.found.merged(self.labels[value.index], dims)
        if call.name not in ("mean", "sum"):
            self.found.positive(labels, f"it goes into {call.name}" + inside(call))
        if len(call.outputs[0].shape) != axes:
            labels = labels.reshape([size for axis, size in enumerate(labels.shape) if axis not in dims])
        return [labels] + [self._grounded(other) for other in call.outputs[1:]]

    def upsampling(self, call: Call) -> list[Tensor]:
        labels = self.labels[call.inputs[0].index]
        return [self.found.merged(labels, range(2, labels.ndim))]

    def padding(self, call: Call) -> list[Tensor] | None:
        mode, value = call.argument(2, "mode", "constant"), call.argument(3, "value")
        pads = list(call.argument(1, "pad"))
        labels = self.labels[call.inputs[0].index]
        axes = [labels.ndim - 1 - position // 2 for position in range(len(pads))]
        if mode != "constant":
            return [self.found.merged(labels, sorted(set(axes)))]
        if value:
            return None
        # Zeros have any gauge: where they are channels of their own, each gets a label of its own.
        shape = call.inputs[0].shape
        varying = {axis for axis in axes if labels.shape[axis] > 1 or shape[axis] == 1}
        kept = [pad if axis in varying else 0 for pad, axis in zip(pads, axes, strict=True)]
        if not any(kept):
            return [labels]
        padded = F.pad(labels, kept, value=-1)
        new = padded == -1
        padded[new] = self.found.fresh((int(new.sum()),))
        return [padded]

    def linear(self, call: Call) -> list[Tensor] | None:
        if call.name == "addmm" and (call.kwargs.get("beta", 1) != 1 or call.kwargs.get("alpha", 1) != 1):
            return None
        if call.name == "addmm":
            data, weight, bias = call.argument(1, "mat1"), call.argument(2, "mat2"), call.argument(0, "input")
        elif call.name in ("matmul", "mm"):
            data, weight, bias = call.argument(0, "input"), call.argument(1, "other", call.kwargs.get("mat2")), None
        else:
            data, weight, bias = (call.argument(i, n) for i, n in enumerate(("input", "weight", "bias")))
        kernel, given, shift = self._value(weight), self._value(data), self._value(bias)
        if kernel is None or given is None or given.index in self.static:
            return None
        layout = "linear" if call.name == "linear" else "matmul"
        axis = len(given.shape) - 1
        if call.name.startswith("conv"):
            layout = "conv_transpose" if "transpose" in call.name else "conv"
            axis += LINEAR[call.name] + 1
        elif len(kernel.shape) != 2:
            return None
        why = self.writable.refusal(kernel)
        labels = self.labels[given.index]
        if why:
            for one in call.inputs:
                self.found.ground(self.labels[one.index], why)
            return [self._grounded(call.outputs[0])]
        labels = self.found.merged(labels, [other for other in range(labels.ndim) if other != axis])
        inputs = flat(labels.expand([given.shape[axis] if i == axis else 1 for i in range(labels.ndim)]))
        groups = int(call.argument(6, "groups", 1)) if "conv" in layout else 1
        size = kernel.shape[1] * groups if layout == "conv_transpose" else kernel.shape[0 if layout != "matmul" else 1]
        bound = shift is None or (len(shift.shape) == 1 and not self.writable.refusal(shift))
        if shift is not None and not bound:
            self.found.ground(self.labels[shift.index], "it is added as a bias")
        outputs = self.found.fresh((size,)) if bound else torch.zeros(size, dtype=torch.int64)
        name = shift.name if shift is not None and bound else None
        self.found.maps.append(Map(call, layout, kernel.name, name, inputs, flat(outputs), groups))
        return [outputs.reshape((-1,) + (1,) * (len(given.shape) - 1 - axis))]

    def norm(self, call: Call) -> list[Tensor] | None:
        named = {"batch_norm": (3, 4), "instance_norm": (3, 4), "rms_norm": (2, None)}.get(call.name, (2, 3))
        weight = self._value(call.argument(named[0], "weight"))
        bias = None if named[1] is None else self._value(call.argument(named[1], "bias"))
        value = call.inputs[0]
        why = f"it goes into {call.name}, whose result does not follow a change of size"
        if call.name == "batch_norm":
            why = "it goes into batch_norm, which measures its size in training"
        by_channel = call.name in ("batch_norm", "instance_norm")
        self.found.ground(self.labels[value.index], why + inside(call), normalised=by_channel)
        for other in call.inputs[1:]:
            if other.index not in self.static:
                return None
        if weight is None or self.writable.refusal(weight) or (bias is not None and self.writable.refusal(bias)):
            return [self._grounded(value)]
        outputs = self.found.fresh(weight.shape)
        name = bias.name if bias is not None else None
        self.found.maps.append(Map(call, "norm", weight.name, name, flat(outputs[:0]), flat(outputs)))
        behind = 0 if NORMS[call.name] == -1 else len(value.shape) - 2
        return [outputs.reshape(tuple(outputs.shape) + (1,) * behind)]

    def _module(self, call: Call) -> None:
        module = call.function
        if not isinstance(module, AgileModule) or not call.inputs:
            self._unknown(call)
            return
        value = call.inputs[0]
        name = self.recording.names[id(module)][0]
        site = self.found.sites.get(name)
        if site is None:
            homogeneous = module.facts.positively_homogeneous
            site = self.found.sites[name] = Activation(name, module, homogeneous, blocked=_blocked(module))
        labels = self.labels[value.index]
        index = channel_index(module, tuple(value.shape))
        inputs, index = torch.broadcast_tensors(labels, index)
        outputs = self.found.fresh(inputs.shape)
        site.uses.append(Use(call, name, flat(inputs), flat(outputs), flat(index), tuple(inputs.shape)))
        self.found.nonzero.append(flat(inputs))
        if site.blocked:
            self.found.ground(inputs, site.blocked)
            self.found.ground(outputs, site.blocked)
        elif not site.homogeneous:
            self.found.ground(inputs, f"it goes into {module.base}, which does not scale with its input")
        elif not module.facts.odd:
            self.found.positive(inputs, f"it goes into {module.base}")
        made = outputs
        if isinstance(module, AgileMaxPool2d):
            made = self.found.merged(outputs, (outputs.ndim - 2, outputs.ndim - 1))
            self.found.positive(made, "it goes into max pooling")
        self._set(call, [made] + [self._grounded(other) for other in call.outputs[1:]])


def _blocked(module: AgileModule) -> str:
    if module.terms > 1:
        return f"a sum of {module.terms} terms is no multiple of {module.base}"
    if hooked(module):
        return "a hook sees what goes in and out of it"
    return ""


_RULES: dict[str, Callable[[_Rules, Call], list[Tensor] | None]] = {
    **dict.fromkeys(REARRANGING - words("as_strided rename"), _Rules.rearranging),
    **dict.fromkeys(_SAME, _Rules.same),
    **dict.fromkeys(_HOMOGENEOUS | words("clamp clip"), _Rules.homogeneous),
    **dict.fromkeys(words("add sub rsub"), _Rules.adding),
    **dict.fromkeys(words("mul"), _Rules.multiplying),
    **dict.fromkeys(words("div"), _Rules.dividing),
    **dict.fromkeys(words("where masked_fill"), _Rules.choosing),
    **dict.fromkeys(words("maximum minimum max min"), _Rules.largest),
    **dict.fromkeys(words("amax amin mean sum"), _Rules.along),
    **dict.fromkeys((MAX_POOLING | AVERAGE_POOLING) - words("amax mean"), _Rules.pooling),
    **dict.fromkeys(
        (f"{kind}max_pool{n}d_with_indices" for kind in ("", "adaptive_") for n in (1, 2, 3)), _Rules.pooling
    ),
    **dict.fromkeys(UPSAMPLING, _Rules.upsampling),
    **dict.fromkeys(words("pad"), _Rules.padding),
    **dict.fromkeys(LINEAR, _Rules.linear),
    **dict.fromkeys(words("matmul mm"), _Rules.linear),
    **dict.fromkeys(NORMS, _Rules.norm),
}
