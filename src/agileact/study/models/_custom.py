"""A network of the user's: built by a function of theirs, with its activation modules exchanged for the arm's."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from agileact._errors import ArgumentError
from agileact.study._targets import find
from agileact.study.activations import parse_activation
from agileact.study.models._registry import register_model, subseed
from agileact.study.spec import ArmSpec

ACTIVATIONS = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)
"""The modules that are exchanged."""

_SECOND_AXIS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm)
_LAST_AXIS = (nn.Linear, nn.LayerNorm, nn.RMSNorm)


def custom(
    arm: ArmSpec, input_shape: tuple[int, ...], classes: int, seed: int, *, target: str = "", fingerprint: str = ""
) -> nn.Module:
    """Build the user's network, with each of its activation modules exchanged for what the arm gives it.

    The function takes no arguments and returns a module with ordinary activations, each a module of its own
    (``nn.ReLU()``, not ``torch.relu``). Its weights are drawn from torch's generator, which is seeded by the
    trial. An activation that the arm does not name stays as it is.

    The channel axis is that of the layer in front: the last one behind a linear layer or layer normalisation, the
    second one behind a convolution or batch normalisation.

    Args:
        arm: Activations by module name; "*" for all.
        input_shape: Shape of one sample.
        classes: Number of outputs.
        seed: Source of the initial weights.
        target: The function, as ``package.module:function``.
        fingerprint: Hash of what the function built when the study was planned; "" for any.

    Raises:
        ArgumentError: If the function cannot be had, builds no such network, or builds another one than planned.
    """
    model, found = _built(target, subseed(seed, "weights"))
    if fingerprint and fingerprint != model_fingerprint(target):
        raise ArgumentError(f"the model {target!r} is another one than when this study was planned")
    chosen = {name: arm.activation(name) for name in found}
    wanted = {name: text for name, text in chosen.items() if text is not None}
    places = _places(model, list(wanted), input_shape, classes) if wanted else {}
    for name, text in wanted.items():
        activation = parse_activation(text)
        channels, dim = 1, 1
        if activation.trainable:
            channels, dim = _one_place(name, places[name])
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, activation.build(channels, dim))
    return model


def model_fingerprint(target: str) -> str:
    """Return 16 hex digits that tell one network of the user's from another: its modules and initial weights."""
    model, _ = _built(target, 0)
    digest = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _built(target: str, seed: int) -> tuple[nn.Module, list[str]]:
    """Build the network, and list its activations; the global random stream is left alone."""
    function = find(target, "model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = function()
        except TypeError as error:
            raise ArgumentError(f"the model {target!r} must be built without arguments: {error}") from None
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"the model {target!r} returned a {type(model).__name__}, not a torch.nn.Module")
    found = [name for name, module in model.named_modules() if isinstance(module, ACTIVATIONS)]
    if not found or "" in found:
        raise ArgumentError(
            f"the model {target!r} has no activation modules to exchange: write nn.ReLU() modules in place of "
            "functions such as torch.relu"
        )
    return model, found


def _places(
    model: nn.Module, names: list[str], input_shape: tuple[int, ...], classes: int
) -> dict[str, list[tuple[int | None, int]]]:
    """Run an example, and return for each activation and call its channels and channel axis; None if not known."""
    axes: dict[int, int] = {}
    kept: list[Tensor] = []
    calls: dict[str, list[tuple[int | None, int]]] = {name: [] for name in names}
    handles = []

    def layer(axis: int) -> Any:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                axes[id(output)] = axis
                kept.append(output)  # so that no later tensor has its id

        return note

    def use(name: str) -> Any:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            axis = axes.get(id(inputs[0]))
            calls[name].append((None, 1) if axis is None else (inputs[0].shape[axis], axis))

        return note

    for module in model.modules():
        if isinstance(module, (*_SECOND_AXIS, *_LAST_AXIS)):
            handles.append(module.register_forward_hook(layer(-1 if isinstance(module, _LAST_AXIS) else 1)))
    for name in names:
        module = model.get_submodule(name)
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
        handles.append(module.register_forward_hook(use(name)))
    training = model.training
    try:
        model.eval()
        with torch.no_grad():
            _run(model, input_shape, classes)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return calls


def _run(model: nn.Module, input_shape: tuple[int, ...], classes: int) -> None:
    try:
        output = model(torch.zeros(2, *input_shape))
    except Exception as first:
        try:
            output = model(torch.zeros(2, *input_shape, dtype=torch.int64))
        except Exception:
            raise ArgumentError(f"the model does not take samples of shape {input_shape}: {first}") from None
    if not isinstance(output, Tensor) or output.shape[-1] != classes:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ArgumentError(f"the model must return {classes} outputs for a sample, but two samples gave {shape}")


def _one_place(name: str, calls: list[tuple[int | None, int]]) -> tuple[int, int]:
    if len(calls) != 1:
        raise ArgumentError(
            f"the activation {name!r} is used {len(calls)} times in a forward pass; what is learned needs a module of "
            "its own at each place"
        )
    channels, dim = calls[0]
    if channels is None:
        raise ArgumentError(
            f"the activation {name!r} follows no layer or normalisation, so its channel axis is not known; put it "
            "right behind one, or leave it out by naming the others"
        )
    return channels, dim


register_model("custom", custom)
