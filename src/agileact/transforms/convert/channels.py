"""Where the channels of a value lie: from the layer that made them, followed through all that moves them about."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor

from agileact.transforms.trace.activation_tables import FUNCTIONS, POINTWISE
from agileact.transforms.trace.operations import (
    AVERAGE_POOLING,
    DROPPING,
    LINEAR,
    MAX_POOLING,
    NORMS,
    REARRANGING,
    UPSAMPLING,
)
from agileact.transforms.trace.recording import Call, Value, words

# The first result of these has its channels along the last axis.
_LAST = words(
    "embedding embedding_bag bilinear lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell "
    "multi_head_attention_forward mm _sparse_mm matmul addmm _grouped_mm grouped_mm"
)
# By their own definition these leave (N, C, H, W), whatever they made the channels of.
_THIRD_LAST = words("pixel_shuffle pixel_unshuffle")
_KEEPING = (
    POINTWISE
    | frozenset(FUNCTIONS)
    | DROPPING
    | words(
        "layer_norm module softmax log_softmax softmin prelu rrelu alpha_dropout feature_alpha_dropout cumsum "
        "local_response_norm normalize type_as masked_scatter bernoulli"
    )
)
_RESIZING = MAX_POOLING | AVERAGE_POOLING | UPSAMPLING | words("pad lp_pool1d lp_pool2d max_pool2d_with_indices sum")
_PICKING = words("gather take_along_dim")
_ADDING_ROWS = words("index_add scatter scatter_add scatter_reduce index_copy index_reduce index_put")
# A label of what has no channels of its own.
_NONE = -1


@dataclass(frozen=True)
class Channels:
    """Where channels are, or why that is not known."""

    count: int
    axis: int | None  # counted from the front
    reason: str = ""
    last: bool = False  # the layer that made them always puts them along its last axis


@dataclass(frozen=True)
class _Labels:
    """The number of its channel for every element of a value, and the axis along which they differ, if it is one.

    A single channel has an axis although no label differs.
    """

    labels: Tensor
    axis: int | None


_RAW = "raw"
_UNKNOWN = "unknown"
_Found = _Labels | str


class ChannelFinder:
    """Finds the channels of values of one recording; what is found once is kept."""

    def __init__(self) -> None:
        self._known: dict[int, _Found] = {}

    def find(self, value: Value) -> Channels:
        """Return where the channels of a value are."""
        found = self._labels(value)
        if isinstance(found, _Labels):
            if found.axis is not None:
                return Channels(value.shape[found.axis], found.axis, last=_made_last(value))
            axes = _varying(found.labels)
            if len(axes) > 1:
                where = " and ".join(map(str, axes))
                return Channels(0, None, f"channels lie along axes {where} of {tuple(value.shape)}")
            return Channels(0, None, f"no axis of {tuple(value.shape)} is that of the channels any more")
        if found == _RAW and len(value.shape):
            axis = min(1, len(value.shape) - 1)
            return Channels(
                value.shape[axis], axis, "no layer of the model made the channels: by convention they lie along axis 1"
            )
        return Channels(0, None, f"where the channels of {tuple(value.shape)} lie cannot be told")

    def _labels(self, value: Value) -> _Found:
        # A path through a network can be longer than Python's stack is deep: no recursion.
        stack = [value]
        while stack:
            current = stack[-1]
            if current.index in self._known:
                stack.pop()
                continue
            maker = current.maker
            if maker is None or _made_along(maker) is not None:
                needed: list[Value] = []
            else:
                needed = [one for one in maker.inputs if one.index not in self._known and one.index < current.index]
            if needed:
                stack += needed
                continue
            self._known[current.index] = self._made(current)
            stack.pop()
        return self._known[value.index]

    def _made(self, value: Value) -> _Found:
        call = value.maker
        if not value.dense:
            return _UNKNOWN
        if call is None:
            # What comes from elsewhere may be the result of code that cannot be seen.
            return _UNKNOWN if value.kind == "constant" and value.shape.numel() > 1 else _RAW
        axis = _made_along(call)
        if axis is not None:
            if call.outputs[0] is not value or len(value.shape) < abs(axis):
                return _UNKNOWN
            return _along(value.shape, axis % len(value.shape))
        if call.name in _ADDING_ROWS:
            return self._of_rows(value, call)
        if call.name == "einsum":
            return self._summed(value, call)
        if call.name in REARRANGING | _PICKING:
            return self._rearranged(value, call)
        if call.name in _RESIZING:
            return self._resized(value, call)
        if call.name in ("scaled_dot_product_attention", "bmm"):
            return self._mixed(value, call)
        if call.name == "module" and value.shape != call.inputs[0].shape:
            return self._resized(value, call)  # an activation with a pooling
        if call.name in _KEEPING:
            return self._kept(value, call)
        return _UNKNOWN

    def _of(self, value: Value) -> _Found:
        return self._known.get(value.index, _UNKNOWN)

    def _kept(self, value: Value, call: Call) -> _Found:
        """An elementwise call: the channels are those of an argument of the same shape."""
        found = [self._of(one) for one in call.inputs if one.shape == value.shape]
        labelled = [one for one in found if isinstance(one, _Labels)]
        if labelled:
            # With several, as in a residual addition, one that tells the axis says most.
            return next((one for one in labelled if one.axis is not None), labelled[0])
        every = [self._of(one) for one in call.inputs]
        smaller = [(one, of) for one, of in zip(call.inputs, every, strict=True) if isinstance(of, _Labels)]
        for one, of in smaller:
            if isinstance(of, _Labels) and of.axis is not None:
                axis = of.axis - len(one.shape) + len(value.shape)
                if axis >= 0 and value.shape[axis] == one.shape[of.axis]:
                    return _along(value.shape, axis)
        return _UNKNOWN if _UNKNOWN in every or smaller else _RAW

    def _resized(self, value: Value, call: Call) -> _Found:
        """Pooling, upsampling and padding leave the channels alone, unless they reduce or change that very axis."""
        source = call.inputs[0]
        found = self._of(source)
        if not isinstance(found, _Labels):
            return found
        if found.axis is None:
            return _UNKNOWN
        shape, axis = source.shape, found.axis
        if len(value.shape) != len(shape) and call.name == "module":
            return _UNKNOWN
        if len(value.shape) != len(shape):
            reduced = call.argument(1, "dim")
            if reduced is None:
                return _UNKNOWN
            dims = {one % len(shape) for one in (reduced if isinstance(reduced, (tuple, list)) else (reduced,))}
            if axis in dims:
                return _UNKNOWN
            axis -= sum(one < axis for one in dims)
        if axis >= len(value.shape) or value.shape[axis] != shape[found.axis]:
            return _UNKNOWN
        return _along(value.shape, axis)

    def _of_rows(self, value: Value, call: Call) -> _Found:
        """Rows added up at, or written to, places: channels stay along their axis if that is not the axis of rows."""
        dim = call.argument(1, "dim", 0)
        for one in call.inputs:
            found = self._of(one)
            if isinstance(found, _Labels) and found.axis is not None and len(one.shape) == len(value.shape):
                rows = dim % len(value.shape) if isinstance(dim, int) else 0
                if found.axis != rows and one.shape[found.axis] == value.shape[found.axis]:
                    return _along(value.shape, found.axis)
        return _UNKNOWN

    def _summed(self, value: Value, call: Call) -> _Found:
        """einsum: channels stay where their letter is; those that a parameter makes have a letter of it alone."""
        equation = call.argument(0, "equation")
        if not isinstance(equation, str) or "..." in equation or "->" not in equation:
            return _UNKNOWN
        taken, _, made = equation.replace(" ", "").partition("->")
        letters = taken.split(",")
        if len(letters) != len(call.inputs) or len(made) != len(value.shape):
            return _UNKNOWN
        for name, one in zip(letters, call.inputs, strict=True):
            rest = "".join(other for other in letters if other is not name)
            own = [letter for letter in name if letter in made and letter not in rest]
            if one.kind == "parameter" and len(own) == 1:
                return _along(value.shape, made.index(own[0]))
        for name, one in zip(letters, call.inputs, strict=True):
            found = self._of(one)
            if isinstance(found, _Labels) and found.axis is not None and name[found.axis] in made:
                return _along(value.shape, made.index(name[found.axis]))
        return _UNKNOWN

    def _mixed(self, value: Value, call: Call) -> _Found:
        """Attention: each result is a mean of values, along the axis before the last."""
        found = self._of(call.inputs[-1 if call.name == "bmm" else 2])
        if not isinstance(found, _Labels) or found.labels.ndim != len(value.shape):
            return _UNKNOWN
        axis = found.labels.ndim - 2
        if axis in _varying(found.labels):
            return _UNKNOWN
        labels = found.labels.narrow(axis, 0, 1)
        try:
            return _Labels(labels.expand(value.shape), found.axis)
        except RuntimeError:
            return _UNKNOWN

    def _rearranged(self, value: Value, call: Call) -> _Found:
        sources = [one for one in call.inputs if one.dtype.is_floating_point]
        indices = [one for one in call.inputs if not one.dtype.is_floating_point]
        if not sources or any(one.dtype is torch.bool or not one.dense for one in call.inputs):
            return _UNKNOWN
        found = {one.index: self._of(one) for one in sources}
        if not any(isinstance(of, _Labels) for of in found.values()):
            return _UNKNOWN if _UNKNOWN in found.values() else _RAW
        known = next((of for of in found.values() if isinstance(of, _Labels)), None)
        given = {one.index: _filled(one.shape, found[one.index], known) for one in sources}
        # Which rows are picked makes no difference to channels; whoever picks channels loses them here.
        given |= {one.index: torch.zeros(one.shape, dtype=one.dtype) for one in indices}
        made = call.rearranged(given)
        place = next((index for index, one in enumerate(call.outputs) if one is value), None)
        if made is None or place is None:
            return _UNKNOWN
        labels = made[place]
        axes = _varying(labels)
        if len(axes) == 1:
            return _Labels(labels, axes[0])
        if not axes:
            return _Labels(labels, _single(value, call, found))
        return _Labels(labels, None)


_MAKING: dict[str, int] = {**LINEAR, **NORMS, **dict.fromkeys(_LAST, -1), **dict.fromkeys(_THIRD_LAST, -3)}


def _filled(shape: Size, found: _Found, other: _Labels | None) -> Tensor:
    """Return labels, also for what has none, such as a class token: it lies as what it is put together with."""
    if isinstance(found, _Labels):
        return found.labels
    if other is not None and other.axis is not None and len(shape) == other.labels.ndim:
        along = _along(shape, other.axis).labels
        if along.shape[other.axis] == other.labels.shape[other.axis]:
            return along
    return torch.full((), _NONE).expand(shape)


def _made_last(value: Value) -> bool:
    """Return whether a value comes, by calls that keep its shape, from a layer with channels along the last axis."""
    while value.maker is not None and value.maker.name in _KEEPING and value.maker.inputs:
        value = value.maker.inputs[0]
    return value.maker is not None and _made_along(value.maker) == -1


def _made_along(call: Call) -> int | None:
    """Return the axis along which a call makes channels of its own; None if it makes none."""
    if call.name == "layer_norm" and len(call.argument(1, "normalized_shape", ())) != 1:
        return None  # a norm over whole maps knows no channels
    if call.name in ("bmm", "baddbmm") and call.inputs[-1].kind == "parameter":
        return -1  # a layer for each part of a batch, as experts have
    return _MAKING.get(call.name)


def _along(shape: Size, axis: int) -> _Labels:
    sizes = [1] * len(shape)
    sizes[axis] = shape[axis]
    return _Labels(torch.arange(shape[axis]).view(sizes).expand(shape), axis)


def _varying(labels: Tensor) -> list[int]:
    """Return the axes along which labels differ."""
    axes = []
    for axis, size in enumerate(labels.shape):
        if size > 1 and labels.stride(axis) and labels.numel():
            first = labels.narrow(axis, 0, 1)
            if not torch.equal(first.expand_as(labels), labels):
                axes.append(axis)
    return axes


def _single(value: Value, call: Call, found: dict[int, Any]) -> int | None:
    """Return the axis of a single channel: no label can tell it, only the axis being the same or one of size 1."""
    first = found.get(call.inputs[0].index)
    before = call.inputs[0].shape
    if isinstance(first, _Labels) and first.axis is not None and before[first.axis] == 1:
        if value.shape == before and call.name not in ("permute", "transpose", "movedim", "flip"):
            return first.axis
        if len(value.shape) > 1 and value.shape[1] == 1:
            return 1
        if len(value.shape) > 1 and value.shape[-1] == 1:
            return len(value.shape) - 1
    return None
