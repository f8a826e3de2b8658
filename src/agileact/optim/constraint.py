"""Sign and range of scales: put back into their range after each step of the optimizer."""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from agileact._common import checks
from agileact._common.errors import ArgumentError, ArgumentTypeError
from agileact.nn import AgileModule

Range = Literal["positive"] | tuple[float, float]
Filter = Callable[[AgileModule, str], bool]
Bounds = dict[Tensor, tuple[float, float]]

POSITIVE = 1e-4
"""The smallest scale under "positive": normal in every dtype, and large enough to find the way back."""


# Kept beside the optimizer, so that whatever else moves scales after a step can end with them in range.
_ACTIVE: WeakKeyDictionary[Optimizer, OrderedDict[int, Bounds]] = WeakKeyDictionary()


def constrain_scale(
    optimizer: Optimizer, model: nn.Module, range: Range, *, filter_fn: Filter | None = None
) -> RemovableHandle:
    r"""Keep scales positive, or within a range: after every step of an optimizer, and from this call on.

    A scale is free unless this is called. Then it is projected: :math:`a \leftarrow \min(\max(a, low), high)`, now and
    after each step, exactly: no scale is ever outside, in any dtype. This is projected gradient descent, the
    way of ``weight.clamp_()`` after a step or of Keras' kernel constraints, rather than a reparametrisation such as
    :math:`a = \exp(\alpha)`: the scale stays the plain parameter that kernels, folding, parameter groups and saved
    states know; its start of 1 and its gradient stay what they are, and the forward pass costs nothing. A scale at an
    edge still has its gradient, and leaves the edge as soon as that points inward.

    Why one would: under max pooling, or before a function that is positively homogeneous, only a positive scale
    folds into weights; and a range ends explosions. Nothing is kept in the model or in the optimizer's state: after a
    state is loaded into a new optimizer, or for a copied model with an optimizer of its own, call this again. It
    composes with :func:`~agileact.param_groups`, and with :func:`~agileact.decay_activations` in either order. Several
    calls apply one after the other: for the same scale give one range.

    Args:
        optimizer: Any optimizer that has scales of ``model``.
        model: The model, with agile modules inside.
        range: "positive" for at least 0.0001, or (low, high), either of which may be infinite. Of a
            :class:`~agileact.CombinedAgile`, the scales of all terms are meant: also those that start at 0.
        filter_fn: Called as ``filter_fn(module, name)`` for each agile module; those for which it returns False
            stay free. Scales that the optimizer does not have, such as frozen ones, stay as they are.

    Returns:
        A handle; its ``remove()`` ends the constraint.

    Raises:
        ArgumentError: If the range is empty or the optimizer has no scale of the model; if a scale is not initialised
            yet, parametrised or pruned, or has values that are not finite.
        ArgumentTypeError: If an argument has the wrong type.

    Example:
        >>> import torch, agileact as ag
        >>> model = ag.AgileReLU(2)
        >>> optimizer = torch.optim.SGD(ag.param_groups(model, lr=1.0))
        >>> handle = ag.constrain_scale(optimizer, model, (0.5, 2.0))
        >>> model(torch.tensor([[3.0, 0.1]])).sum().backward()
        >>> optimizer.step()  # to 1 - 3 and to 1 - 0.1
        >>> model.scale.tolist()
        [0.5, 0.8999999761581421]
    """
    checks.optimizer(optimizer)
    checks.model(model)
    low, high = _bounds(range)
    owned = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    scales: Bounds = {}
    for name, module in model.named_modules():
        if not isinstance(module, AgileModule) or not (filter_fn is None or filter_fn(module, name)):
            continue
        scale = module._parameters.get("scale")
        if scale is None:
            raise ArgumentError(
                f"the scale of layer {name!r} is parametrised or pruned: remove that, or leave it out by filter_fn"
            )
        if is_lazy(scale):
            raise ArgumentError(f"layer {name!r} has no parameters yet; run one batch through the model first")
        if scale not in owned:
            continue
        if not scale.isfinite().all():
            raise ArgumentError(f"the scale of layer {name!r} has values that are not finite")
        scales[scale] = _inward(low, high, scale.dtype)
    if not scales:
        raise ArgumentError(
            "optimizer has no scale of an agile module in model (that filter_fn lets through); is model the one "
            "whose parameters the optimizer has?"
        )
    _clamp(scales)
    if optimizer not in _ACTIVE:
        _ACTIVE[optimizer] = OrderedDict()
        optimizer.register_step_post_hook(lambda stepped, *_: project(stepped))
    handle = RemovableHandle(_ACTIVE[optimizer])
    _ACTIVE[optimizer][handle.id] = scales
    return handle


def project(optimizer: Optimizer) -> None:
    """Put all scales that are constrained for an optimizer back into their ranges."""
    for scales in _ACTIVE.get(optimizer, {}).values():
        _clamp(scales)


def _clamp(scales: Bounds) -> None:
    with torch.no_grad():
        for scale, (low, high) in scales.items():
            scale.clamp_(low, high)


def _bounds(range: Any) -> tuple[float, float]:
    if range == "positive":
        return POSITIVE, math.inf
    if not isinstance(range, tuple) or len(range) != 2:
        raise ArgumentTypeError(f"range must be 'positive' or a pair (low, high), not {range!r}")
    for value in range:
        if not checks.is_number(value):
            raise ArgumentTypeError(f"range must be a pair of numbers, not {range!r}")
    low, high = float(range[0]), float(range[1])
    if not low <= high or low == math.inf or high == -math.inf:
        raise ArgumentError(f"range must be (low, high) with low <= high, not {range!r}")
    return low, high


def _inward(low: float, high: float, dtype: torch.dtype) -> tuple[float, float]:
    """Return the bounds as numbers of a dtype, rounded into the range and not out of it."""
    bounds = []
    for bound, goal in ((low, math.inf), (high, -math.inf)):
        rounded = torch.tensor(bound, dtype=dtype, device="cpu")
        outside = float(rounded) < bound if goal > 0 else float(rounded) > bound
        bounds.append(float(_next(rounded, goal)) if outside else float(rounded))
    if not bounds[0] <= bounds[1]:
        raise ArgumentError(f"range ({low}, {high}) holds no number of the scale's dtype, {dtype}")
    return bounds[0], bounds[1]


def _next(value: Tensor, goal: float) -> Tensor:
    """Return the neighbour of a number in its dtype, towards plus or minus infinity."""
    if value.dtype not in (torch.float16, torch.bfloat16):
        return torch.nextafter(value, torch.tensor(goal, dtype=value.dtype, device="cpu"))
    # PyTorch has no nextafter for half precision; neighbours of one sign are neighbours as integers.
    step = torch.tensor(1, dtype=torch.int16, device="cpu")
    if float(value) == 0.0:
        return math.copysign(1.0, goal) * step.view(value.dtype)
    away = (float(value) > 0) == (goal > 0)
    return (value.view(torch.int16) + (step if away else -step)).view(value.dtype)
