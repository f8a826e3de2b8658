"""What an arm does to the rows of weights: kept at mean 0 and length 1, or made so in the forward pass."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization

from agileact._common.errors import ArgumentError
from agileact.nn import AgileModule
from agileact.nn.rows import directions, release
from agileact.study.spec.trial import ArmSpec
from agileact.transforms.convert.standardize import Centre, standardize

_CENTRE: dict[str, Centre] = {
    "standardized": "all",
    "hidden-standardized": "hidden",
    "centred-start": "start",
    "length-one": "none",
    "weight-standardized": "all",
}
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def constrain_weights(model: nn.Module, arm: ArmSpec, sample: Callable[[], Tensor]) -> None:
    """Give the rows of weights of a network the form, and its activations the start, that ``arm`` asks for."""
    if arm.weights == "weight-norm":
        layers = [module for module in model.modules() if isinstance(module, _LAYERS)]
        if len(layers) < 2:
            raise ArgumentError("weight normalisation is for every layer but the last, and there is no other")
        for layer in layers[:-1]:
            weight_norm(layer)
    elif arm.weights != "free":
        _standardize(model, arm.weights, sample(), skip_init=arm.start == "skip-init")
    if arm.start in ("one", "skip-init") and arm.weights in ("free", "weight-norm"):
        raise ArgumentError(f"the start {arm.start!r} is for standardised weights, not for {arm.weights!r} ones")
    if arm.start == "one":
        for module in model.modules():
            if isinstance(module, AgileModule):
                module.start_scale = 1.0
                module.reset_parameters()


def _standardize(model: nn.Module, how: str, inputs: Tensor, *, skip_init: bool) -> None:
    if not any(isinstance(module, AgileModule) for module in model.modules()):
        raise ArgumentError(f"weights {how!r} are for agile activations, and the arm has none")
    standardize(model, inputs[:2], centre=_CENTRE[how], inplace=True, skip_init=skip_init)
    if how == "weight-standardized":
        for layer in directions(model).values():
            release(layer)  # its weights are free again,
            layer.register_parameter("bias", None)  # and its location stays what the bias was
            register_parametrization(layer, "weight", _Standardized())


class _Standardized(nn.Module):
    """w - mean(w), divided by its length, for each row."""

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight.flatten(1)
        rows = rows - rows.mean(1, keepdim=True)
        unit: Tensor = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return unit.view_as(weight)
