"""A network of the user's: built by a function of theirs, with its activations exchanged for the arm's."""

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from agileact import bases
from agileact._common.errors import AgileactError, ArgumentError
from agileact.nn import AgileModule
from agileact.study.data.several_inputs import Layout, Unpack
from agileact.study.models.fingerprint import network_fingerprint
from agileact.study.models.registry import register_model, subseed
from agileact.study.spec.activation_names import parse_activation
from agileact.study.spec.trial import ArmSpec
from agileact.study.spec.user_targets import call, find
from agileact.transforms import convert, restore_site
from agileact.transforms.report import ConversionReport, ConvertedSite

_LEFT = ("used as a gate", "the example does not reach it", "it was agile before")
"""Reasons of a conversion to leave a function alone that are none to complain: it is no activation here."""


def custom(
    arm: ArmSpec,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    *,
    target: str = "",
    fingerprint: str = "",
    inputs: Layout = (),
) -> nn.Module:
    """Build the user's network, with each of its activations exchanged for what the arm gives it, by name or "*".

    The function ``target`` takes no arguments and returns a module. Its weights are drawn from the global generators
    of torch, numpy and Python, which are seeded by the trial. Activations are what :func:`agileact.convert` finds:
    modules (``nn.ReLU()``), calls of functions and methods (``F.relu(x)``, ``x.relu()``), functions kept as
    attributes; one module that is used at several places becomes one activation for each. So the channels and their
    axis are those that the layers in front made. An activation that the arm does not name stays as it is, and so do
    gates (``x * torch.sigmoid(y)``) and what is not elementwise, such as softmax.

    ``fingerprint`` is of what the function built when the study was planned ("" for any); ``inputs`` tells how several
    inputs are packed in a sample. An ArgumentError says that the function cannot be called, builds no network or
    another one than planned, or that an activation that the arm names cannot be exchanged.
    """
    model = _built(target, subseed(seed, "weights"))
    if fingerprint and fingerprint != model_fingerprint(target):
        raise ArgumentError(
            f"the model {target!r} is not the one that this study was planned with: its code was changed, or it is "
            "built differently each time (from random numbers without a seed, the time, or a file)"
        )
    if inputs:
        model.register_forward_pre_hook(Unpack(inputs), with_kwargs=True)
    example = _example(model, input_shape, classes, inputs)
    if not arm.activations:
        return model
    slopes = [name for name, module in model.named_modules() if isinstance(module, nn.PReLU)]
    for name in slopes:
        if arm.activation(name) is not None:
            # It learns a slope of its own and would be left alone; another function in its place is what is asked for.
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, nn.LeakyReLU(0.25))
    model, sites, unknown = _sites(target, model, example, arm)
    if not sites and not slopes:
        raise ArgumentError(
            f"the model {target!r} has no activations to exchange: neither modules such as nn.ReLU() nor calls of "
            "functions such as torch.relu in the methods of its modules"
        )
    names = list(dict.fromkeys([*sites, *slopes]))
    if all(arm.activation(name) is None for name in names):
        given = ", ".join(where for where, _ in arm.activations)
        raise ArgumentError(f"the arm names {given}, but the activations of {target!r} are called {', '.join(names)}")
    for name, module in sites.items():
        text = arm.activation(name)
        if text is None:
            restore_site(model, name)
            continue
        activation = parse_activation(text)
        if activation.needs_channels and name in unknown:
            raise ArgumentError(
                f"{text!r} needs the number of channels of the activation {name!r}, which is not known "
                f"({unknown[name]}); leave it out by naming the others"
            )
        restore_site(model, name, activation.build(module.num_parameters or 1, module.dim))
    _without_fast_paths(model)
    return model


def _sites(
    target: str, model: nn.Module, example: Tensor, arm: ArmSpec
) -> tuple[nn.Module, dict[str, AgileModule], dict[str, str]]:
    """Make every activation agile, so that each is a module; return them by name, and why channels are not known.

    What is done does not depend on the arm, so that names are the same for all; only what is refused does.
    """
    try:
        model, report = convert(model, example_inputs=example, inplace=True)
        rest: dict[str, str] = {}
        lost = _wrongly_left(report)
        if lost:
            # Without channels there is still an activation, for what has nothing to learn.
            model, second = convert(model, example_inputs=example, inplace=True, granularity="layer")
            rest = {site.name: _why(site, lost) for site in second.converted}
            still = [one for one in _wrongly_left(second) if one.status != "already agile"]
            stuck = [one for one in still if arm.activation(one.name) is not None]
            if stuck:
                raise ArgumentError(
                    f"an activation of the model {target!r} cannot be exchanged: {stuck[0].base} "
                    f"({stuck[0].origin or 'in ' + (stuck[0].name or 'the model itself')}): {stuck[0].reason}"
                )
    except ArgumentError:
        raise
    except AgileactError as error:
        raise ArgumentError(f"the activations of the model {target!r} cannot be exchanged: {error}") from None
    if isinstance(model, AgileModule):
        raise ArgumentError(f"the model {target!r} is an activation alone")
    found = {name: module for name, module in model.named_modules() if isinstance(module, AgileModule)}
    return model, found, rest


def _wrongly_left(report: ConversionReport) -> list[ConvertedSite]:
    return [site for site in report.skipped if site.base in bases.names() and not site.reason.startswith(_LEFT)]


def _why(site: ConvertedSite, lost: list[ConvertedSite]) -> str:
    """Return why a site was lost at first: a call is known by its place in the source, a module by its name."""
    same = [one for one in lost if one.origin == site.origin and (" in " in one.origin or one.name == site.name)]
    return (same or lost)[0].reason.partition(";")[0]


def _without_fast_paths(model: nn.Module) -> None:
    """Keep the transformer layers of PyTorch from computing what stood there before, fused, in evaluation."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def model_fingerprint(target: str) -> str:
    """Return 16 hex digits that tell one network of the user's from another: of its weights and of its code."""
    return network_fingerprint(_built(target, 0), find(target, "model"))


def _built(target: str, seed: int) -> nn.Module:
    """Build the network; the global random streams are left alone."""
    model = call(target, "model", seed)
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"the model {target!r} returned a {type(model).__name__}, not a torch.nn.Module")
    lazy = [name for name, value in model.named_parameters() if isinstance(value, UninitializedParameter)]
    if lazy:
        raise ArgumentError(
            f"the model {target!r} has weights without a size yet ({lazy[0]}); name the sizes, or let the function "
            "pass an example through the model before it returns it"
        )
    return model


def _example(model: nn.Module, input_shape: tuple[int, ...], classes: int, inputs: Layout = ()) -> Tensor:
    """Return two samples that the model takes: numbers, or else tokens."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, *input_shape)
    training = model.training
    try:
        model.eval()
        with torch.no_grad():
            example = Unpack(inputs).example(2) if inputs else torch.randn(shape, generator=generator)
            try:
                output = model(example)
            except Exception as first:
                if inputs:
                    told = ", ".join(f"{name or 'by position'} {kind} {size}" for name, kind, size, _ in inputs)
                    raise ArgumentError(f"the model does not take the inputs {told}: {first}") from None
                example = torch.randint(max(1, classes), shape, generator=generator)
                try:
                    output = model(example)
                except Exception:
                    raise ArgumentError(f"the model does not take samples of shape {input_shape}: {first}") from None
    finally:
        model.train(training)
    if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[-1] < classes:
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ArgumentError(
            f"the model must return at least {classes} outputs for a sample, one for each class from 0 to the largest "
            f"label (or for each target of a regression), but two samples gave {given}"
        )
    return example


register_model("custom", custom)
