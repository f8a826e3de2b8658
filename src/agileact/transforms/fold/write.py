"""Write what was found into the weights of a model, in float64 and rounded once."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from agileact.transforms.fold.gauge import Numbers
from agileact.transforms.fold.labels import Map
from agileact.transforms.fold.locations import Target


def write(model: nn.Module, maps: Iterable[Map], gauges: Numbers, targets: Sequence[Target], like: Tensor) -> None:
    """Shift biases, then rescale weights and biases, in place; a new bias is trained if ``like``, a location, is."""
    created = {target.name for target in targets if target.created}
    for name in created:
        _create(model, name, like)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    new: dict[str, Tensor] = {}

    def current(name: str) -> Tensor:
        if name not in new:
            new[name] = parameters[name].detach().to("cpu", torch.float64, copy=True).contiguous()
        return new[name]

    for target in targets:
        current(target.name).add_(target.shift)
    factors = torch.from_numpy(gauges)
    for one in maps:
        before, behind = factors[one.inputs], factors[one.outputs]
        if (one.open and one.parameter not in created) or (bool((before == 1).all()) and bool((behind == 1).all())):
            continue
        values = current(one.parameter)
        if one.places is None:
            values.mul_(before).div_(behind)
        else:
            flat = values.view(-1)
            flat[one.places] = flat[one.places] * before / behind
    with torch.no_grad():
        for name, values in new.items():
            parameters[name].copy_(values)


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
