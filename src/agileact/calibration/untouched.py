"""Run a model on data, and leave it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run a model as training would, but without what draws random numbers, and put back what a run changes.

    Within, no gradients are recorded; everything is in evaluation mode, but for batch and instance normalisation, which
    normalise as they would: with the statistics of the batch if they are training. At the end the training flags,
    the buffers (in place) and the states of the random number generators are what they were.

    Args:
        model: The model, all of it initialised.
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers: list[tuple[nn.Module, str, Tensor, Tensor]] = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(device.index for device in devices)), torch.no_grad():
        try:
            for module, _ in flags:
                if not isinstance(module, _NormBase):
                    # Not by eval(), which a module may have changed to do more.
                    module.training = False
            yield
        finally:
            for module, training in flags:
                module.training = training
            for module, name, buffer, value in buffers:
                buffer.copy_(value)
                module._buffers[name] = buffer


def is_open(model: nn.Module) -> bool:
    """Return whether a model has parameters or buffers that its first forward pass will make."""
    tensors = (
        tensor for module in model.modules() for tensor in (*module._parameters.values(), *module._buffers.values())
    )
    return any(tensor is not None and is_lazy(tensor) for tensor in tensors)


def initialise(model: nn.Module, run: Callable[[], None]) -> None:
    """Make what is open by a forward pass in evaluation mode, which changes nothing else."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        with torch.no_grad():
            run()
    finally:
        for module, training in flags:
            module.training = training
