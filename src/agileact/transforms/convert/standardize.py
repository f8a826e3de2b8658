"""A start from which weights say the direction of a unit, and its activation the size and the position."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from agileact import bases
from agileact._common import checks
from agileact._common.errors import ArgumentError
from agileact.nn import Agile, AgileModule
from agileact.nn.rows import CENTRED, LENGTH, Projection, has_rows, hold, lengths, refusal, row_count, row_length
from agileact.transforms.edit.revert import copied
from agileact.transforms.report import StandardizedSite, StandardizeReport
from agileact.transforms.trace.forward_runs import needs_values, outcome
from agileact.transforms.trace.operations import CONVERTING, LINEAR, NORMS, REARRANGING
from agileact.transforms.trace.recorder import record
from agileact.transforms.trace.recording import Arguments, Call, Recording, Value

LayerFilter = Callable[[nn.Module, str], bool]
Centre = Literal["hidden", "all", "none", "start"]
CENTRES: tuple[Centre, ...] = ("hidden", "all", "none", "start")
DEFAULT: Centre = "hidden"
_WIDTH, _POINTS = 12.0, 48_001


def standardize(
    model: nn.Module,
    example_inputs: Arguments,
    *,
    centre: Centre | None = None,
    keep_function: bool = False,
    skip_init: bool = False,
    filter_fn: LayerFilter | None = None,
    inplace: bool = False,
) -> tuple[nn.Module, StandardizeReport]:
    r"""Put a model with agile activations at a start from which :math:`a f(g (w \cdot x - b))` says nothing twice.

    Each linear or convolutional layer directly before an agile activation gets rows w of length 1, its *directions*,
    and loses its bias, which the location b makes redundant. Layers behind an agile activation get rows of mean 0 too:
    :math:`w \leftarrow (w - \bar w) / \lVert w - \bar w \rVert`, against
    :math:`w \leftarrow w / \lVert w \rVert` where the input of the model is read, whose mean may say something. The
    activation starts at b = 0, g = 1 and

    .. math:: a = \frac{1}{\operatorname{std} f(\xi)}, \quad \xi \sim N(0, 1),

    so that a signal keeps its size from layer to layer. A gain g is added where f is not positively homogeneous; where
    it is (ReLU), a does what g would. From then on :func:`~agileact.standardize_weights` keeps the rows directions, and
    :func:`~agileact.fold` gives a plain network. All other layers stay free: the last one, layers before a sum, a
    normalisation or anything else that is no activation. The report names the reason.

    Built on: centred weight normalisation (Huang et al. 2017), weight standardisation (Qiao et al. 2019), weight
    normalisation (Salimans and Kingma 2016), normaliser-free networks with scaled weight standardisation and the
    constants 1 / std f (Brock et al. 2021), SkipInit (De and Smith 2020), forced weight normalisation (Karras et al.
    2024). The names are theirs.

    Args:
        model: The model, after :func:`agileact.convert`, with granularity "channel".
        example_inputs: What the model is run on, once: a tensor, a tuple of positional or a dict of keyword arguments.
        centre: Which rows get mean 0. "hidden", the default: those of layers that an agile activation lies before.
            "all" or "none". "start": all of them now, and none after later steps. Each layer keeps its choice, also in
            copies and in the metadata of ``state_dict()``; of a file without metadata (safetensors) the choice of the
            model that loads it counts.
        keep_function: Whether the model shall compute what it does now, for one that is trained. That needs ``centre``
            "none", which is then the default. The old length of a row goes into a where f is positively homogeneous,
            else into g, and the bias into b. A row of zeros is then refused.
        skip_init: Whether a branch of a residual sum that ends in an agile activation starts with a = 0, so that each
            block starts as the identity.
        filter_fn: ``filter_fn(layer, name)`` tells which layers to standardise.
        inplace: Whether to change ``model`` itself rather than a copy.

    Returns:
        The model, and the report.

    Raises:
        ArgumentError: If no layer can be standardised; the message names why each is left free. If options exclude
            each other, ``centre`` has another value, or the model has no values yet.
        ArgumentTypeError: If an argument has the wrong type.

    Example:
        >>> import torch, agileact as ag
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), ag.AgileReLU(8), nn.Linear(8, 8), ag.AgileReLU(8), nn.Linear(8, 2))
        >>> model, report = ag.standardize(model, torch.randn(3, 4))
        >>> print(report)
        2 standardized, 1 left free
        layer  status        rows           activation  scale at the start  reason
        -----  ------------  -------------  ----------  ------------------  ------------------------------------------
        0      standardized  8 x 4          1           1.713
        2      standardized  8 x 8, mean 0  3           1.713
        4      left free     2 x 8                      -                   no agile activation behind: it is returned
    """
    checks.model(model)
    if keep_function and skip_init:
        raise ArgumentError("skip_init starts from another function: give it or keep_function")
    centre = check_centre(centre, keep_function)
    needs_values(model, "standardize")
    if not inplace:
        model = copied(model)
    if any(is_lazy(parameter) for parameter in model.parameters()):
        outcome(model, example_inputs)  # a run makes what is still open
    recording = record(model, example_inputs, leaf=lambda module: isinstance(module, AgileModule))
    plan = _Plan(model, recording, centre, keep_function, filter_fn)
    if not plan.chosen:
        why = "; ".join(f"{name}: {reason}" for name, reason in plan.refused.items()) or "none ran"
        raise ArgumentError(f"no layer of the model can be standardised: {why}")
    skipped = _ends_of_branches(recording) if skip_init else set()
    if skip_init and not any(one in skipped for pair in plan.chosen.values() for one in pair.activations):
        raise ArgumentError("skip_init: no branch of a residual sum ends in an agile activation behind such a layer")
    with torch.inference_mode(False), torch.no_grad():
        sites = [_started(one, keep_function, skipped) for one in plan.chosen.values()]
    found = {site.name: site for site in sites}
    for name, reason in plan.refused.items():
        layer = plan.layers[name]
        rows, numbers = row_count(layer), row_length(layer)
        found[name] = StandardizedSite(name, "", "left free", reason, rows=rows, numbers=numbers)
    return model, StandardizeReport([found[name] for name in plan.layers])


def check_centre(centre: Centre | None, keep_function: bool = False) -> Centre:
    """Return when rows get mean 0; None stands for the default."""
    if centre is None:
        return "none" if keep_function else DEFAULT
    if centre not in CENTRES:
        raise ArgumentError(f"centre must be 'hidden', 'all', 'none' or 'start', not {centre!r}")
    if keep_function and centre != "none":
        raise ArgumentError(f"centre={centre!r} starts from another function: give it or keep_function")
    return centre


@dataclass(frozen=True)
class _Pair:
    """A layer and the activation behind it, several if it runs several times; by their names too."""

    name: str
    layer: Any
    activations: list[AgileModule]
    names: list[str]
    kinds: tuple[str, ...]  # what its rows are made at the start, one after the other; the last one stays


class _RefusedError(Exception):
    """A layer stays free; the message says why."""


class _Plan:
    """Which layers of a recorded model can be standardised, and why others cannot."""

    def __init__(
        self, model: nn.Module, recording: Recording, centre: Centre, keep_function: bool, filter_fn: LayerFilter | None
    ) -> None:
        self.model = model
        self.recording = recording
        self.centre = centre
        self.keep_function = keep_function
        self.layers: dict[str, Any] = {}
        self.chosen: dict[str, _Pair] = {}
        self.refused: dict[str, str] = {}
        self._behind_activation = _behind_activations(recording)
        self._names: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._names.setdefault(id(parameter), []).append(name)
        calls: dict[str, list[Call]] = {}
        for call in recording.calls:
            if call.name in LINEAR and has_rows(model.get_submodule(call.owner)):
                calls.setdefault(call.owner, []).append(call)
        for name, some in calls.items():
            self.layers[name] = layer = model.get_submodule(name)
            try:
                if filter_fn is not None and not filter_fn(layer, name):
                    raise _RefusedError("filter_fn leaves it out")
                self.chosen[name] = self._pair(name, layer, some)
            except _RefusedError as refused:
                self.refused[name] = str(refused)
        self._check_sharing()

    def _check_sharing(self) -> None:
        """Refuse layers that share an activation with what is not standardised, or, to keep a function, with any."""
        before: dict[AgileModule, list[str]] = {}
        for name, pair in self.chosen.items():
            for activation in pair.activations:
                before.setdefault(activation, []).append(name)
        runs = [call.function for call in self.recording.calls if call.name == "module"]
        used = {name: sum(call.owner == name for call in self.recording.calls) for name in self.chosen}
        for activation, names in before.items():
            others = runs.count(activation) > sum(used[name] for name in names)
            if others or (self.keep_function and len(names) > 1):
                for name in self.chosen.keys() & names:
                    del self.chosen[name]
                    where = self._name(activation)
                    self.refused[name] = f"its activation {where} is shared, and has one size for all its places"

    def _pair(self, name: str, layer: Any, calls: list[Call]) -> _Pair:
        why = refusal(layer)
        if why or "bias" not in layer._parameters:
            raise _RefusedError(why or "its bias is parametrised, pruned or computed")
        numbers = row_length(layer)
        kinds = self._kinds(calls)
        # Of mean 0 and length 1 there are but two rows of two numbers.
        if numbers < (3 if CENTRED in kinds else 2):
            raise _RefusedError(f"a row of {numbers} number{'s' * (numbers > 1)} has no direction to learn")
        if self.keep_function and not bool((lengths(layer, layer.weight.detach()) > 0).all()):
            raise _RefusedError("a row of zeros has no direction")
        for parameter in (layer.weight, layer.bias):
            if parameter is not None and len(self._names[id(parameter)]) > 1:
                raise _RefusedError(f"its parameters are shared: {', '.join(self._names[id(parameter)])}")
        for value in self.recording.values:
            if value.name == f"{name}.weight" and len(value.users) > len(calls):
                raise _RefusedError("its weight is used elsewhere too")
        # Where a layer runs several times, before different activations, each has a size and a position of its own.
        found = list(dict.fromkeys(self._behind(call) for call in calls))
        for one in found:
            self._check(one)
        return _Pair(name, layer, found, [self._name(one) for one in found], kinds)

    def _kinds(self, calls: list[Call]) -> tuple[str, ...]:
        if self.centre == "start":
            return CENTRED, LENGTH
        hidden = all(call.inputs[0].index in self._behind_activation for call in calls)
        return (CENTRED if self.centre == "all" or (self.centre == "hidden" and hidden) else LENGTH,)

    def _name(self, module: nn.Module) -> str:
        return self.recording.names[id(module)][0]

    def _check(self, activation: AgileModule) -> None:
        if activation.granularity != "channel":
            raise _RefusedError(f"its activation has one size for each {activation.granularity}, not for each row")
        if activation.base in bases.names():
            facts = activation.facts
            if not facts.positively_homogeneous and not isinstance(activation, Agile):
                raise _RefusedError(f"its activation, {type(activation).__name__}, has no gain")
            if not self.keep_function and not _unit_scale(activation) < math.inf:
                raise _RefusedError("f of its activation is constant")
        else:
            raise _RefusedError(f"nothing is known of f of its activation, {activation.base}")

    def _behind(self, call: Call) -> AgileModule:
        """Return the agile activation that takes what a layer makes, row by row, and nothing else does."""
        value = call.outputs[0]
        axis = LINEAR[call.name] % len(value.shape) if len(value.shape) > 1 else 0
        rows = torch.arange(value.shape[axis]).reshape((-1,) + (1,) * (len(value.shape) - 1 - axis))
        labels = rows.expand(value.shape)
        while True:
            call = self._only_user(value)
            if call.name == "module" and isinstance(call.function, AgileModule):
                break
            labels = self._passed(call, value, labels)
            value = call.outputs[0]
        activation: AgileModule = call.function
        axis = 0 if labels.ndim == 1 and activation.dim == 1 else activation.dim % max(labels.ndim, 1)
        moved = labels.movedim(axis, -1)
        if not torch.equal(moved, torch.arange(moved.shape[-1]).expand_as(moved)):
            raise _RefusedError("the channels of its activation are not its rows")
        return activation

    def _only_user(self, value: Value) -> Call:
        if value.returned:
            raise _RefusedError("no agile activation behind: it is returned")
        if value.tainted:
            raise _RefusedError("what it makes is changed or read in ways not recorded")
        if len(value.users) != 1:
            raise _RefusedError(f"what it makes is used {len(value.users)} times")
        return value.users[0]

    def _passed(self, call: Call, value: Value, labels: Tensor) -> Tensor:
        """Return the labels behind a call that only rearranges."""
        if call.name in CONVERTING:
            return labels
        if call.name in NORMS:
            raise _RefusedError(f"{call.name} lies between, which already divides its size out")
        if call.name in ("add", "sub", "rsub", "iadd"):
            raise _RefusedError("a sum lies between, in which its size counts beside that of the other part")
        if call.name not in REARRANGING or len(call.inputs) != 1 or len(call.outputs) != 1:
            raise _RefusedError(f"no agile activation directly behind it, but {call.name}")
        made = call.rearranged({value.index: labels.contiguous()})
        if made is None:
            raise _RefusedError(f"no agile activation directly behind it, but {call.name}")
        return made[0]


def _unit_scale(activation: AgileModule) -> float:
    r"""Return 1 / std f(xi) for a standard normal xi; infinite for a constant f.

    By the trapezoidal rule in float64: right to 1e-7, and to 1e-4 where f jumps.
    """
    z = torch.linspace(-_WIDTH, _WIDTH, _POINTS, dtype=torch.float64)
    density = torch.exp(-0.5 * z * z)
    density /= density.sum()
    f = bases.get(activation.base).function(z, **activation.options)
    mean = (density * f).sum()
    variance = float((density * (f - mean).square()).sum())
    return 1 / math.sqrt(variance) if variance > 1e-24 else math.inf


def _started(pair: _Pair, keep_function: bool, skipped: set[nn.Module]) -> StandardizedSite:
    layer, scales = pair.layer, set()
    kept = _kept(layer) if keep_function else None
    for activation in pair.activations:
        homogeneous = activation.facts.positively_homogeneous
        if not homogeneous and isinstance(activation, Agile):
            activation.add_gain()
        if kept is not None:
            length, bias = kept
            location = activation.location.double().view(activation.terms, -1)
            activation.location.copy_((location - bias).div(length).flatten())
            taker = activation.scale if homogeneous else activation.get_parameter("gain")
            taker.copy_((taker.double().view(-1, length.numel()) * length).flatten())
        else:
            activation.start_scale = 0.0 if activation in skipped else _unit_scale(activation)
            activation.reset_parameters()
            scales.add(activation.start_scale)
    for kind in pair.kinds:
        hold(layer, kind)
        Projection({pair.name: layer}).project()
    return StandardizedSite(
        pair.name,
        pair.activations[0].base,
        "standardized",
        "",
        ", ".join(pair.names),
        row_count(layer),
        row_length(layer),
        scales.pop() if len(scales) == 1 else None,
        any(getattr(activation, "gain", None) is not None for activation in pair.activations),
        pair.kinds[-1] == CENTRED,
    )


def _kept(layer: Any) -> tuple[Tensor, Tensor]:
    """Return the lengths of a layer's rows, and its bias, in float64."""
    length = lengths(layer, layer.weight.detach())
    return length, torch.zeros_like(length) if layer.bias is None else layer.bias.detach().double()


def _behind_activations(recording: Recording) -> set[int]:
    """Return the values, by index, that an agile activation had a part in."""
    found: set[int] = set()
    for call in recording.calls:
        agile = call.name == "module" and isinstance(call.function, AgileModule)
        if agile or any(value.index in found for value in call.inputs):
            found.update(value.index for value in call.outputs)
    return found


def _ends_of_branches(recording: Recording) -> set[nn.Module]:
    """Return the agile modules whose results are added, each time, to what their branch started from."""
    ends: dict[nn.Module, bool] = {}
    for call in recording.calls:
        if call.name == "module" and isinstance(call.function, AgileModule):
            users = [user for value in call.outputs for user in value.users]
            ended = len(users) == 1 and _is_residual(users[0], call)
            ends[call.function] = ends.get(call.function, True) and ended
    return {module for module, ended in ends.items() if ended}


def _is_residual(user: Call, branch: Call) -> bool:
    """Return whether a sum adds what a branch makes to something that the branch was made from."""
    if user.name != "add" or len(user.inputs) != 2 or branch.outputs[0] not in user.inputs:
        return False
    others = [value for value in user.inputs if value is not branch.outputs[0]]
    return any(value is other or _made(other, value) for other in others for value in _ancestors(branch))


def _made(value: Value, origin: Value) -> bool:
    """Return whether a shortcut makes a value from an origin by one layer, as a strided convolution does."""
    return value.maker is not None and value.maker.name in LINEAR and value.maker.inputs[0] is origin


def _ancestors(call: Call) -> Iterator[Value]:
    """Yield the values that a call was made from."""
    seen: set[int] = set()
    todo = [value for value in call.inputs if value.kind in ("result", "input")]
    while todo:
        value = todo.pop()
        if value.index in seen:
            continue
        seen.add(value.index)
        yield value
        if value.maker is not None:
            todo += [one for one in value.maker.inputs if one.kind in ("result", "input")]
