"""A decay of scale and location towards their start."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from agileact._common import checks
from agileact._common.errors import ArgumentError
from agileact.optim.constraint import project
from agileact.optim.groups import agile_modules

_ACTIVE: WeakKeyDictionary[Optimizer, RemovableHandle] = WeakKeyDictionary()


def decay_activations(optimizer: Optimizer, model: nn.Module) -> RemovableHandle:
    """Make an optimizer pull scales and locations towards their start with each of its steps.

    After every step, p becomes p - lr * decay * (p - start) for each parameter with a gradient in a group with
    an ``"activation_decay"``, where lr and decay are what the group says at that step: a learning rate scheduler
    has its effect. The start is the module's: 1 and 0, except for the later terms of a
    :class:`~agileact.nn.CombinedAgile`. As in AdamW the decay is apart from the gradient, so
    adaptive optimizers do not rescale it. Nothing of it is kept in the optimizer's state: after a state
    is loaded into a new optimizer, call this function for that one too. Called again for the same optimizer, it
    replaces the earlier call.

    Args:
        optimizer: An optimizer over the groups of :func:`~agileact.param_groups`.
        model: The model whose parameters these are.

    Returns:
        A handle; its ``remove()`` ends the decay.

    Raises:
        ArgumentError: If no group of the optimizer has an ``"activation_decay"``. If a group that has one holds
            another parameter than the scales and locations of the agile modules in ``model``. If such a parameter is
            parametrised or pruned, so that its start is not known.
        ArgumentTypeError: If an argument has the wrong type.

    Example:
        >>> import torch, agileact as ag
        >>> model = ag.AgileReLU(2)
        >>> groups = ag.param_groups(model, lr=0.5, activation_decay=0.1)
        >>> optimizer = torch.optim.SGD(groups)
        >>> handle = ag.decay_activations(optimizer, model)
        >>> with torch.no_grad():
        ...     _ = model.scale.fill_(3.0)
        >>> model(torch.zeros(1, 2)).sum().backward()  # a gradient of 0: what is left is the decay
        >>> optimizer.step()
        >>> model.scale.tolist()
        [2.9000000953674316, 2.9000000953674316]
    """
    checks.optimizer(optimizer)
    checks.model(model)
    starts: dict[Tensor, Tensor] = {}
    for module in agile_modules(model):
        own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        for name, start in module.initial_values().items():
            if name in own:
                starts.setdefault(own[name], _as_laid_out(start, own[name]))
    decaying = [group for group in optimizer.param_groups if "activation_decay" in group]
    if not decaying:
        raise ArgumentError(
            "optimizer has no group with an 'activation_decay'; make its groups by "
            "agileact.param_groups(model, lr, activation_decay=...)"
        )
    if any(parameter not in starts for group in decaying for parameter in group["params"]):
        raise ArgumentError(
            "a group with an 'activation_decay' must hold only scales and locations of agile modules in model, "
            "not parametrised or pruned; is model the one whose parameters the optimizer has?"
        )

    def decay(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for group in optimizer.param_groups:
                rate = group.get("activation_decay", 0.0)
                if rate == 0.0:
                    continue
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        start = starts[parameter].to(parameter)
                        parameter.sub_((parameter - start) * (group["lr"] * rate))
        # A decay that overshoots, or a start out of range, must not leave a constrained scale there.
        project(optimizer)

    earlier = _ACTIVE.get(optimizer)
    if earlier is not None:
        earlier.remove()
    handle = _ACTIVE[optimizer] = optimizer.register_step_post_hook(decay)
    return handle


def _as_laid_out(start: Tensor, parameter: Any) -> Tensor:
    """Return a start in parts, if FSDP has sharded the parameter whose it is."""
    if not hasattr(parameter, "device_mesh"):
        return start
    from torch.distributed.tensor import distribute_tensor

    result: Tensor = distribute_tensor(start, parameter.device_mesh, parameter.placements)
    return result
