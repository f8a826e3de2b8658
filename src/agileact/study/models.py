"""Networks by name, built so that the same seed gives the same initial weights for every activation."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from agileact import bases
from agileact._errors import ArgumentError
from agileact.nn import Agile
from agileact.study.spec import ArmSpec, ModelSpec

Builder = Callable[..., nn.Module]
"""Called as ``builder(arm, input_shape, classes, seed, **options)``."""

_BUILDERS: dict[str, Builder] = {}


def register_model(name: str, builder: Builder) -> None:
    """Make ``builder`` available to specs under ``name``.

    Args:
        name: Name that a :class:`~agileact.study.spec.ModelSpec` refers to.
        builder: Called as ``builder(arm, input_shape, classes, seed, **options)``; it must draw its
            initial weights from ``seed`` alone, whatever the arm, so that arms can be compared in pairs.

    Raises:
        ArgumentError: If the name is taken.
    """
    if name in _BUILDERS:
        raise ArgumentError(f"a model named {name!r} is registered already")
    _BUILDERS[name] = builder


def build(spec: ModelSpec, arm: ArmSpec, *, input_shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """Build the model of ``spec`` with the activations of ``arm``.

    Raises:
        ArgumentError: If the model, one of its options or an activation is unknown.

    Example:
        >>> arm = ArmSpec((("conv", "relu"), ("fc", "agile-sigmoid")))
        >>> model = build(ModelSpec("cnn"), arm, input_shape=(1, 28, 28), classes=10, seed=0)
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """
    try:
        builder = _BUILDERS[spec.name]
    except KeyError:
        raise ArgumentError(unknown("model", spec.name, _BUILDERS)) from None
    return builder(arm, input_shape, classes, seed, **dict(spec.options))


def unknown(kind: str, name: str, known: Any) -> str:
    """Say that ``name`` is not one of ``known``, with the nearest name first."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {kind} {name!r}; {hint}known: {', '.join(sorted(known))}"


class PlainActivation(nn.Module):
    """The base function f itself, for any registered base."""

    def __init__(self, base: str, **options: Any) -> None:
        super().__init__()
        self.base = base
        self.options = bases.get(base).resolve(options)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x)."""
        result: Tensor = bases.get(self.base).function(x, **self.options)
        return result

    def extra_repr(self) -> str:
        """Show the base and its options."""
        return ", ".join([self.base, *(f"{name}={value}" for name, value in self.options.items())])


def parse_activation(text: str) -> tuple[bool, str, dict[str, Any]]:
    """Split an activation's name into (agile, base, options).

    A name is a base (``relu``), or ``agile-`` and a base, with options behind colons:
    ``agile-softplus:beta=2:threshold=10``.

    Raises:
        ArgumentError: If the base, an option or a value is not known.

    Example:
        >>> parse_activation("agile-elu:alpha=0.5")
        (True, 'elu', {'alpha': 0.5})
    """
    name, *parts = text.split(":")
    agile = name.startswith("agile-")
    base = name.removeprefix("agile-")
    options: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise ArgumentError(f"activation {text!r}: {part!r} is not of the form option=value")
        try:
            options[key.strip()] = float(value)
        except ValueError:
            options[key.strip()] = value.strip()
    if base not in bases.names():
        known = [*bases.names(), *(f"agile-{known}" for known in bases.names())]
        raise ArgumentError(unknown("activation", name, known))
    bases.get(base).resolve(options)
    return agile, base, options


def activation(text: str, num_parameters: int) -> nn.Module:
    """Build the activation named ``text`` for ``num_parameters`` filters or nodes."""
    agile, base, options = parse_activation(text)
    return Agile(base, num_parameters, **options) if agile else PlainActivation(base, **options)


def subseed(seed: int, purpose: str) -> int:
    """Return a seed for one purpose: independent streams that do not shift when another one changes.

    Example:
        >>> subseed(0, "weights/conv1") == subseed(0, "weights/conv1")
        True
        >>> subseed(0, "weights/conv1") == subseed(0, "weights/conv2")
        False
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _initialise(layer: nn.Module, seed: int, name: str) -> None:
    """Draw torch's default initial weights (uniform in +-1/sqrt(fan-in)) from the layer's own stream."""
    generator = torch.Generator().manual_seed(subseed(seed, f"weights/{name}"))
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    bound = 1 / math.sqrt(weight[0].numel())
    with torch.no_grad():
        weight.uniform_(-bound, bound, generator=generator)
        bias.uniform_(-bound, bound, generator=generator)


def _positive(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(isinstance(v, int) and v > 0 for v in values):
        raise ArgumentError(f"{name} must be positive whole numbers, not {values!r}")
    return values


def _role(arm: ArmSpec, role: str) -> str:
    name = arm.activation(role)
    if name is None:
        given = ", ".join(key for key, _ in arm.activations) or "none"
        raise ArgumentError(f"the model needs an activation for the role {role!r}; the arm gives: {given}")
    return name


def _dense_layers(
    arm: ArmSpec, inputs: int, nodes: tuple[int, ...], classes: int, seed: int
) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width in enumerate(nodes, start=1):
        layer = skip_init(nn.Linear, inputs, width)
        _initialise(layer, seed, f"fc{index}")
        layers[f"fc{index}"] = layer
        layers[f"fc{index}_activation"] = activation(_role(arm, "fc"), width)
        inputs = width
    output = skip_init(nn.Linear, inputs, classes)
    _initialise(output, seed, "output")
    layers["output"] = output
    return layers


def paper_cnn(
    arm: ArmSpec,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    *,
    filters: tuple[int, ...] = (16, 8, 4),
    nodes: tuple[int, ...] = (30,),
    kernel: int = 3,
    pooling: int = 2,
) -> nn.Module:
    """Build the paper's network: convolution, activation, pooling, K times; then M hidden layers.

    The paper (section 4) has filters 16-8-4 and one hidden layer of 30 nodes; kernel and pooling sizes are
    not given in it and are our choice. The output layer has no activation (cross-entropy on logits).

    Args:
        arm: Activations for the roles ``conv`` (needed if there are filters) and ``fc`` (if there are nodes).
        input_shape: (channels, height, width).
        classes: Number of outputs.
        seed: Source of the initial weights.
        filters: Filters of each convolutional layer.
        nodes: Nodes of each hidden layer.
        kernel: Kernel size; odd, so that padding keeps the size of the map.
        pooling: Size and stride of max pooling; 1 for none.

    Raises:
        ArgumentError: If an option does not fit, for instance if pooling leaves nothing of the image.
    """
    if len(input_shape) != 3:
        raise ArgumentError(f"the cnn needs images of shape (channels, height, width), not {input_shape}")
    _positive("filters", filters)
    _positive("nodes", nodes)
    if not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
        raise ArgumentError(f"kernel must be an odd positive whole number, not {kernel!r}")
    if not isinstance(pooling, int) or pooling < 1:
        raise ArgumentError(f"pooling must be a positive whole number, not {pooling!r}")
    channels, height, width = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, count in enumerate(filters, start=1):
        layer = skip_init(nn.Conv2d, channels, count, kernel, padding=kernel // 2)
        _initialise(layer, seed, f"conv{index}")
        layers[f"conv{index}"] = layer
        layers[f"conv{index}_activation"] = activation(_role(arm, "conv"), count)
        if pooling > 1:
            layers[f"conv{index}_pooling"] = nn.MaxPool2d(pooling)
        channels, height, width = count, height // pooling, width // pooling
        if height < 1 or width < 1:
            raise ArgumentError(
                f"pooling {pooling} leaves nothing of a {input_shape[1]}x{input_shape[2]} image after "
                f"{index} convolutional layers; use fewer filters or a smaller pooling"
            )
    layers["flatten"] = nn.Flatten()
    layers.update(_dense_layers(arm, channels * height * width, nodes, classes, seed))
    # On CPU, convolution and pooling of these small maps are about twice as fast with channels last.
    return nn.Sequential(layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def fully_connected(
    arm: ArmSpec, input_shape: tuple[int, ...], classes: int, seed: int, *, nodes: tuple[int, ...] = (30,)
) -> nn.Module:
    """Build the network of the paper's Fig. 11: hidden layers of ``nodes`` with the role ``fc``, no convolution."""
    _positive("nodes", nodes)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    layers.update(_dense_layers(arm, math.prod(input_shape), nodes, classes, seed))
    return nn.Sequential(layers)


register_model("cnn", paper_cnn)
register_model("mlp", fully_connected)
