"""Convolution, activation and 2x2 max pooling of a trial's network in one go: most of what a small network costs."""

import functools
from collections import OrderedDict

import torch
from torch import Tensor, nn

from agileact import bases, ops
from agileact.nn import Agile
from agileact.ops.convolution import conv_max_pool2d
from agileact.study.models.chain import Chain, watched
from agileact.study.spec.activation_names import PlainActivation

_FILTERS, _TAPS = 16, 288
"""Up to so many filters, of so many weights, the operator is faster than convolution and pooling by themselves."""


class PoolingChain(Chain):
    r"""A :class:`Chain` that convolves and pools at once, and evaluates the activation on what is left.

    With :math:`a > 0` and an f that never falls, :math:`\max_i a f(z_i - b) = a f(\max_i z_i - b)`. Where a scale is
    not positive, or a module has a hook, the three steps are taken one after the other.
    """

    def step(self, ahead: list[nn.Module], x: Tensor) -> tuple[Tensor, int]:
        """Return what the next modules make of x, and how many they are."""
        if len(ahead) == 3:
            convolution, activation, pooling = ahead
            if type(convolution) is nn.Conv2d and _in_one(convolution, activation, pooling, x):
                padding: tuple[int, int] = convolution.padding  # type: ignore[assignment]
                return activation(conv_max_pool2d(x, convolution.weight, convolution.bias, padding)), 3
        return super().step(ahead, x)


def pooled_at_once(model: nn.Module) -> nn.Module:
    """Return a network of the same modules, as a :class:`PoolingChain` where it is a chain and kernels are compiled."""
    if type(model) is not Chain or not ops.CPU.loaded:
        return model
    return PoolingChain(OrderedDict(model.named_children())).train(model.training)


def _in_one(convolution: nn.Conv2d, activation: nn.Module, pooling: nn.Module, x: Tensor) -> bool:
    channels, taps = convolution.in_channels, convolution.weight[0].numel()
    return (
        type(pooling) is nn.MaxPool2d
        and (pooling.kernel_size, pooling.stride) in ((2, 2), ((2, 2), (2, 2)))
        and (pooling.padding, pooling.dilation, pooling.ceil_mode, pooling.return_indices) == (0, 1, False, False)
        and (convolution.stride, convolution.dilation, convolution.groups) == ((1, 1), (1, 1), 1)
        and convolution.padding_mode == "zeros"
        and isinstance(convolution.padding, tuple)
        and convolution.out_channels <= _FILTERS
        and taps <= _TAPS
        and (channels % 8 == 0 or not x.requires_grad)
        and x.ndim == 4
        and x.is_cpu
        and x.dtype == convolution.weight.dtype == torch.float32
        and not any(map(watched, (convolution, activation, pooling)))
        and _rises(activation)
    )


def _rises(activation: nn.Module) -> bool:
    """Return whether the activation does the same to each number of a channel, and never falls."""
    if type(activation) is PlainActivation:
        return activation.rising
    return (
        type(activation) is Agile
        and (activation.granularity, activation.dim) in (("channel", 1), ("layer", 1))
        and activation._parameters.get("gain") is None
        and _monotone(activation.base, tuple(activation.options.items()))
        and bool((activation.scale.detach() > 0).all())
    )


@functools.lru_cache(maxsize=64)
def _monotone(base: str, options: tuple[tuple[str, float | str], ...]) -> bool:
    return bases.get(base).facts(**dict(options)).monotone == "increasing"
