"""Write what was found into the weights of a model, in float64 and rounded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from agileact.transforms.fold.gauge import Numbers
from agileact.transforms.fold.labels import Map
from agileact.transforms.fold.locations import Target


def write(model: nn.Module, maps: Iterable[Map], gauges: Numbers, targets: Sequence[Target], like: Tensor) -> None:
    """Shift biases, then rescale weights and biases, in place; a new bias is trained if ``like``, a location, is."""
    for target in targets:
        if target.created:
            _create(model, target.name, like)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    new: dict[str, Tensor] = {}

    def current(name: str) -> Tensor:
        if name not in new:
            new[name] = parameters[name].detach().to("cpu", torch.float64, copy=True).contiguous()
        return new[name]

    for target in targets:
        current(target.name).add_(target.shift)
    created = {target.name for target in targets if target.created}
    for one in maps:
        before, behind = gauges[one.inputs], gauges[one.outputs]
        if np.all(before == 1) and np.all(behind == 1):
            continue
        _rescale(current(one.weight), one, before, behind)
        bias = one.bias
        beside = one.weight.removesuffix("weight") + "bias"
        if bias is None and beside in created:
            bias = beside
        if bias is not None:
            current(bias).div_(torch.from_numpy(behind).reshape(current(bias).shape))
    with torch.no_grad():
        for name, values in new.items():
            parameters[name].copy_(values)


def _rescale(weight: Tensor, one: Map, before: Numbers, behind: Numbers) -> None:
    """Multiply what belongs to each input, and divide what belongs to each output, in place."""
    columns, rows = torch.from_numpy(before), torch.from_numpy(behind)
    kernel = (1,) * (weight.ndim - 2)
    if one.layout in ("norm", "parameter"):
        weight.div_(rows.reshape(weight.shape))
    elif one.layout == "matmul":
        weight.mul_(columns[:, None]).div_(rows)
    elif one.layout == "conv_transpose":
        # Inputs of a group meet the outputs of that group alone.
        grouped = weight.view(one.groups, -1, *weight.shape[1:])
        grouped.mul_(columns.reshape(one.groups, -1, 1, *kernel)).div_(rows.reshape(one.groups, 1, -1, *kernel))
    else:
        grouped = weight.view(one.groups, -1, *weight.shape[1:])
        grouped.mul_(columns.reshape(one.groups, 1, -1, *kernel)).div_(rows.reshape(one.groups, -1, 1, *kernel))


def _create(model: nn.Module, name: str, like: Tensor) -> None:
    """Give a torch module a bias that it did not have."""
    owner, _, _ = name.rpartition(".")
    module = model.get_submodule(owner)
    weight = getattr(module, "weight", None)
    size = _channels(module)
    kind = weight if isinstance(weight, Tensor) else like
    made = torch.zeros(size, device=kind.device, dtype=kind.dtype)
    module.register_parameter("bias", nn.Parameter(made, requires_grad=like.requires_grad))


def _channels(module: nn.Module) -> int | tuple[int, ...]:
    for attribute in ("out_features", "out_channels", "num_features", "num_channels", "normalized_shape"):
        size: int | tuple[int, ...] | None = getattr(module, attribute, None)
        if size is not None:
            return size
    raise AssertionError(f"{type(module).__name__} has no channels")
