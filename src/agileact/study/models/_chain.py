"""A chain of layers that takes an activation and the max pooling behind it in one go, where the result is the same."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from agileact.functional import agile_max_pool2d
from agileact.nn import Agile
from agileact.study.activations import PlainActivation


class Chain(nn.Sequential):
    r"""As :class:`torch.nn.Sequential`, faster where max pooling follows an activation.

    A plain activation that never falls, :math:`x \le y \Rightarrow f(x) \le f(y)`, is evaluated behind the pooling,
    on as many numbers fewer as a window has: the largest f(x) is the f of the largest x. An agile ReLU and its pooling
    are :func:`agileact.functional.agile_max_pool2d`. The modules, their names and their order stay what they are, and
    a hook on one of the two is called as in any chain, because the two steps are then taken one after the other.

    Example:
        >>> import torch
        >>> x = torch.randn(2, 3, 4, 4)
        >>> layers = (Agile("relu", 3), nn.MaxPool2d(2))
        >>> torch.equal(Chain(*layers)(x), nn.Sequential(*layers)(x))
        True
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the output of the last layer."""
        modules = list(self)
        index = 0
        while index < len(modules):
            module = modules[index]
            behind = modules[index + 1] if index + 1 < len(modules) else None
            together = _together(module, behind) if type(behind) is nn.MaxPool2d else None
            input = module(input) if together is None else together(input)
            index += 1 if together is None else 2
        return input


def _together(activation: nn.Module, pooling: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return both in one step, or None where they must be two."""
    assert isinstance(pooling, nn.MaxPool2d)
    if _watched(activation) or _watched(pooling) or pooling.return_indices:
        return None
    if type(activation) is PlainActivation:
        return (lambda x: activation(pooling(x))) if activation.rising else None
    # ReLU alone: of a sigmoid the fused kernel and PyTorch's differ in the last bit, and an agile network must begin as
    # its plain twin, to the bit; it is no faster there either.
    if isinstance(activation, Agile) and activation.base == "relu" and activation.granularity == "channel":
        if activation.dim != 1:
            return None

        def pooled(x: Tensor) -> Tensor:
            result = agile_max_pool2d(
                x,
                activation.scale,
                activation.location,
                pooling.kernel_size,
                pooling.stride,
                pooling.padding,
                pooling.dilation,
                pooling.ceil_mode,
                base="relu",
            )
            assert isinstance(result, Tensor)
            return result

        return pooled
    return None


def _watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
