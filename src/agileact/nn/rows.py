"""Rows of weights that are directions: of length 1, and of mean 0 in layers that say so.

A row is all that one unit (a node, a filter) weighs its input by: of a linear or convolutional layer ``weight[i]``, of
a grouped or depthwise one too; of a transposed convolution all numbers with which an output channel is made.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import Parameter, is_lazy

_HELD, _HAD_BIAS, _HOOKS = "_agileact_rows", "_agileact_had_bias", "_agileact_row_hooks"
_AXES = "_agileact_row_axes"
CENTRED, LENGTH = "centred", "length"
"""What is done to the rows of a layer: to mean 0 and length 1, or to length 1 alone."""


def hold(layer: Any, kind: str) -> None:
    """Note on a layer that its rows are directions, and of which kind; its bias goes, which the location replaces.

    The kind goes into the metadata of the layer's state, and comes back from there.
    """
    if not held(layer):
        layer.__dict__[_HOOKS] = (
            layer.register_state_dict_post_hook(_save_kind),
            layer.register_load_state_dict_pre_hook(_load_kind),
        )
    layer.__dict__[_HELD] = kind
    layer.__dict__[_HAD_BIAS] = layer.bias is not None or layer.__dict__.get(_HAD_BIAS, False)
    layer.bias = None


def _save_kind(layer: Any, state: Any, prefix: str, metadata: dict[str, Any]) -> None:
    metadata[_HELD] = held(layer)


def _load_kind(layer: Any, state: Any, prefix: str, metadata: dict[str, Any], *_: Any) -> None:
    """Take the kind from a state that names it; a state of another kind of file, such as safetensors, does not."""
    layer.__dict__[_HELD] = metadata.get(_HELD) or held(layer)


def release(layer: Any) -> None:
    """Free the rows of a layer, and give it a bias of zeros if it had one."""
    layer.__dict__.pop(_HELD, None)
    for hook in layer.__dict__.pop(_HOOKS, ()):
        hook.remove()
    if layer.__dict__.pop(_HAD_BIAS, False) and layer.bias is None:
        layer.bias = Parameter(
            layer.weight.detach().new_zeros(row_count(layer)), requires_grad=layer.weight.requires_grad
        )


def held(layer: nn.Module) -> str | None:
    """Return of which kind the rows of a layer are; None if they are free."""
    kind: str | None = layer.__dict__.get(_HELD)
    return kind


def held_at(layer: nn.Module) -> str:
    """Return in words what the rows of a held layer are put back to."""
    return "mean 0 and length 1" if held(layer) == CENTRED else "length 1"


def directions(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a model whose rows are directions, each once, by name."""
    return {name: layer for name, layer in model.named_modules() if held(layer)}


def has_rows(layer: nn.Module) -> bool:
    """Return whether a layer is one of those whose rows are known."""
    return isinstance(layer, (nn.Linear, _ConvNd))


def lay_out(layer: nn.Module, axes: tuple[int, ...]) -> None:
    """Note along which axes of its weight a row of a layer lies, where it holds the weights of several networks."""
    layer.__dict__[_AXES] = axes


def laid_out(layer: nn.Module, weight: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Return a view of a layer's weight, and the axes of the view along which a row lies."""
    if axes := layer.__dict__.get(_AXES):
        return weight, axes
    if isinstance(layer, _ConvTransposeNd):  # (in, out / groups, ...), the inputs of one group after another
        groups = layer.groups
        view = weight.view(groups, weight.shape[0] // groups, *weight.shape[1:])
        return view, (1, *range(3, view.ndim))
    return weight, tuple(range(1, weight.ndim))


def row_count(layer: Any) -> int:
    """Return how many rows a layer has."""
    return int(getattr(layer, "out_features", None) or layer.out_channels)


def row_length(layer: Any) -> int:
    """Return how many numbers a row of a layer has."""
    return int(layer.weight.numel() // max(1, row_count(layer)))


class Projection:
    """Puts the rows of some layers back on the sphere; what it needs in between it makes once."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self.layers = list(layers.values())
        self._room: dict[nn.Module, Tensor] = {}

    def project(self) -> None:
        """Project all rows, in place."""
        with torch.no_grad():
            for layer in self.layers:
                self._one(layer, held(layer) == CENTRED)

    def project_strays(self) -> None:
        """Project the layers with a row that is off by more than rounding, so that a reloaded state keeps every bit."""
        with torch.no_grad():
            for layer in self.layers:
                centred = held(layer) == CENTRED
                weight = local(layer.weight)
                view, axes = laid_out(layer, weight.double())
                mean = view.mean(axes).abs().max() if centred and view.numel() else torch.zeros(())
                off = torch.linalg.vector_norm(view, dim=axes).sub(1).abs()
                if off.numel() and float(torch.maximum(off.max(), mean)) > 64 * torch.finfo(weight.dtype).eps:
                    self._one(layer, centred)

    def _one(self, layer: nn.Module, centred: bool) -> None:
        weight, axes = laid_out(layer, local(layer.weight))
        wide = torch.promote_types(weight.dtype, torch.float32)
        room = self._room.get(layer)
        if room is None or room.device != weight.device or room.dtype != wide:
            shape = [1 if axis in axes else size for axis, size in enumerate(weight.shape)]
            self._room[layer] = room = torch.empty(shape, device=weight.device, dtype=wide)
        if centred:
            torch.sum(weight, axes, keepdim=True, dtype=wide, out=room)
            weight.sub_(room, alpha=room.numel() / max(weight.numel(), 1))
        torch.linalg.vector_norm(weight, dim=axes, keepdim=True, dtype=wide, out=room)
        # A row of zeros has no direction; it stays, rather than to become NaN.
        weight.div_(room.clamp_(min=torch.finfo(wide).tiny))


def local(parameter: Any) -> Tensor:
    """Return a parameter as a plain tensor: of one that FSDP has sharded, by rows, the part that this process has."""
    part: Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return part.detach()


def lengths(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return the lengths of a layer's rows in float64, as a vector; ``weight`` is what is seen of the layer's own."""
    view, axes = laid_out(layer, weight.double())
    length: Tensor = torch.linalg.vector_norm(view, dim=axes).flatten()
    return length


def refusal(layer: nn.Module) -> str:
    """Return why the rows of a layer cannot be held where they are; empty if they can."""
    weight: Any = layer._parameters.get("weight")
    if weight is None:
        return "its weight is parametrised, pruned or computed"
    if is_lazy(weight):
        return "it has no weight yet; run one batch through the model first"
    if not weight.dtype.is_floating_point:
        return "its weight is not of floating-point numbers"
    if hasattr(weight, "placements") and isinstance(layer, _ConvTransposeNd):
        return "its rows are shared out over processes (a transposed convolution under FSDP)"
    return ""
