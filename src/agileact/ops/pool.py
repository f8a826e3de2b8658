"""Activation and max pooling as one operator: default kernels, shapes for tracing, and vmap."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agileact.ops.schema import LIBRARY
from agileact.ops.tracing import empty

_ops = torch.ops.agileact
MAX_WINDOW = 256
"""A place in a window is one byte."""

Pair = tuple[int, int]


def output_size(size: Sequence[int], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil: bool) -> Pair:
    """Return the height and the width that max pooling leaves, by PyTorch's rule.

    Example:
        >>> output_size((7, 8), (2, 2), (2, 2), (0, 0), (1, 1), ceil=True)
        (4, 4)
    """
    result = []
    for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        span = n + 2 * p - d * (k - 1) - 1
        o = (span + (s - 1 if ceil else 0)) // s + 1
        # The last window must start inside the input or its left padding.
        result.append(o - 1 if ceil and (o - 1) * s >= n + p else o)
    return result[0], result[1]


def _starts(places: Tensor, stride: Pair, padding: Pair) -> tuple[Tensor, Tensor]:
    """Return the row and the column where each window starts."""
    rows = torch.arange(places.shape[-2], device=places.device).unsqueeze(-1) * stride[0] - padding[0]
    return rows, torch.arange(places.shape[-1], device=places.device) * stride[1] - padding[1]


def indices_of(places: Tensor, width: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """Return places in windows as indices into planes, as ``max_pool2d`` gives them."""
    place = places.to(torch.int64)
    rows, columns = _starts(places, stride, padding)
    row = rows + place // kernel[1] * dilation[0]
    return row * width + columns + place % kernel[1] * dilation[1]


def places_of(indices: Tensor, width: int, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """Return indices into planes as places in windows."""
    rows, columns = _starts(indices, stride, padding)
    row = (indices // width - rows) // dilation[0]
    return (row * kernel[1] + (indices % width - columns) // dilation[1]).to(torch.uint8)


def channels(parameter: Tensor | None, channels: int) -> tuple[int, int]:
    """Return the axes of a parameter: the channels, or none if there is one pair for all."""
    return (1, 1) if parameter is None or parameter.numel() == channels else (0, 0)


# Behind the tensors a call has the base function with its two options, the window's kernel, stride, padding and
# dilation, and the size of the planes that come out.


def forward(x: Tensor, scale: Tensor | None, location: Tensor | None, *call: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return values, the inputs they come from, and their places in their windows."""
    function, out = call[:3], call[7]
    window: tuple[Pair, Pair, Pair, Pair] = call[3:7]
    axes = channels(scale if scale is not None else location, x.shape[1])
    y = _ops.agile(x, scale, location, *function, *axes)
    ceil = output_size(x.shape[2:], *window, ceil=False) != tuple(out)
    value, indices = F.max_pool2d_with_indices(y, *window, ceil)
    picked = x.flatten(2).gather(2, indices.flatten(2)).view_as(value)
    places = places_of(indices, x.shape[3], *window)
    return value, torch.empty_like(value).copy_(picked), torch.empty_like(value, dtype=torch.uint8).copy_(places)


def backward(
    grad: Tensor, picked: Tensor, places: Tensor, scale: Tensor | None, location: Tensor | None, *call: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, scale and location."""
    function, window, size = call[:3], call[3:7], call[7]
    axes = channels(scale if scale is not None else location, picked.shape[1])
    values, to_scale, to_location = _ops.agile_backward(grad, picked, scale, location, *function, *axes)
    indices = indices_of(places, size[1], *window).flatten(2)
    flat = values.new_zeros((*values.shape[:2], size[0] * size[1]))
    planes = flat.scatter_add(2, indices, values.flatten(2)).view(*values.shape[:2], *size)
    return planes.contiguous(memory_format=format_of(values)), to_scale, to_location


def format_of(x: Tensor) -> torch.memory_format:
    """Return channels last, or else contiguous."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def fake_forward(x: Tensor, scale: Tensor | None, location: Tensor | None, *call: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return memory for what ``forward`` returns."""
    size = (*x.shape[:2], *call[-1])
    y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=format_of(x))
    return y, torch.empty_like(y), torch.empty_like(y, dtype=torch.uint8)


def _fake_backward(
    grad: Tensor, picked: Tensor, places: Tensor, scale: Tensor | None, location: Tensor | None, *call: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return fake_forward(picked, scale, location, *call)[0], empty(scale, picked), empty(location, picked)


# --- vmap: the samples become more images, or, where parameters or their gradients are their own, more channels ---


def _to_front(t: Tensor, axis: int | None, size: int) -> Tensor:
    return t.unsqueeze(0).expand(size, *t.shape) if axis is None else t.movedim(axis, 0)


def _fold(t: Tensor, axis: int | None, size: int, place: int) -> Tensor:
    return _to_front(t, axis, size).movedim(0, place).flatten(place, place + 1)


def _fold_parameter(t: Tensor | None, axis: int | None, size: int, channels: int) -> Tensor | None:
    return None if t is None else _to_front(t, axis, size).reshape(size, -1).expand(size, channels).reshape(-1)


def _vmap_forward(info: Any, axes: Any, x: Any, scale: Any, location: Any, *call: Any) -> Any:
    size = info.batch_size
    # Images, if the parameters are the same for all samples.
    place = 0 if axes[1] is None and axes[2] is None else 1
    channels = (x if axes[0] is None else x.movedim(axes[0], 0)[0]).shape[1]
    if place == 1:
        scale = _fold_parameter(scale, axes[1], size, channels)
        location = _fold_parameter(location, axes[2], size, channels)
    results = _ops.agile_max_pool2d(_fold(x, axes[0], size, place), scale, location, *call)
    return tuple(t.unflatten(place, (size, -1)) for t in results), (place, place, place)


def _vmap_backward(
    info: Any, axes: Any, grad: Any, picked: Any, places: Any, scale: Any, location: Any, *call: Any
) -> Any:
    size = info.batch_size
    folded = [_fold(t, axis, size, 1) for t, axis in zip((grad, picked, places), axes, strict=False)]
    channels = folded[1].shape[1] // size
    parameters = [_fold_parameter(t, axis, size, channels) for t, axis in ((scale, axes[3]), (location, axes[4]))]
    to_x, *rest = _ops.agile_max_pool2d_backward(*folded, *parameters, *call)
    results, places_of = [to_x.unflatten(1, (size, -1))], [1]
    for gradient, parameter, axis in zip(rest, (scale, location), axes[3:5], strict=True):
        if parameter is None:
            results.append(gradient)
            places_of.append(None)  # type: ignore[arg-type]
            continue
        shape = parameter.shape if axis is None else parameter.movedim(axis, 0).shape[1:]
        each = gradient.reshape(size, channels)
        results.append((each if shape.numel() == channels else each.sum(1, keepdim=True)).reshape(size, *shape))
        places_of.append(0)
    return tuple(results), tuple(places_of)


for _name, _kernel, _fake, _map in (
    ("agile_max_pool2d", forward, fake_forward, _vmap_forward),
    ("agile_max_pool2d_backward", backward, _fake_backward, _vmap_backward),
):
    LIBRARY.impl(_name, _kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"agileact::{_name}", _fake, lib=LIBRARY)
    torch.library.register_vmap(f"agileact::{_name}", _map, lib=LIBRARY)


def fits(x: Tensor, kernel: Pair) -> bool:
    """Return whether the operator can do it: float16 and enormous windows go through two operators."""
    return x.dtype != torch.float16 and math.prod(kernel) <= MAX_WINDOW
