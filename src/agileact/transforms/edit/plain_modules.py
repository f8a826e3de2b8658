"""The plain module of PyTorch that computes what an agile module computes at its start."""

from collections.abc import Callable
from typing import Any

import torch.fx
from torch import Tensor, nn

from agileact import bases
from agileact._common.errors import ConversionError
from agileact.nn import AgileMaxPool2d, AgileModule, AgileWrapped
from agileact.transforms.trace.activation_tables import MODULES

_CLASSES: dict[str, Callable[..., nn.Module]] = {name: kind for kind, name in MODULES.items()}
_CLASSES["identity"] = nn.Identity


def plain_module(module: AgileModule) -> nn.Module:
    """Return f, the base function of an agile module with its options, as a module that needs PyTorch alone.

    Scale and location play no part. Where ``torch.nn`` has no module for f it is a :class:`torch.fx.GraphModule`; for
    an :class:`~agileact.AgileWrapped` it is the wrapped module itself. A pooling follows.
    """
    if isinstance(module, AgileWrapped):
        function = module.function
        plain = function if isinstance(function, nn.Module) else _traced(function, module.base)
    elif module.base in _CLASSES:
        plain = _CLASSES[module.base](**module.options)
    else:
        base, options = bases.get(module.base), module.options
        plain = _traced(lambda x: base.function(x, **options), module.base)
    if isinstance(module, AgileMaxPool2d):
        taken = ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode")
        pooling = nn.MaxPool2d(*(getattr(module, name) for name in taken))
        plain = nn.Sequential(plain, pooling)
    return plain.train(module.training)


def _traced(function: Callable[..., Any], name: str) -> torch.fx.GraphModule:
    def forward(x: Tensor) -> Any:
        return function(x)

    # Types would go into the code of the graph, which needs none.
    forward.__annotations__.clear()
    try:
        return torch.fx.symbolic_trace(forward)
    except Exception as error:
        raise ConversionError(
            f"the base function {name!r} cannot be written as operations of PyTorch; tracing it failed: {error}"
        ) from error
