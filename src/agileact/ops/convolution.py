"""A convolution and the 2x2 max pooling behind it as one operator: default kernels, shapes, the gradient."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agileact.ops.pool import Pair, indices_of, places_of
from agileact.ops.schema import LIBRARY

_ops = torch.ops.agileact
_WINDOW: tuple[Pair, Pair, Pair, Pair] = ((2, 2), (2, 2), (0, 0), (1, 1))


def conv_max_pool2d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair) -> Tensor:
    """Return ``max_pool2d(conv2d(x, weight, bias, padding=padding), 2)``, with the gradients of x, weight and bias.

    Compiled for the CPU it is for few channels, in float32 and on one thread. Of images whose channels are not in
    eights it has no gradient.
    """
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        done: Tensor = _ConvMaxPool2d.apply(x, weight, bias, padding)
        return done
    return _ops.conv_max_pool2d(x, weight, bias, padding)[0]  # type: ignore[no-any-return]


class _ConvMaxPool2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair) -> Tensor:
        y, places = _ops.conv_max_pool2d(x, weight, bias, padding)
        ctx.save_for_backward(x, weight, places)
        ctx.padding, ctx.biased = padding, bias is not None
        return y  # type: ignore[no-any-return]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        x, weight, places = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        to_x, to_weight, to_bias = _ops.conv_max_pool2d_backward(grad, x, weight, places, ctx.padding, wanted)
        return to_x if wanted else None, to_weight, to_bias if ctx.biased else None, None


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair) -> tuple[Tensor, Tensor]:
    y = F.conv2d(x, weight, bias, padding=padding)
    value, indices = F.max_pool2d_with_indices(y, (2, 2))
    last = torch.channels_last
    return value.contiguous(memory_format=last), places_of(indices, y.shape[3], *_WINDOW).contiguous(memory_format=last)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, places: Tensor, padding: Pair, want_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    height, width = (n + 2 * p - k + 1 for n, p, k in zip(x.shape[2:], padding, weight.shape[2:], strict=True))
    flat = grad.new_zeros((*grad.shape[:2], height * width))
    flat.scatter_add_(2, indices_of(places, width, *_WINDOW).flatten(2), grad.flatten(2))
    unpooled = flat.view(*grad.shape[:2], height, width)
    one = [1, 1]
    to_x, to_weight, to_bias = torch.ops.aten.convolution_backward(
        unpooled, x, weight, [len(weight)], one, padding, one, False, [0, 0], 1, [want_x, True, True]
    )
    return to_x if want_x else x.new_empty(0), to_weight, to_bias


def _fake_forward(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair) -> tuple[Tensor, Tensor]:
    size = [(n + 2 * p - k + 1) // 2 for n, p, k in zip(x.shape[2:], padding, weight.shape[2:], strict=True)]
    y = torch.empty(
        (x.shape[0], weight.shape[0], *size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    return y, torch.empty_like(y, dtype=torch.uint8)


def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, places: Tensor, padding: Pair, want_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    to_x = torch.empty_like(x, memory_format=torch.channels_last) if want_x else x.new_empty(0)
    return to_x, torch.empty_like(weight, memory_format=torch.channels_last), weight.new_empty(len(weight))


for _name, _kernel, _fake in (
    ("conv_max_pool2d", _forward, _fake_forward),
    ("conv_max_pool2d_backward", _backward, _fake_backward),
):
    LIBRARY.impl(_name, _kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"agileact::{_name}", _fake, lib=LIBRARY)
