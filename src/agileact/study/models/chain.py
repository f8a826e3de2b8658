"""A chain of layers that takes an activation and the max pooling behind it in one go, where the result is the same."""

from collections.abc import Callable

from torch import Tensor, nn

from agileact import bases
from agileact.functional import agile_max_pool2d
from agileact.nn import Agile
from agileact.study.spec.activation_names import PlainActivation
from agileact.transforms.trace.activation_tables import known_module

_RELU = ("relu", "channel", 1)
"""Base, granularity and dimension of the activation that is pooled in one pass."""


class Chain(nn.Sequential):
    """As :class:`torch.nn.Sequential`, faster where max pooling follows an activation.

    A plain activation that never falls is evaluated behind the pooling, on as many numbers fewer as a window has: the
    largest f(x) is the f of the largest x. A ReLU, plain or agile, and its pooling are
    :func:`agileact.functional.agile_max_pool2d`, and so is, with the identity, the pooling behind any other activation:
    it keeps bytes where PyTorch's keeps long integers. The modules, their names and their order stay what they are. A
    hook on one of the two is called as in any chain, because the two steps are then taken one after the other; so they
    are while a run is recorded, which :func:`agileact.fold` needs.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the output of the last layer."""
        modules = list(self)
        index = 0
        while index < len(modules):
            input, taken = self.step(modules[index : index + 3], input)
            index += taken
        return input

    def step(self, ahead: list[nn.Module], x: Tensor) -> tuple[Tensor, int]:
        """Return what the next modules make of x, and how many they are."""
        behind = ahead[1] if len(ahead) > 1 else None
        together = _together(ahead[0], behind) if type(behind) is nn.MaxPool2d else None
        return (ahead[0](x), 1) if together is None else (together(x), 2)


def _together(activation: nn.Module, pooling: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return both in one step, or None where they must be two."""
    assert isinstance(pooling, nn.MaxPool2d)
    if watched(activation) or watched(pooling) or pooling.return_indices:
        return None

    def pooled(x: Tensor) -> Tensor:
        if x.ndim == 4 and x.is_cpu and x.stride(1) == 1:  # channels last; vmap answers nothing else
            return _max_pool(x, None, None, pooling, "identity")
        return pooling(x)  # type: ignore[no-any-return]

    # ReLU alone: of a sigmoid the fused kernel and PyTorch's differ in the last bit, and an agile network must begin as
    # its plain twin, to the bit; it is no faster there either.
    if isinstance(activation, Agile):
        if (activation.base, activation.granularity, activation.dim) == _RELU:
            return lambda x: _max_pool(x, activation.scale, activation.location, pooling, "relu")
    else:
        base, rising = _plain(activation)
        if base == "relu":
            return lambda x: _max_pool(x, None, None, pooling, "relu")
        if rising:
            return lambda x: activation(pooled(x))
    return lambda x: pooled(activation(x))


def _plain(activation: nn.Module) -> tuple[str, bool]:
    """Return the base of a plain activation, PyTorch's too, which fold leaves, and whether it never falls."""
    if type(activation) is PlainActivation:
        return activation.base, activation.rising
    known = None if getattr(activation, "inplace", False) else known_module(activation)
    if known is None:
        return "", False
    base, options = known
    return base, bases.get(base).facts(**options).monotone == "increasing"


def _max_pool(x: Tensor, scale: Tensor | None, location: Tensor | None, pooling: nn.MaxPool2d, base: str) -> Tensor:
    window = (pooling.kernel_size, pooling.stride, pooling.padding, pooling.dilation, pooling.ceil_mode)
    result = agile_max_pool2d(x, scale, location, *window, base=base)
    assert isinstance(result, Tensor)
    return result


def watched(module: nn.Module) -> bool:
    """Return whether something waits for the module's call: a hook, or a forward put in, as a record of a run does."""
    own = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(own) or "forward" in module.__dict__
