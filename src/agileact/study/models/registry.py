"""The registry of networks, and what their builders share: weights from the seed alone, activations from the arm."""

import contextlib
import hashlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from agileact._common.errors import ArgumentError
from agileact._common.names import unknown
from agileact.study.models.fingerprint import arm_fingerprint
from agileact.study.spec.activation_names import activation
from agileact.study.spec.trial import ArmSpec, ModelSpec
from agileact.study.spec.user_targets import seeded

Builder = Callable[..., nn.Module]
"""Called as ``builder(arm, input_shape, classes, seed, **options)``."""

_BUILDERS: dict[str, Builder] = {}
_GIVEN = ("arm", "input_shape", "classes", "seed")
_NORMS: dict[str, tuple[type[nn.Module], ...]] = {
    "none": (nn.Module,),
    "batch": (nn.BatchNorm1d, nn.BatchNorm2d),
    "layer": (nn.LayerNorm, nn.GroupNorm),
}


def names() -> tuple[str, ...]:
    """Return the names of all registered models, sorted."""
    return tuple(sorted(_BUILDERS))


def options(name: str) -> dict[str, Any]:
    """Return a model's options with their defaults."""
    if name not in _BUILDERS:
        raise ArgumentError(unknown("model", name, _BUILDERS))
    parameters = inspect.signature(_BUILDERS[name]).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}


def register_model(name: str, builder: Builder) -> None:
    """Make ``builder`` available to specs under ``name``.

    Args:
        name: Name that a :class:`~agileact.study.spec.trial.ModelSpec` refers to.
        builder: Called as ``builder(arm, input_shape, classes, seed, **options)``; it must draw its
            initial weights from ``seed`` alone, whatever the arm, so that arms can be compared in pairs.

    Raises:
        ArgumentError: If the name is taken.

    Example:
        >>> register_model("cnn", lambda arm, input_shape, classes, seed: nn.Identity())
        Traceback (most recent call last):
        ...
        agileact.ArgumentError: a model named 'cnn' is registered already
    """
    if name in _BUILDERS:
        raise ArgumentError(f"a model named {name!r} is registered already")
    _BUILDERS[name] = builder


def build(spec: ModelSpec, arm: ArmSpec, *, input_shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """Build the model of ``spec`` with the activations of ``arm``."""
    try:
        builder = _BUILDERS[spec.name]
    except KeyError:
        raise ArgumentError(unknown("model", spec.name, _BUILDERS)) from None
    try:
        inspect.signature(builder).bind(arm, input_shape, classes, seed, **dict(spec.options))
    except TypeError:
        known = [name for name in inspect.signature(builder).parameters if name not in _GIVEN]
        wrong = [name for name, _ in spec.options if name not in known]
        raise ArgumentError(unknown(f"option of the model {spec.name!r}:", ", ".join(wrong), known)) from None
    own = arm_fingerprint(arm.activations)
    if arm.code and own != arm.code:
        raise ArgumentError(
            "an activation of yours is not the one that this study was planned with: its code was changed, or it "
            "starts differently each time"
        )
    # Activations of the user's may draw what they begin with; weights have streams of their own.
    with seeded(subseed(seed, "activations")) if own else contextlib.nullcontext():
        model = builder(arm, input_shape, classes, seed, **dict(spec.options))
    if not any(isinstance(module, _NORMS[arm.normalisation]) for module in model.modules()):
        raise ArgumentError(f"the model {spec.name!r} has no form with {arm.normalisation} normalisation")
    return model


def subseed(seed: int, purpose: str) -> int:
    """Return a seed for one purpose: independent streams that do not shift when another one changes."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def initialise(layer: nn.Module, seed: int, name: str) -> nn.Module:
    """Draw torch's default initial weights (uniform in +-1/sqrt(fan-in)) from the layer's own stream; return it."""
    generator = torch.Generator().manual_seed(subseed(seed, f"weights/{name}"))
    weight = layer.get_parameter("weight")
    bound = 1 / math.sqrt(weight[0].numel())
    with torch.no_grad():
        weight.uniform_(-bound, bound, generator=generator)
        if getattr(layer, "bias", None) is not None:
            layer.get_parameter("bias").uniform_(-bound, bound, generator=generator)
    return layer


def positive(name: str, values: Any) -> tuple[int, ...]:
    """Return the values of an option if they are positive whole numbers; raise otherwise."""
    if not isinstance(values, tuple) or not all(isinstance(v, int) and v > 0 for v in values):
        raise ArgumentError(f"{name} must be positive whole numbers, not {values!r}")
    return values


def role_activation(arm: ArmSpec, role: str, name: str, channels: int, dim: int = 1) -> nn.Module:
    """Build the activation module called ``name``, which has this role, as the arm says.

    Args:
        arm: Says which activation each role has.
        role: Such as "conv" or "fc".
        name: The module's name in the model, which the arm's patterns are matched against.
        channels: How many channels reach it.
        dim: The channel axis.

    Raises:
        ArgumentError: If the arm gives the role none.

    Example:
        >>> role_activation(ArmSpec((("fc", "agile-sigmoid"),)), "fc", "fc1_activation", 30)
        Agile('sigmoid', 30)
    """
    text = arm.activation(role, name)
    if text is None:
        given = ", ".join(key for key, _ in arm.activations) or "none"
        raise ArgumentError(f"the model needs an activation for the role {role!r}; the arm gives: {given}")
    return activation(text, channels, dim)


def initialise_all(model: nn.Module, seed: int) -> None:
    """Draw the weights of all linear, convolutional and embedding layers, each from the stream of its own name."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            initialise(module, seed, name)
        elif isinstance(module, nn.Embedding):
            generator = torch.Generator().manual_seed(subseed(seed, f"weights/{name}"))
            with torch.no_grad():
                module.weight.normal_(0.0, 0.02, generator=generator)
