"""Networks to time, each with the activations that are compared."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from agileact.bench.peers import PLAIN, Eager, LastAxisPReLU
from agileact.bench.rows import off_start
from agileact.nn import Agile, AgileGELU, AgileMaxPool2d, AgileSiLU
from agileact.study import models
from agileact.study.spec.trial import ArmSpec

Kind = Literal["plain", "fused", "eager", "prelu"]
"""The plain activation; the agile one (where max pooling follows, both in one module); the formula in three
plain lines; nn.PReLU."""


_RELU, _GELU = (ArmSpec(activations=(("*", f"agile-{base}"),)) for base in ("relu", "gelu"))


class Network(NamedTuple):
    """How to make an agile network, and the batch that it is timed on."""

    make: Callable[[], nn.Module]
    batch: Callable[[], Tensor]


def _conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), AgileSiLU(64))


def _mlp() -> nn.Module:
    layers = [nn.Linear(784, 1024), AgileGELU(1024), nn.Linear(1024, 1024), AgileGELU(1024), nn.Linear(1024, 10)]
    return nn.Sequential(*layers)


def _transformer() -> nn.Module:
    model = models.char_transformer(_GELU, (128,), 96, 0, width=256, depth=1, heads=4)
    return nn.Sequential(model, nn.Flatten(0, 1))


def _resnet18() -> nn.Module:
    model = models.resnet(_RELU, (3, 32, 32), 10, 0, widths=(64, 128, 256, 512), blocks=2)
    return model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return]


NETWORKS = {
    "paper": Network(lambda: models.paper_cnn(_RELU, (1, 28, 28), 10, 0), lambda: torch.randn(100, 1, 28, 28)),
    "resnet18": Network(_resnet18, lambda: torch.randn(16, 3, 32, 32)),
    "conv-bn-silu": Network(_conv, lambda: torch.randn(32, 64, 28, 28)),
    "mlp-gelu": Network(_mlp, lambda: torch.randn(256, 784)),
    "transformer-gelu": Network(_transformer, lambda: torch.randint(96, (16, 128))),
}


def build(name: str, kind: Kind) -> nn.Module:
    """Return a network with the same weights whatever its activations are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = NETWORKS[name].make()
        ndim: dict[nn.Module, int] = {}
        hooks = [
            module.register_forward_pre_hook(lambda module, inputs: ndim.update({module: inputs[0].ndim}))
            for module in model.modules()
            if isinstance(module, Agile)
        ]
        with torch.no_grad():
            model.eval()(NETWORKS[name].batch())
        for hook in hooks:
            hook.remove()
        for parent in list(model.modules()):
            children = list(parent.named_children())
            for (key, child), (behind, pool) in zip(children, [*children[1:], ("", None)], strict=False):
                if not isinstance(child, Agile):
                    continue
                if kind == "fused" and isinstance(pool, nn.MaxPool2d):
                    pooled = AgileMaxPool2d(child.num_parameters, pool.kernel_size, pool.stride, base=child.base)
                    setattr(parent, key, off_start(pooled))
                    setattr(parent, behind, nn.Identity())
                else:
                    setattr(parent, key, off_start(child) if kind == "fused" else _peer(child, kind, ndim[child]))
        model.train()
        return model


def _peer(module: Agile, kind: Kind, ndim: int) -> nn.Module:
    plain = PLAIN[module.base]()
    channels = module.scale.numel()
    if kind == "plain":
        return plain
    if kind == "prelu":
        return nn.PReLU(channels) if module.dim == 1 else LastAxisPReLU(channels)
    return Eager(plain, channels, module.dim, ndim)


def training_batch(name: str) -> tuple[Tensor, Tensor]:
    """Return a batch and targets of its classes."""
    x = NETWORKS[name].batch()
    with torch.no_grad():
        shape = build(name, "plain")(x).shape
    return x, torch.randint(shape[1], (shape[0], *shape[2:]))
