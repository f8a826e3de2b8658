"""What each function of PyTorch demands of the gauges of what it takes and makes: one rule for each kind."""

import string
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agileact.nn import AgileMaxPool2d, AgileModule
from agileact.transforms.fold.labels import (
    Activation,
    Constraints,
    Map,
    Product,
    Use,
    aligned,
    channel_index,
    compact,
    flat,
    inside,
)
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
    SHAPED_BY,
    UPSAMPLING,
)
from agileact.transforms.trace.recording import Call, Recording, Ref, Value, words
from agileact.transforms.trace.writable import hooked

# What takes only the shape of a tensor.
_ZEROS = words("zeros_like new_zeros")
_SHAPE_ONLY = words(
    "zeros_like ones_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones new_empty new_full"
)
# Positively homogeneous and elementwise.
_HOMOGENEOUS = words("relu leaky_relu prelu abs absolute clamp_min")
_LETTERS = "abcdefghjklm"  # of axes that a product has besides n, i and o
_SAME = PASSING | DROPPING | words("neg negative")


def constraints(recordings: Sequence[Recording], weights: Weights) -> Constraints:
    """Return what a model that was recorded, with agile modules as leaves, demands of the gauges of its signals."""
    found = Constraints()
    for run, recording in enumerate(recordings):
        _Rules(run, recording, found, weights)
    # What takes up gauges in one run must do so in each that uses it.
    for run, recording in enumerate(recordings):
        used = {value.name for value in recording.values if value.kind == "parameter" and value.users}
        for one in found.maps:
            if one.parameter in used and not one.open and (run, one.parameter) not in found.mapped:
                found.give_up(one, "is used in another way in another run")
    return found


class _Rules:
    """Goes through one run of a model, and adds what it demands to what the other runs do."""

    def __init__(self, run: int, recording: Recording, found: Constraints, weights: Weights) -> None:
        self.run = run
        self.recording = recording
        self.found = found
        self.weights = weights
        self.labels: dict[int, Tensor] = {}
        self.mode = " in training" * recording.training
        # Values that do not depend on the model's input, and those of them that are all 0.
        self.static = {value.index for value in recording.values if value.kind in ("parameter", "buffer", "constant")}
        self.zero: set[int] = set()
        for value in recording.values:
            if value.maker is None:
                self.labels[value.index] = self._grounded(value)
        for call in recording.calls:
            self._follow(call)
        for visit in recording.visits:
            if hooked(visit.module):
                seen = visit.inputs + visit.outputs * hooked(visit.module, behind=True)
                for value in seen:
                    self._ground(self.labels[value.index], f"a hook of {visit.name or 'the model'} sees it")
        for value in recording.values:
            if value.returned:
                self._ground(self.labels[value.index], "the model returns it")
            if value.kept:
                self._ground(self.labels[value.index], f"the model keeps it in {value.kept}")
            if value.tainted:
                self._ground(self.labels[value.index], "its memory is changed or read in ways not recorded")

    def _ground(self, labels: Tensor, why: str, *, normalised: bool = False) -> None:
        self.found.ground(labels, why + self.mode, normalised=normalised)

    def _positive(self, labels: Tensor, why: str) -> None:
        self.found.positive(labels, why + self.mode)

    @staticmethod
    def _grounded(value: Value) -> Tensor:
        return torch.zeros((1,) * len(value.shape), dtype=torch.int64)

    def _follow(self, call: Call) -> None:
        if call.name in _SHAPE_ONLY:
            for value in call.inputs[1:]:
                self._ground(self.labels[value.index], f"it fills a tensor in {call.name}")
            self.static.update(value.index for value in call.outputs)
            if call.name in _ZEROS:
                self.zero.update(value.index for value in call.outputs)
            self._set(call, [self._grounded(value) for value in call.outputs])
        elif call.name == "module":
            self._module(call)
        elif all(value.index in self.static for value in call.inputs[: 1 if call.name in SHAPED_BY else None]):
            self.static.update(value.index for value in call.outputs)
            if call.name == "zeros" or (call.name in REARRANGING and call.inputs and call.inputs[0].index in self.zero):
                self.zero.update(value.index for value in call.outputs)
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
            self._ground(self.labels[value.index], f"it goes into {call.name}" + inside(call))
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
        self._positive(labels, f"it goes into {call.name}" + inside(call))
        return [labels]

    def rearranging(self, call: Call) -> list[Tensor] | None:
        joining = call.name in JOINING
        data = call.inputs if joining else call.inputs[:1]
        labels = [self._signal(v, call) if joining and v.index in self.static else self.labels[v.index] for v in data]
        if len(call.inputs) > len(data) and call.name not in SHAPED_BY:
            if call.name == "getitem" and isinstance(call.args[1], Ref) and call.inputs[1].dtype == torch.bool:
                masked = len(call.inputs[1].shape)
                same = labels[0].shape[:masked].numel() == 1
                return [labels[0].reshape(1, *labels[0].shape[masked:])] if same else None
            axes = self._picked(call)
            # Which numbers are picked is not known: those among which it is must have one gauge.
            if axes is None or any(labels[0].shape[axis] > 1 for axis in axes):
                return None
        given = {value.index: torch.zeros(value.shape, dtype=torch.int64) for value in call.inputs}
        given |= {
            v.index: one.expand(v.shape).clone(memory_format=torch.contiguous_format)
            for v, one in zip(data, labels, strict=True)
        }
        made = call.rearranged(given)
        return None if made is None else [compact(one) for one in made]

    def _picked(self, call: Call) -> list[int] | None:
        """Return the axes along which a call picks numbers by an index that is a tensor; None if that is not known."""
        axes = len(call.inputs[0].shape)
        if any(value.dtype.is_floating_point or value.dtype == torch.bool for value in call.inputs[1:]):
            return None
        if call.name != "getitem":
            dim = call.argument(1, "dim")
            return [dim % axes] if isinstance(dim, int) else None
        index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
        taken = [item for item in index if item is not None]
        rest = axes - (len(taken) - taken.count(Ellipsis) if Ellipsis in taken else len(taken))
        found, axis = [], 0
        for item in taken:
            if item is Ellipsis:
                axis += rest
                continue
            if isinstance(item, Ref):
                found.append(axis)
            axis += 1
        return found

    def gathering(self, call: Call) -> list[Tensor] | None:
        """``gather``: each number is one of those along an axis."""
        value, shape = call.inputs[0], call.outputs[0].shape
        dim = call.argument(1, "dim")
        if not isinstance(dim, int):
            return None
        labels = self.labels[value.index]
        return None if labels.shape[dim] > 1 else [self._narrowed(labels, shape)]

    @staticmethod
    def _narrowed(labels: Tensor, shape: Sequence[int]) -> Tensor:
        for axis, size in enumerate(shape):
            if labels.shape[axis] > 1:
                labels = labels.narrow(axis, 0, size)
        return labels

    def scattering(self, call: Call) -> list[Tensor] | None:
        """``index_add``, ``scatter_add`` and their kind: rows of one signal are added to, or put into, another."""
        dim = call.argument(1, "dim")
        base = self._value(call.argument(0, "input"))
        rows = self._value(call.argument(3, "src", call.kwargs.get("source")))
        if not isinstance(dim, int) or base is None or rows is None or call.kwargs.get("alpha", 1) != 1:
            return None
        how = call.argument(4, "reduce", "sum")
        if how not in ("sum", "add", "mean", "amax", "amin"):
            return None
        axis = dim % len(base.shape)
        index = self._value(call.argument(2, "index"))
        if index is not None and index.index not in self.static:
            self._ground(self.labels[index.index], f"it is an index in {call.name}")
        labels, below = self.labels[rows.index], self.labels[base.index]
        if labels.shape[axis] > 1 or below.shape[axis] > 1:
            return None
        if base.index in self.zero:
            made = labels
        elif not below.any():
            self._ground(labels, "it is put into something that stays as it is" + inside(call))
            made = below
        else:
            self.found.tie(self._narrowed(below, rows.shape), labels)
            made = below
        if how.startswith("am"):
            self._positive(made, f"it goes into {call.name}" + inside(call))
        return [made]

    def adding(self, call: Call) -> list[Tensor] | None:
        first, second = call.argument(0, "input"), call.argument(1, "other")
        if isinstance(first, Ref) and isinstance(second, Ref):
            axes = max(len(self.recording.values[one.index].shape) for one in (first, second))
            labels = [aligned(self._signal(self.recording.values[one.index], call), axes) for one in (first, second)]
            for zero, other in ((first, 1), (second, 0)):
                if zero.index in self.zero:
                    return [torch.broadcast_tensors(*labels)[other]]
            for one, other in ((0, 1), (1, 0)):
                if not labels[one].any():
                    self._ground(labels[other], "something is added to it that stays as it is" + inside(call))
                    return [torch.broadcast_tensors(*labels)[other]]
            return [self.found.tie(*labels)]
        number = first if isinstance(second, Ref) else second
        labels_ = self.labels[call.inputs[0].index]
        if number != 0:
            self._ground(labels_, "a number is added to it" + inside(call))
        return [labels_]

    def _signal(self, value: Value, call: Call) -> Tensor:
        """Return the labels of a value; a parameter that is used as a signal can take up any gauge."""
        if value.index not in self.static:
            return self.labels[value.index]
        source = self.weights.of(value, repeated=True)
        if isinstance(source, str):
            return self.labels[value.index]
        own = self.found.fresh(source.parameter.shape)
        labels = own if source.places is None else compact(own.reshape(-1)[source.places])
        self.labels[value.index] = labels
        self.static.discard(value.index)
        self._take(source.parameter, torch.zeros_like(own), own)
        return labels

    def _take(
        self, parameter: Value, inputs: Tensor, outputs: Tensor, owner: str = "", places: Tensor | None = None
    ) -> None:
        name = parameter.name
        module, inside_it, _ = name.partition(".parametrizations.")
        owner = owner or (module if inside_it else name.rpartition(".")[0] or name)
        self.found.mapped.add((self.run, name))
        self.found.take(Map(name, inputs, outputs, owner, self.run, places))

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
            self._ground(self.labels[second.index], "another signal is divided by it" + inside(call))
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
            self._ground(self.labels[condition.index], "it decides between two signals")
        refs = [one for one in options if isinstance(one, Ref) and one.index not in self.zero]
        signals = [aligned(self.labels[one.index], axes) for one in refs]
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
                self._positive(made[0], f"it goes into {call.name}")
            return made
        return self.along(call)

    def pooling(self, call: Call) -> list[Tensor] | None:
        name = call.name.removesuffix("_with_indices")
        value = call.inputs[0]
        spatial = int(name[-2])
        labels = self.found.merged(self.labels[value.index], range(len(value.shape) - spatial, len(value.shape)))
        if "max" in name:
            self._positive(labels, "it goes into max pooling" + inside(call))
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
            self._positive(labels, f"it goes into {call.name}" + inside(call))
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
        data, weight, bias = (call.argument(i, n) for i, n in enumerate(("input", "weight", "bias")))
        kernel, given = self._value(weight), self._value(data)
        if kernel is None or given is None:
            return None
        if not call.name.startswith("conv"):
            letters = _LETTERS[: len(given.shape) - 1]
            if len(kernel.shape) != 2:
                return None
            return self._contract(call, given, kernel, f"{letters}i", "oi", f"{letters}o", self._value(bias))
        groups = int(call.argument(6, "groups", 1))
        spatial = (1,) * (len(kernel.shape) - 2)
        axis = len(given.shape) - 1 - len(spatial)
        labels = self.labels[given.index]
        if given.index in self.static:
            return None
        labels = self.found.merged(labels, [other for other in range(labels.ndim) if other != axis])
        inputs = labels.expand([given.shape[axis] if i == axis else 1 for i in range(labels.ndim)]).reshape(groups, -1)
        if "transpose" in call.name:
            outputs = self.found.fresh((kernel.shape[1] * groups,))
            befores = inputs.reshape(-1, 1)
            behinds = outputs.reshape(groups, 1, -1).expand(-1, inputs.shape[1], -1).reshape(inputs.numel(), -1)
        else:
            outputs = self.found.fresh((kernel.shape[0],))
            befores = inputs.repeat_interleave(kernel.shape[0] // groups, 0)
            befores = befores[:1] if groups == 1 else befores
            behinds = outputs.reshape(-1, 1)
        befores, behinds = (one.reshape(*one.shape, *spatial) for one in (befores, behinds))
        return [self._weighed(call, kernel, befores, behinds, outputs.reshape(-1, *spatial), self._value(bias))]

    def product(self, call: Call) -> list[Tensor] | None:
        """``matmul`` and its kind: of two signals there is a weight, the first or the second."""
        start = 1 if call.name in ("addmm", "baddbmm") else 0
        if start and (call.kwargs.get("beta", 1) != 1 or call.kwargs.get("alpha", 1) != 1):
            return None
        names = (("input", "mat1", "mat2"), ("input", "batch1", "batch2"))[call.name == "baddbmm"]
        other = call.argument(1, "other", call.kwargs.get("mat2")) if not start else call.argument(2, names[2])
        first, second = self._value(call.argument(start, names[start])), self._value(other)
        if first is None or second is None or min(len(first.shape), len(second.shape)) < 2:
            return None
        count = max(len(first.shape), len(second.shape)) - 2
        batch = [list(_LETTERS[count - len(one.shape) + 2 : count]) for one in (first, second)]
        # What is broadcast has an axis of size 1, or none.
        for axis in range(1, min(map(len, batch)) + 1):
            sizes = [one.shape[-2 - axis] for one in (first, second)]
            if sizes[0] != sizes[1]:
                batch[sizes[0] != 1][-axis] = batch[sizes[0] != 1][-axis].upper()
        letters = "".join(batch[0]) + "ni", "".join(batch[1]) + "io", _LETTERS[:count] + "no"
        bias = self._value(call.argument(0, "input")) if start else None
        return self._either(call, (first, second), letters[:2], letters[2], bias)

    def einsum(self, call: Call) -> list[Tensor] | None:
        equation = call.args[0] if call.args else None
        if not isinstance(equation, str) or len(call.inputs) != 2:
            return None
        left, arrow, right = equation.replace(" ", "").partition("->")
        terms = left.split(",")
        if len(terms) != 2 or ("..." in left and not arrow):
            return None
        # What an ellipsis means has letters of its own, counted from the last.
        free = [letter for letter in string.ascii_letters if letter not in equation]
        counts = [len(one.shape) - len(term) + 3 for one, term in zip(call.inputs, terms, strict=True)]
        widest = max((count for count, term in zip(counts, terms, strict=True) if "..." in term), default=0)
        right = right.replace("...", "".join(reversed(free[:widest])))
        terms = [
            term.replace("...", "".join(reversed(free[:count]))) for term, count in zip(terms, counts, strict=True)
        ]
        if any(len(set(term)) != len(term) for term in terms):
            return None
        if not arrow:
            right = "".join(sorted(letter for letter in set("".join(terms)) if "".join(terms).count(letter) == 1))
        sizes: dict[str, int] = {}
        for term, value in zip(terms, call.inputs, strict=True):
            for letter, size in zip(term, value.shape, strict=True):
                if sizes.setdefault(letter, size) != size:
                    return None
        return self._either(call, (call.inputs[0], call.inputs[1]), (terms[0], terms[1]), right, None)

    def _either(
        self, call: Call, values: tuple[Value, Value], letters: tuple[str, str], out: str, bias: Value | None
    ) -> list[Tensor] | None:
        first, second = values
        if second.index in self.static:
            return self._contract(call, first, second, *letters, out, bias)
        if first.index in self.static:
            return self._contract(call, second, first, letters[1], letters[0], out, bias)
        return None

    def _contract(
        self, call: Call, given: Value, kernel: Value, data: str, weight: str, out: str, bias: Value | None
    ) -> list[Tensor] | None:
        """A sum of products of a signal and a weight, whose axes have letters as in ``einsum``."""
        if given.index in self.static or kernel.index not in self.static:
            return None
        # The weight does not know an axis that is the signal's alone.
        alone = [axis for axis, letter in enumerate(data) if letter not in weight]
        labels = self.found.merged(self.labels[given.index], alone)
        sizes = dict(zip(weight, kernel.shape, strict=True))
        outputs = self.found.fresh([sizes.get(letter, 1) for letter in out])
        inputs = self._arranged(labels, data, weight)
        return [self._weighed(call, kernel, inputs, self._arranged(outputs, out, weight), outputs, bias)]

    @staticmethod
    def _arranged(labels: Tensor, letters: str, wanted: str) -> Tensor:
        """Lay labels out along other axes; those that are not wanted have size 1, or are sums over the weight alone."""
        here = [letters.index(letter) for letter in wanted if letter in letters]
        kept = labels.permute(here + [axis for axis in range(labels.ndim) if axis not in here])
        kept = kept.reshape(kept.shape[: len(here)])
        for axis, letter in enumerate(wanted):
            if letter not in letters:
                kept = kept.unsqueeze(axis)
        return kept

    def _weighed(
        self, call: Call, kernel: Value, inputs: Tensor, outputs: Tensor, made: Tensor, bias: Value | None
    ) -> Tensor:
        """Let a weight and a bias take up gauges, and return the labels of what they make; ``made`` if they can."""
        source = self.weights.of(kernel)
        if isinstance(source, str):
            magnitude = self.weights.magnitude(kernel)
            if magnitude is None or magnitude.places is not None:
                for one in (inputs, outputs):
                    self._ground(one, source)
                if bias is not None:
                    self._ground(self.labels[bias.index], source)
                return made
            # A magnitude has a number only for some channels: along other axes nothing can be taken up.
            shape = magnitude.parameter.shape
            for one in (inputs, outputs):
                if any(have > 1 and size == 1 for have, size in zip(one.shape, shape, strict=True)) or not shape:
                    self._ground(one, source)
            inputs, outputs = (
                torch.zeros((1,) * one.ndim, dtype=torch.int64)
                if any(have > 1 and size == 1 for have, size in zip(one.shape, shape, strict=True))
                else one
                for one in (inputs, outputs)
            )
            source = magnitude
        owner = kernel.name.rpartition(".")[0] or kernel.name or call.owner
        self._take(source.parameter, inputs, outputs, owner if kernel.name else "", source.places)
        if bias is None:
            if kernel.kind == "parameter":
                beside = f"{kernel.name.removesuffix('weight')}bias"
                labels = made.reshape(-1)
                self.found.take(Map(beside, torch.zeros_like(labels), labels, owner, self.run, open=True))
            return made
        found = self.weights.of(bias)
        if isinstance(found, str) or found.places is not None:
            self._ground(self.labels[bias.index], "it is added as a bias")
            self._ground(made, found if isinstance(found, str) else f"its bias {found.parameter.name} is turned")
            return made
        labels = made.reshape(-1) if call.name in LINEAR and call.name != "addmm" else made
        shape = bias.shape
        while labels.ndim > len(shape):
            labels = self.found.merged(labels, [0])[0]
        labels = self.found.merged(
            labels, [axis for axis in range(labels.ndim) if shape[len(shape) - labels.ndim + axis] == 1]
        )
        self._take(found.parameter, torch.zeros_like(labels), labels, owner)
        return made

    def norm(self, call: Call) -> list[Tensor] | None:
        named = {"batch_norm": (3, 4), "instance_norm": (3, 4), "rms_norm": (2, None)}.get(call.name, (2, 3))
        weight = self._value(call.argument(named[0], "weight"))
        bias = None if named[1] is None else self._value(call.argument(named[1], "bias"))
        value = call.inputs[0]
        why = f"it goes into {call.name}, whose result does not follow a change of size"
        if call.name == "batch_norm":
            why = "it goes into batch_norm, which measures its size in training"
        by_channel = call.name in ("batch_norm", "instance_norm")
        self._ground(self.labels[value.index], why + inside(call), normalised=by_channel)
        for other in call.inputs[1:]:
            if other.index not in self.static:
                return None
        sources = [self.weights.of(one) for one in (weight, bias) if one is not None]
        if weight is None or any(isinstance(one, str) or one.places is not None for one in sources):
            return [self._grounded(value)]
        outputs = self.found.fresh(weight.shape)
        zeros = torch.zeros_like(outputs)
        for one in sources:
            if isinstance(one, Source):
                self._take(one.parameter, zeros, outputs, weight.name.rpartition(".")[0])
        if bias is None and weight.kind == "parameter":
            beside = f"{weight.name.removesuffix('weight')}bias"
            self.found.take(Map(beside, zeros, outputs, weight.name.rpartition(".")[0], self.run, open=True))
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
        index = channel_index(module, tuple(value.shape))
        inputs, index = torch.broadcast_tensors(self.labels[value.index], index)
        shape = tuple(inputs.shape)
        use = next((one for one in site.uses if self.run not in dict(one.calls) and one.shape == shape), None)
        if use is not None:
            # The same call in another run: what it makes has the same gauges.
            use.calls.append((self.run, call))
            self.found.tie(torch.from_numpy(use.inputs).reshape(use.shape), inputs)
            outputs = torch.from_numpy(use.outputs).reshape(use.shape)
        else:
            outputs = self.found.fresh(inputs.shape)
            use = Use([(self.run, call)], name, flat(inputs), flat(outputs), flat(index), shape)
            site.uses.append(use)
        self.found.nonzero.append(flat(inputs))
        if site.blocked:
            self._ground(inputs, site.blocked)
            self._ground(outputs, site.blocked)
        elif not site.homogeneous:
            self._ground(inputs, f"it goes into {module.base}, which does not scale with its input")
        elif not module.facts.odd:
            self._positive(inputs, f"it goes into {module.base}")
        made = outputs
        if isinstance(module, AgileMaxPool2d):
            made = self.found.merged(outputs, (outputs.ndim - 2, outputs.ndim - 1))
            self._positive(made, "it goes into max pooling")
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
    **dict.fromkeys(words("matmul mm bmm addmm baddbmm"), _Rules.product),
    "einsum": _Rules.einsum,
    "gather": _Rules.gathering,
    **dict.fromkeys(words("index_add scatter_add scatter scatter_reduce index_copy"), _Rules.scattering),
    **dict.fromkeys(NORMS, _Rules.norm),
}
