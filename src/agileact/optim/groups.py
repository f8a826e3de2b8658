"""Parameter groups for any optimizer of PyTorch."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from agileact._common import checks
from agileact._common.errors import ArgumentError, ArgumentTypeError
from agileact.nn import AgileModule
from agileact.nn.rows import directions, row_length

Group = dict[str, Any]


def param_groups(
    model: nn.Module,
    lr: float | Tensor,
    *,
    activation_lr: float | Tensor | None = None,
    direction_lr: float | Tensor | None = None,
    direction_turn: float | None = None,
    weight_decay: float = 0.0,
    activation_decay: float = 0.0,
    groups: Iterable[Any] | None = None,
) -> list[Group]:
    """Sort the trainable parameters of a model into weights and those of activations, for any optimizer of PyTorch.

    With :class:`torch.optim.SGD` the groups take the steps of equations (5), (6), (15), (16), (23) and (24) of
    "Performance Improvement Method of Convolutional Neural Network Using Agile Activation Function" (doi
    10.3745/KTSDE.2020.9.7.213): weights and activations in one pass, each with their own learning rate.

    Weight decay would pull a scale to 0, where the activation is dead, and not to 1, where it is f; so scales,
    locations and gains get none. Directions, the weights that :func:`agileact.standardize` has standardised, get none
    either: their length is 1 in any case. What is left to decay are the weights that are free, such as those of the
    last layer.

    Args:
        model: The model, with agile modules anywhere inside or none.
        lr: The learning rate of the weights; of user groups, for those that have none of their own.
        activation_lr: The learning rate of scales, locations and gains; None for that of the user group that a
            parameter was in, if it has one, and else for ``lr``. What to try and why: docs/guides/train.md,
            Recommended defaults.
        direction_lr: The learning rate of directions, with None as for ``activation_lr``.
        direction_turn: How far a step may turn a direction, in units of its learning rate; None for no limit. Adam
            moves each of a row's n numbers by up to its rate, and so turns a row of length 1 by up to sqrt(n) rates:
            the rate of directions becomes ``min(1, direction_turn / sqrt(n))`` of what it was. In batches of 8,
            3 lowered the tuned loss with one hidden layer, and not with more: docs/studies/recipe.md.
        weight_decay: The weight decay of the weights; of user groups, for those that have none of their own.
        activation_decay: The decay of scales, locations and gains towards their start, as a rate per step and learning
            rate. It takes effect through :func:`~agileact.decay_activations`.
        groups: Groups of your own, as an optimizer takes them: dicts with ``"params"``, or parameters, or pairs
            (name, parameter). They keep their settings and their weights; directions, scales, locations and gains
            are taken out of them into groups of their own (as many as they have learning rates).

    Returns:
        A list of dicts: first the weights (``"name": "weights"``, or the user's groups), then ``"direction"``,
        ``"scale"``, ``"location"`` and ``"gain"``. Every parameter of ``model`` that requires a gradient is in exactly
        one; a parameter that several modules share is there once. A group that would be empty is left out.

    Raises:
        ArgumentError: If the model has parameters that are not initialised yet; if a number is negative; if a
            parameter of the model is in none of ``groups`` or in two, or one of them is not the model's.
        ArgumentTypeError: If ``model`` is no module.

    Example:
        >>> import torch, agileact as ag
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 30), ag.AgileSigmoid(30), torch.nn.Linear(30, 2))
        >>> groups = ag.param_groups(model, lr=0.1, activation_lr=0.01, weight_decay=0.05)
        >>> [(group["name"], len(group["params"]), group["lr"], group["weight_decay"]) for group in groups]
        [('weights', 4, 0.1, 0.05), ('scale', 1, 0.01, 0.0), ('location', 1, 0.01, 0.0)]
        >>> optimizer = torch.optim.AdamW(groups)
    """
    checks.model(model)
    for argument, value in (
        ("lr", lr),
        ("activation_lr", lr if activation_lr is None else activation_lr),
        ("direction_lr", lr if direction_lr is None else direction_lr),
        ("direction_turn", 0.0 if direction_turn is None else direction_turn),
        ("weight_decay", weight_decay),
        ("activation_decay", activation_decay),
    ):
        # A tensor is a learning rate for a captured graph; comparing it would wait for the device.
        if not isinstance(value, Tensor) and not 0 <= checks.number(argument, value) < math.inf:
            raise ArgumentError(f"{argument} must be at least 0 and finite, not {value}")
    names = _trainable(model)
    layers: dict[Any, nn.Module] = {layer.weight: layer for layer in directions(model).values()}
    own_groups = {"direction": dict.fromkeys(layers), **_activation_parameters(model)}
    apart = {parameter for members in own_groups.values() for parameter in members}

    rates: dict[Tensor, float | Tensor] = {}
    if groups is None:
        weights = [parameter for parameter in names if parameter not in apart]
        result: list[Group] = [{"params": weights, "name": "weights", "lr": lr, "weight_decay": weight_decay}]
        named = False
    else:
        own = _as_groups(groups)
        _check_twice(own, names)
        rates = {_tensor(member): group["lr"] for group in own if "lr" in group for member in group["params"]}
        every = [member for group in own for member in group["params"]]
        named = bool(every) and all(isinstance(member, tuple) for member in every)
        result = [
            {**group, "lr": group.get("lr", lr), "weight_decay": group.get("weight_decay", weight_decay)}
            for group in own
        ]
        for group in result:
            group["params"] = [member for member in group["params"] if _tensor(member) not in apart]
    for name, chosen in own_groups.items():
        asked = direction_lr if name == "direction" else activation_lr
        members = [parameter for parameter in names if parameter in chosen]
        # Several groups only where the user's have several rates, as for one that falls from layer to layer.
        by_rate: dict[Any, list[Tensor]] = {}
        for parameter in members:
            rate = rates.get(parameter, lr) if asked is None else asked
            if name == "direction" and direction_turn is not None:
                rate = rate * min(1.0, direction_turn / math.sqrt(row_length(layers[parameter])))
            by_rate.setdefault(rate, []).append(parameter)
        for rate, part in by_rate.items():
            members_of = [(names[parameter], parameter) for parameter in part] if named else part
            group = {"params": members_of, "name": name, "lr": rate, "weight_decay": 0.0}
            result.append(group if name == "direction" else {**group, "activation_decay": activation_decay})
    _check_once(result, names)
    return [group for group in result if group["params"]]


def _trainable(model: nn.Module) -> dict[Tensor, str]:
    """Return the parameters that require a gradient, each once, with their names."""
    found: dict[Tensor, str] = {}
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ArgumentError(
                f"model has parameters that are not initialised yet, such as {name!r}; "
                "run one batch through it first: model(x)"
            )
        if parameter.requires_grad:
            found[parameter] = name
    return found


def agile_modules(model: nn.Module) -> list[AgileModule]:
    """Return the agile modules of a model, each once."""
    return [module for module in model.modules() if isinstance(module, AgileModule)]


def _activation_parameters(model: nn.Module) -> dict[str, dict[Tensor, None]]:
    """Return all scales, all locations and all gains, as sets in the order of the modules."""
    found: dict[str, dict[Tensor, None]] = {"scale": {}, "location": {}, "gain": {}}
    for module in agile_modules(model):
        for name, parameter in module.named_parameters(remove_duplicate=False):
            found.get(_role(name), {})[parameter] = None
    for one, other in itertools.combinations(found, 2):
        if found[one].keys() & found[other].keys():
            raise ArgumentError(f"model uses one parameter both as a {one} and as a {other}")
    return found


def _role(name: str) -> str:
    """Return "scale", "location" or "gain" also for what torch.nn.utils.parametrize and prune put in its place."""
    first, *rest = name.split(".")
    return rest[0] if first == "parametrizations" and rest else first.removesuffix("_orig")


def _as_groups(groups: Iterable[Any]) -> list[Group]:
    items: Sequence[Any] = list(groups)
    if not all(isinstance(item, dict) for item in items):
        items = [{"params": items}]
    result = []
    for item in items:
        if "params" not in item:
            raise ArgumentError(f"a group must have 'params'; this one has {', '.join(map(repr, item)) or 'nothing'}")
        params = item["params"]
        result.append({**item, "params": [params] if isinstance(params, Tensor) else list(params)})
    return result


def _tensor(member: Any) -> Tensor:
    tensor = member[1] if isinstance(member, tuple) else member
    if not isinstance(tensor, Tensor):
        raise ArgumentTypeError(f"a group must hold parameters, not {type(tensor).__name__}")
    return tensor


def _check_twice(groups: list[Group], names: dict[Tensor, str]) -> set[Tensor]:
    """Return all parameters of the groups; raise if one is there twice."""
    seen = Counter(_tensor(member) for group in groups for member in group["params"])
    twice = [names.get(tensor, "one that is not the model's") for tensor, count in seen.items() if count > 1]
    if twice:
        raise ArgumentError(f"groups has parameters more than once: {', '.join(twice)}")
    return set(seen)


def _check_once(groups: list[Group], names: dict[Tensor, str]) -> None:
    """Make sure that every trainable parameter is in exactly one group, and nothing else is in any."""
    seen = _check_twice(groups, names)
    missing = [name for parameter, name in names.items() if parameter not in seen]
    if missing:
        raise ArgumentError(
            f"groups lacks trainable parameters of model: {', '.join(missing)}; add them, or set requires_grad=False"
        )
    foreign = [tensor for tensor in seen if tensor not in names and tensor.requires_grad]
    if foreign:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in foreign)
        raise ArgumentError(f"groups has parameters that are not the model's, of shape {shapes}")
