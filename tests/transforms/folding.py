"""What the tests of folding share: agile models off their start, and the comparison with the plain model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import agileact as ag
from agileact.transforms import FoldReport

DOUBLE = torch.float64
IMAGE = torch.randn(3, 4, 8, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))

BARS = {torch.float64: 1e-12, torch.float32: 1e-5}
"""The largest difference relative to the output, by dtype."""


def drawn(model: nn.Module, seed: int = 0, *, negative: bool = False) -> Any:
    """Draw every scale and location, and the statistics and affine weights of normalisations, at random."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * (high - low) + low)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ag.AgileModule):
                uniform(module.scale, 0.5, 1.5)
                if negative:
                    module.scale[::2] *= -1
                module.location.copy_(0.3 * torch.randn(module.location.shape, generator=generator))
            elif isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)):
                for tensor in (module.weight, getattr(module, "running_var", None)):
                    if isinstance(tensor, Tensor):
                        uniform(tensor, 0.5, 2.0)
                for tensor in (module.bias, getattr(module, "running_mean", None)):
                    if isinstance(tensor, Tensor):
                        uniform(tensor, -1.0, 1.0)
    return model


def outputs(value: Any) -> list[Tensor]:
    """Return all tensors of an output."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in outputs(item)]
    return []


def run(model: nn.Module, x: Any, *, training: bool = False) -> list[Tensor]:
    """Run a copy of a model with fixed random numbers."""
    model = copy.deepcopy(model).train(training)
    torch.manual_seed(7)
    with torch.no_grad():
        made = model(**x) if isinstance(x, dict) else model(*x) if isinstance(x, tuple) else model(x)
    return outputs(made) + [buffer.clone() for buffer in model.buffers() if training]


def assert_close(actual: list[Tensor], expected: list[Tensor], bar: float) -> None:
    assert len(actual) == len(expected) > 0
    for one, other in zip(actual, expected, strict=True):
        size = float(other.abs().max()) if other.numel() else 0.0
        assert float((one.double() - other.double()).abs().max()) <= bar * max(size, 1e-30), (one, other)


def checked(model: nn.Module, x: Any, *, training: bool = True) -> tuple[Any, FoldReport]:
    """Fold, and check what holds for every fold: the same outputs, nothing of ours left, the original as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    plain, report = ag.fold(model, x)
    assert torch.equal(state, torch.random.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(type(module).__module__.startswith("agileact") for module in plain.modules())
    dtype = next((p.dtype for p in model.parameters()), torch.float64)
    assert_close(run(plain, x), run(model, x), BARS[dtype])
    if training:
        assert_close(run(plain, x, training=True), run(model, x, training=True), 100 * BARS[dtype])
    _named_rightly(model, plain, report)
    return plain, report


def _named_rightly(model: nn.Module, plain: nn.Module, report: FoldReport) -> None:
    """Check that the report names what holds a weight if and only if the weight is another one now."""
    before, now = dict(model.named_parameters()), dict(plain.named_parameters())
    kept = [key for key in now if key in before and not key.endswith(("bias", "scale", "location"))]
    changed = {key for key in kept if not torch.allclose(now[key], before[key])}
    named = {name for site in report.sites for name in (*site.scale_into, *site.gain_into)}
    located = {name for site in report.sites for name in site.location_into}
    unnamed = {key for key in changed if not any(f"{key}.".startswith(f"{name}.") for name in named | located)}
    unchanged = {name for name in named - before.keys() if not any(f"{key}.".startswith(f"{name}.") for key in changed)}
    assert (unnamed, unchanged) == (set(), set()), report


def statuses(report: FoldReport) -> list[str]:
    return [site.status for site in report.sites]


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def sequence(*modules: nn.Module, negative: bool = False) -> Any:
    return drawn(nn.Sequential(*modules).double(), negative=negative)


def image_model(between: nn.Module, activation: nn.Module | None = None, negative: bool = False) -> Any:
    """A convolution, an activation, what is tested, and a convolution."""
    return sequence(nn.Conv2d(4, 8, 3), activation or ag.AgileGELU(8), between, nn.Conv2d(8, 4, 1), negative=negative)
