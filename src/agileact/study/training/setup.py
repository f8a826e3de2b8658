"""From an arm to a network and its optimizer: widths, starts, what is frozen, and who has which learning rate."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from agileact._common.errors import ArgumentError
from agileact.baselines import ParametricActivation
from agileact.calibration import calibrate
from agileact.nn import AgileModule
from agileact.optim import decay_activations, param_groups, standardize_weights
from agileact.study import models
from agileact.study.data.dataset import DataSet
from agileact.study.spec.activation_names import agile_form
from agileact.study.spec.trial import HELD, ArmSpec, ModelSpec
from agileact.study.spec.user_targets import UserActivation, find
from agileact.study.training import optimizers
from agileact.study.training.folded_steps import FoldedOptimizer, fold_into
from agileact.study.training.weights import constrain_weights

_LEAST_SCALE = 1e-3
"""Where a scale is held that would leave the positive numbers."""

_WIDTHS = ("filters", "nodes", "widths", "width")
"""The options of models that name sizes of layers."""

_MOST_REFUSED = 256
"""After how many sizes in a row that a model refuses there is none for it."""

Sample = Callable[[], Tensor]
"""Returns inputs from the training part to calibrate on."""


class Steps(Protocol):
    """What the training loop needs of an optimizer."""

    def step(self) -> Any:
        """Take a step."""
        ...

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        ...


def build_scheduler(steps: Steps, arm: ArmSpec, iterations: int) -> Any:
    """Return the schedule of the arm's learning rates, whose ``step`` is called after each of the optimizer's."""
    # Folded updates, and Accelerate, have the optimizer inside.
    inner = steps if isinstance(steps, torch.optim.Optimizer) else steps.optimizer  # type: ignore[attr-defined]
    return optimizers.scheduler(inner, arm.schedule, arm.warmup, iterations)


def build_network(
    spec: ModelSpec, arm: ArmSpec, *, input_shape: tuple[int, ...], classes: int, seed: int, sample: Sample
) -> nn.Module:
    """Build the network of ``arm`` as it is when training starts."""
    if target := dict(spec.options).get("target"):
        find(str(target), "model")  # its module may register the base functions that the arm names
    if arm.width == "matched":
        spec = matched(spec, arm, input_shape, classes)
    arguments: dict[str, Any] = {"input_shape": input_shape, "classes": classes, "seed": seed}
    model = models.build(spec, arm, **arguments)
    if arm.start == "calibrated":
        _calibrate(model, sample())
    elif arm.start == "folded":
        agile = models.build(spec, _agile_twin(arm), **arguments)
        _calibrate(agile, sample())
        fold_into(agile, model)
    constrain_weights(model, arm, sample)
    activations = [module for module in model.modules() if isinstance(module, AgileModule)]
    for name in arm.freeze:
        for module in activations:
            # ReLU, beside whose scale a gain says nothing new, has none; then there is nothing to keep.
            if module._parameters.get(name) is not None:
                module.get_parameter(name).requires_grad_(False)
    if arm.freeze and not activations:
        raise ArgumentError(f"freeze names {', '.join(arm.freeze)}, but the arm has no agile activation")
    return model


def network_on(data: DataSet, model: ModelSpec, arm: ArmSpec, seed: int = 0, sample: Sample | None = None) -> nn.Module:
    """Build the network of ``arm`` for some data; without a ``sample`` it is calibrated on the first 512."""
    shape, first = tuple(data.train_x.shape[1:]), sample or (lambda: data.train_x[:512])
    return build_network(model, arm, input_shape=shape, classes=data.classes, seed=seed, sample=first)


def build_optimizer(model: nn.Module, arm: ArmSpec) -> Steps:
    """Build the optimizer of ``arm`` over the network's parameters.

    What agile activations and baselines learn has the activation learning rate and no weight decay.
    """
    if arm.updates != "own":
        _, scale_lr, location_lr = _activation_rates(model, arm)
        return FoldedOptimizer(
            model,
            lambda groups: optimizers.build(arm.optimizer, groups, dict(arm.optimizer_options)),
            lr=arm.lr,
            scale_lr=scale_lr,
            location_lr=location_lr,
            weight_decay=arm.weight_decay,
            reset=arm.updates == "folded-reset",
        )
    optimizer = optimizers.build(arm.optimizer, parameter_groups(model, arm), dict(arm.optimizer_options))
    if arm.weights in HELD:
        standardize_weights(optimizer, model)
    if arm.activation_decay:
        decay_activations(optimizer, model)
    if arm.scale_sign == "positive":
        project = keeping_positive(model)
        optimizer.register_step_post_hook(lambda *_: project())
    return optimizer


def parameter_groups(model: nn.Module, arm: ArmSpec) -> list[dict[str, Any]]:
    """Return the network's parameters in the groups that an optimizer of ``arm`` takes, each with its numbers."""
    activation_lr, scale_lr, location_lr = _activation_rates(model, arm)
    groups = param_groups(
        model,
        lr=arm.lr,
        activation_lr=activation_lr,
        direction_turn=arm.direction_turn,
        weight_decay=arm.weight_decay,
        activation_decay=arm.activation_decay,
        groups=_own_groups(model, arm, activation_lr),
    )
    for group in groups:
        group["lr"] = {"scale": scale_lr, "location": location_lr}.get(group.get("name", ""), group["lr"])
    return groups


def _activation_rates(model: nn.Module, arm: ArmSpec) -> tuple[float, float, float]:
    """Check the arm against the network; return the rates of what activations learn, of scales and of locations."""
    _check_effect(model, arm)
    usual = arm.lr if arm.activation_lr is None else arm.activation_lr
    scale, location = (usual if rate is None else rate for rate in (arm.scale_lr, arm.location_lr))
    return usual, scale, location


def _check_effect(model: nn.Module, arm: ArmSpec) -> None:
    agile = any(isinstance(module, AgileModule) for module in model.modules())
    own = arm.updates == "own"
    for name, given, fits in (
        ("activation_decay", arm.activation_decay != 0.0, agile),
        ("scale_sign", arm.scale_sign != "free", agile),
        ("scale_lr", arm.scale_lr is not None, agile or not own),
        ("location_lr", arm.location_lr is not None, agile or not own),
    ):
        if given and not fits:
            raise ArgumentError(f"{name} is for agile activations, and the arm has none that it can change")
    if arm.bias_lr_multiplier != 1.0 and not own:
        raise ArgumentError("bias_lr_multiplier does not go with folded updates, which set the steps of biases")
    if arm.clip_norm is not None and not own:
        raise ArgumentError("clip_norm does not go with folded updates, whose gradients have another norm")


@lru_cache(maxsize=64)
def matched(spec: ModelSpec, arm: ArmSpec, input_shape: tuple[int, ...], classes: int) -> ModelSpec:
    """Return the model with one layer widened so that the plain arm has as many parameters as its agile form, or more.

    Every layer is tried; the one that gives the fewest parameters above is taken.

    Example:
        >>> arm = ArmSpec((("fc", "relu"),), width="matched")
        >>> matched(ModelSpec("mlp", (("nodes", (8, 8)),)), arm, (4,), 3).options
        (('nodes', (8, 11)),)
    """
    plain = dataclasses.replace(arm, width="given")
    target = _count(spec, _agile_twin(plain), input_shape, classes)
    options = {**models.options(spec.name), **dict(spec.options)}
    found: list[tuple[int, ModelSpec]] = []
    for name in _WIDTHS:
        sizes: Any = options.get(name)
        positions = range(len(sizes)) if isinstance(sizes, tuple) else [None] if isinstance(sizes, int) else []
        for position in positions:
            size = count = refused = 0
            wider = spec
            while count < target:
                size += 1
                value: Any
                if position is None:
                    value = sizes + size
                else:
                    value = tuple(s + size * (i == position) for i, s in enumerate(sizes))
                wider = ModelSpec(spec.name, tuple(sorted({**dict(spec.options), name: value}.items())))
                try:
                    count, refused = _count(wider, plain, input_shape, classes), 0
                except ArgumentError:
                    # Such as a width that a transformer's heads do not divide; one of the next ones they do.
                    refused += 1
                    if refused == _MOST_REFUSED:
                        raise
            found.append((count, wider))
    if not found:
        raise ArgumentError(f"the model {spec.name!r} has no option that sizes a layer ({', '.join(_WIDTHS)})")
    return min(found, key=lambda pair: pair[0])[1]


def _count(spec: ModelSpec, arm: ArmSpec, input_shape: tuple[int, ...], classes: int) -> int:
    model = models.build(spec, arm, input_shape=input_shape, classes=classes, seed=0)
    return sum(parameter.numel() for parameter in model.parameters())


def _agile_twin(arm: ArmSpec) -> ArmSpec:
    """Return the arm with each activation, all of them plain, in its agile form."""
    activations = tuple((where, agile_form(str(name))) for where, name in arm.activations)
    return dataclasses.replace(arm, activations=activations, start="identity", updates="own", width="given")


def _calibrate(model: nn.Module, inputs: Tensor) -> None:
    if not any(isinstance(module, AgileModule) for module in model.modules()):
        raise ArgumentError("the start 'calibrated' is for agile activations; the arm has none (try start 'folded')")
    calibrate(model, [inputs])


def _own_groups(model: nn.Module, arm: ArmSpec, activation_lr: float) -> list[dict[str, Any]] | None:
    """Return groups for what is neither an ordinary weight nor scale or location; None if there is no such thing."""
    own = (ParametricActivation, UserActivation)
    learned = {id(p): p for m in model.modules() if isinstance(m, own) for p in m.parameters() if p.requires_grad}
    agile = {id(p) for m in model.modules() if isinstance(m, AgileModule) for p in m.parameters()}
    biases = {}
    if arm.bias_lr_multiplier != 1.0:
        # The biases of layers alone: a normalisation's shift is called bias too, but is none.
        layers = (nn.Linear, nn.Conv1d, nn.Conv2d)
        biases = {id(m.bias): m.bias for m in model.modules() if isinstance(m, layers) and m.bias is not None}
    if not learned and not biases:
        return None
    taken = learned.keys() | biases.keys() | agile
    weights = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    groups: list[dict[str, Any]] = [{"params": weights, "name": "weights"}]
    if biases:
        groups.append({"params": list(biases.values()), "name": "biases", "lr": arm.lr * arm.bias_lr_multiplier})
    if learned:
        alone = {"params": list(learned.values()), "name": "activations", "lr": activation_lr, "weight_decay": 0.0}
        groups.append(alone)
    return groups


def keeping_positive(model: nn.Module) -> Callable[[], None]:
    """Return what puts scales of the network that are no longer positive back to a small number."""
    scales = [module.scale for module in model.modules() if isinstance(module, AgileModule)]

    def project() -> None:
        with torch.no_grad():
            for scale in scales:
                scale.clamp_(min=_LEAST_SCALE)

    return project
