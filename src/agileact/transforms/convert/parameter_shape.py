"""How many parameters an activation gets, along which axis, and of which dtype."""

import math
from collections.abc import Sequence

import torch
from torch import Size, nn

from agileact._common.broadcasting import WIDE
from agileact.functional import Granularity
from agileact.transforms.convert.channels import ChannelFinder, Channels
from agileact.transforms.trace.recording import Call, Value, Visit


class MisfitError(Exception):
    """An activation cannot be given parameters; the message is the reason for a report."""


class Geometry:
    """Gives the parameters of activations their number and place, from the calls of one recording."""

    def __init__(self, model: nn.Module, granularity: Granularity, dim: int | None) -> None:
        self.granularity = granularity
        self.dim = dim
        self.finder = ChannelFinder()
        floating = [p for p in model.parameters() if p.dtype in WIDE]
        self.dtypes = [p.dtype for p in floating]
        self.device = floating[0].device if floating else torch.device("cpu")

    def of(self, calls: Sequence[Call | Visit]) -> tuple[int | None, int, str]:
        """Return the number of parameters (None is open), the axis and what is to be known, for one activation."""
        values = [call.inputs[0] for call in calls]
        note = f"called {len(calls)} times, always with the same pair" if len(calls) > 1 else ""
        for value in values:
            if not value.dense:
                raise MisfitError("its input is a sparse or nested tensor, and an agile activation takes dense ones")
            if value.dtype not in WIDE:
                raise MisfitError(f"its input is of {value.dtype}, and scale and location need floating-point numbers")
        if self.granularity == "layer" or not values:
            return None, 1 if self.dim is None else self.dim, note
        if self.granularity == "element":
            return self._elements(values), 1, note
        found = [self._channels(value) for value in values]
        lost = next((one for one in found if one.axis is None), None)
        if lost is not None:
            raise MisfitError(f"{lost.reason}; give it by dim=, or granularity='layer', which always works")
        counts = {one.count for one in found}
        if len(counts) > 1:
            shown = " and ".join(map(str, sorted(counts)))
            raise MisfitError(f"one place is called with {shown} channels; granularity='layer' always works")
        dim = self.dim if self.dim is not None else _common_axis(found, values)
        if dim is None:
            raise MisfitError(
                "one place is called with channels along different axes; granularity='layer' always works"
            )
        notes = [note, *dict.fromkeys(one.reason for one in found)]
        return counts.pop(), dim, "; ".join(filter(None, notes))

    def placement(self, calls: Sequence[Call | Visit]) -> tuple[torch.device, torch.dtype | None]:
        """Return the device and the dtype that parameters get: those of the model's for such an input."""
        if not calls:
            return self.device, self.dtypes[0] if self.dtypes else None
        value = calls[0].inputs[0]
        dtype = value.dtype if value.dtype in self.dtypes or not self.dtypes else self.dtypes[0]
        return value.device or self.device, dtype

    def _channels(self, value: Value) -> Channels:
        if self.dim is None:
            return self.finder.find(value)
        ndim = len(value.shape)
        if ndim == 1 and self.dim == 1:
            return Channels(value.shape[0], 0)
        if not -ndim <= self.dim < ndim:
            return Channels(0, None, f"its input of shape {tuple(value.shape)} has no axis {self.dim}")
        return Channels(value.shape[self.dim], self.dim % ndim)

    def _elements(self, values: list[Value]) -> int:
        shapes = {value.shape[min(1, len(value.shape) - 1) :] if value.shape else Size() for value in values}
        if len(shapes) > 1:
            shown = " and ".join(str(tuple(shape)) for shape in sorted(shapes))
            raise MisfitError(f"one place is called with samples of shape {shown}; granularity='layer' always works")
        return math.prod(shapes.pop())


def _common_axis(found: list[Channels], values: list[Value]) -> int | None:
    """Return an axis that fits all calls: 1 if it can be, else one counted from the end, else from the front.

    Behind a layer that works on the last axis of whatever it gets, it is the last one, for inputs with more axes too.
    """
    fitting: set[int] | None = None
    for one, value in zip(found, values, strict=True):
        assert one.axis is not None
        ndim = len(value.shape)
        # The one axis of an unbatched sample is axis 1 as well.
        own = {one.axis, one.axis - ndim} | ({1} if ndim == 1 else set())
        fitting = own if fitting is None else fitting & own
    if not fitting:
        return None
    positive = [axis for axis in fitting if axis > 0]
    negative = [axis for axis in fitting if axis < 0]
    if -1 in negative and all(one.last for one in found):
        return -1
    if 1 in positive:
        return 1
    if -1 in negative or not positive:
        # Counted from the end, the axis of an unbatched sample stays right with a batch.
        return max(negative) if negative else 0
    return min(positive)
