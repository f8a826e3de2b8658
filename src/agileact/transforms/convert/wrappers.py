"""Wrappers around models that know the parameters which the model had when it was wrapped."""

import gc
import sys
from typing import Any

from torch import nn

from agileact._common.errors import ArgumentError

_SYNCHRONISED = "the processes would not exchange the gradients of parameters that come after it"
# For classes by name, so that nothing has to be imported: why not, and the right order.
_REFUSED = {
    "DistributedDataParallel": (
        _SYNCHRONISED,
        "DistributedDataParallel(agileact.convert(model.module, example_inputs=x)[0])",
    ),
    "FullyShardedDataParallel": (
        _SYNCHRONISED,
        "FullyShardedDataParallel(agileact.convert(plain, example_inputs=x)[0])",
    ),
    "FSDPModule": (_SYNCHRONISED, "fully_shard(agileact.convert(plain, example_inputs=x)[0])"),
    "DeepSpeedEngine": (_SYNCHRONISED, "deepspeed.initialize(model=agileact.convert(plain, example_inputs=x)[0])"),
    "AveragedModel": (
        "an average takes parameters pair by pair, and the model that it averages has other ones",
        "model, report = agileact.convert(model, example_inputs=x), then AveragedModel(model)",
    ),
}

_HOLDING = ("DistributedDataParallel", "FullyShardedDataParallel", "DeepSpeedEngine")


def check_wrappers(model: nn.Module, inplace: bool) -> None:
    """Raise if a model is or has a wrapper that would not know of new parameters, or is inside one and changes."""
    for name, module in model.named_modules():
        kind = next((kind.__name__ for kind in type(module).__mro__ if _of_a_library(kind)), "")
        if kind:
            why, order = _REFUSED[kind]
            what = f"{name} in the model" if name else "the model"
            raise ArgumentError(f"{what} is wrapped by {kind}, and {why}; convert first: {order}")
    if inplace and _distributed():
        for wrapper in [one for one in gc.get_objects() if type(one).__name__ in _HOLDING]:
            if isinstance(wrapper, nn.Module) and any(module is model for module in wrapper.modules()):
                kind = type(wrapper).__name__
                why, order = _REFUSED[kind]
                raise ArgumentError(f"the model is inside a {kind}, and {why}; convert first: {order}")


def _of_a_library(kind: type) -> bool:
    return kind.__name__ in _REFUSED and kind.__module__.partition(".")[0] in ("torch", "deepspeed")


def _distributed() -> bool:
    distributed: Any = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()
