"""Where scale and location start, told by data: so that a signal gets through, and nothing where it does anyway."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from agileact._common import checks
from agileact._common.errors import ArgumentError, ArgumentTypeError
from agileact._common.terminal import format_table
from agileact.monitor.units import as_rows, units_of
from agileact.nn import AgileModule
from agileact.nn.rows import directions, lengths, local
from agileact.transforms.report import Site
from agileact.transforms.trace.forward_runs import needs_values
from agileact.transforms.trace.recorder import preserved, untouched

When = Literal["needed", "always"]
Location = Literal["auto", "mean", "median", "keep"]
Scale = Literal["layer", "unit", "keep"]


@dataclass(frozen=True)
class CalibratedSite(Site):
    """An agile module in the report of a calibration; its status is "calibrated" or "kept".

    The size of a signal is its standard deviation from sample to sample, as a root mean square over the layer.

    Attributes:
        calls: How often each batch passes it; more than 1 if it is shared.
        before: The size of the signal in front of it and behind it, as the model was; None if nothing passes it.
        after: The same as the model is now.
        factor: What the scales were multiplied by: a mean over the layer.
        shift: What was added to the locations: the root mean square over the layer.
    """

    calls: int = 1
    before: tuple[float, float] | None = None
    after: tuple[float, float] | None = None
    factor: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class CalibrationReport:
    """What :func:`agileact.calibrate` did, layer by layer; prints as a table.

    Attributes:
        sites: All agile modules, in the order in which they run; at the end those that do not.
        samples: The number of samples that it was told by.
        arrived_before: The size of the signal behind the last layer over that in front of the first, before.
        arrived_after: The same, as the model is now.
        note: What was found, in a sentence.
        rows: The shortest and the longest row of each layer that :func:`agileact.standardize` has standardised. Rows
            of length 1 are kept as they are.
    """

    sites: Sequence[CalibratedSite]
    samples: int
    arrived_before: float
    arrived_after: float
    note: str
    rows: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def calibrated(self) -> list[CalibratedSite]:
        """The layers whose scale or location was changed."""
        return [site for site in self.sites if site.status == "calibrated"]

    @property
    def kept(self) -> list[CalibratedSite]:
        """The layers that are as they were, each with its reason."""
        return [site for site in self.sites if site.status != "calibrated"]

    def __str__(self) -> str:
        gone = (None, None)
        rows = [
            (
                site.name or "(the model itself)",
                site.base,
                *("-" if size is None else f"{size:.2g}" for size in (*(site.before or gone), *(site.after or gone))),
                f"{site.factor:.3g}",
                f"{site.shift:.2g}",
                site.status,
                site.reason,
            )
            for site in self.sites
        ]
        header = ("name", "base", "in", "out", "in now", "out now", "scale x", "location +", "status", "reason")
        directions = [f"rows of {name}: lengths {low:.3g} to {high:.3g}" for name, (low, high) in self.rows.items()]
        return "\n".join([self.note, format_table(header, rows), *directions])


def calibrate(
    model: nn.Module,
    batches: Any,
    *,
    when: When = "needed",
    signal: float | tuple[float, float] = (0.1, 10.0),
    location: Location = "auto",
    scale: Scale = "layer",
    threshold: float = 3e-4,
    filter_fn: Callable[[AgileModule, str], bool] | None = None,
    max_batches: int = 8,
) -> CalibrationReport:
    r"""Start scales and locations from data, so that what differs from sample to sample gets through a deep model.

    In a deep network of sigmoids each layer passes on about a seventh of the signal: activation and weights
    shrink it, nothing enlarges it, and after ten layers all samples look alike. "All you need is a good init" (Mishkin
    and Matas, ICLR 2016, LSUV) scales the weights by data, layer after layer. Here the weights stay as they are:
    the locations go to the units' operating point and the scales bring the signal back to size, so that all of it
    folds into the weights later. The size of a signal is its standard deviation over samples, at each position by
    itself, as a root mean square over the layer.

    First the model is only looked at. If at least ``threshold`` of the signal that the first activation gets leaves the
    last one, and at most the inverse of it, nothing is changed: the start stays the identity, a = 1 and b = 0. Training
    finds its way there by itself, and a larger signal may even be in its way (docs/calibrate.md). Otherwise, layer
    after layer in forward order, each seeing what the layers before it give by then: a layer whose output has a size
    within ``signal`` is left alone; for any other,

    .. math::
        b_j \leftarrow b_j + \bar x - b_1, \qquad a_j \leftarrow a_j \, t / s,

    where :math:`\bar x` is the mean of the unit's input, s the size of the layer's output with these locations and t
    the bound of ``signal`` that it misses. After this its output has exactly that size, on these batches.

    The model runs as in training, but without dropout. Weights, gradients, training flags, buffers (statistics of
    batch normalisation) and random number generators are as before, and if there is an error all is. Modules that are
    lazy are made by a first forward pass.

    Args:
        model: The model, with agile modules of any kind inside, in the state in which training would start.
        batches: A tensor (one batch), a dict of keyword arguments (one batch), or an iterable of batches: tensors,
            dicts, or tuples and lists such as (x, y), of which the first is the input. The first axis is that
            of samples. Each layer needs a pass over all of them; a few hundred samples are enough.
        when: "needed" acts as described above; "always" does not look at ``threshold``.
        signal: The least and the largest size of a layer's output. A number stands for both: every layer's output
            gets exactly this size.
        location: "auto" moves the locations of bounded functions, such as the sigmoid, to the mean, where their units
            operate, and keeps those of others: a rectifier that bends in the middle of a small signal is put out
            by a small common shift. "mean" and "median" move all; "keep" none.
        scale: One factor for a "layer", so that its units keep their proportions; or one for each "unit"; or "keep".
        threshold: See above.
        filter_fn: Called as ``filter_fn(module, name)`` for each agile module; others than those for which it returns
            True are kept as they are.
        max_batches: Take so many batches from ``batches`` and no more.

    Returns:
        A report: what was found and done for each layer, and why; it prints as a table.

    Raises:
        ArgumentError: If there are no batches, no agile modules, or none that the batches reach; if the model has no
            values yet (device "meta"); if a batch has one
            sample only, or all are alike; if values are not finite.
        ArgumentTypeError: If an argument has the wrong type.

    Example:
        >>> import torch, agileact as ag
        >>> _ = torch.manual_seed(0)
        >>> layers = [part for _ in range(6) for part in (torch.nn.Linear(32, 32), ag.AgileSigmoid(32))]
        >>> model = torch.nn.Sequential(*layers)
        >>> report = ag.calibrate(model, torch.randn(200, 32))
        >>> f"{report.arrived_before:.0e}", f"{report.arrived_after:.2f}", len(report.calibrated)
        ('1e-05', '0.17', 5)
        >>> shallow = torch.nn.Sequential(torch.nn.Linear(32, 32), ag.AgileReLU(32), torch.nn.Linear(32, 2))
        >>> ag.calibrate(shallow, torch.randn(200, 32)).calibrated
        []
    """
    low, high = _check(model, when, signal, location, scale, threshold, max_batches)
    model = getattr(model, "_orig_mod", model)  # what torch.compile made would not see the hooks
    names = {module: name for name, module in model.named_modules() if isinstance(module, AgileModule)}
    if not names:
        raise ArgumentError(
            "model has no agile modules to calibrate; agileact.convert(model, ...) makes its activations agile"
        )
    needs_values(model, "calibrate")
    chosen = _take(batches, max_batches)
    if any(is_lazy(tensor) for tensor in chain(model.parameters(), model.buffers())):
        with untouched(model), torch.no_grad():
            feed(model, chosen[0])
    before, after = Probe(names, keep=False), Probe(names, keep=False)
    saved = [(p, p.detach().clone()) for module in names for p in module.parameters(recurse=False)]
    done: dict[AgileModule, CalibratedSite] = {}
    with preserved(model), torch.no_grad():
        for module in model.modules():
            if not isinstance(module, _NormBase):  # which normalise as in training
                module.training = False  # not by eval(), which a module may have changed to do more
        before.run(model, chosen)
        order = list(before.signals)
        if not order:
            raise ArgumentError("the batches reach none of the model's agile modules; are these inputs of this model?")
        arrived = _arrived(before, names)
        act = when == "always" or not threshold <= arrived <= 1 / threshold
        try:
            for module in order:
                reason = _why_not(module, names[module], filter_fn)
                if not act:
                    reason = "enough of the signal arrives behind the last layer"
                site = CalibratedSite(names[module], module.base, "kept", reason)
                if not reason:
                    probe = Probe({module: names[module]}, keep=True)
                    probe.run(model, chosen)
                    site = _calibrate_site(site, module, probe.inputs[module], low, high, location, scale)
                    if before.calls[module] > len(chosen):
                        site = replace(site, reason=f"shared, by the values of all uses; {site.reason}")
                done[module] = site
            after.run(model, chosen)
        except BaseException:
            for parameter, value in saved:
                parameter.copy_(value)
            raise
    sites = [
        replace(site, calls=before.calls[module] // len(chosen), before=before.sizes(module), after=after.sizes(module))
        for module, site in done.items()
    ]
    sites += [
        CalibratedSite(name, module.base, "kept", "the batches do not reach it", calls=0)
        for module, name in names.items()
        if module not in before.signals
    ]
    samples = sum(_samples(batch) for batch in chosen)
    now = _arrived(after, names)
    note = f"{arrived:.2g} of the signal in front of the first activation arrived behind the last one"
    note += f"; now {now:.2g}." if any(site.status == "calibrated" for site in sites) else "; nothing was changed."
    return CalibrationReport(sites, samples, arrived, now, note, _row_lengths(model))


def _row_lengths(model: nn.Module) -> dict[str, tuple[float, float]]:
    found = {name: lengths(layer, local(layer.weight)) for name, layer in directions(model).items()}
    # A process may have no part of a sharded weight.
    return {
        name: (float(one.min()), float(one.max())) if one.numel() else (math.nan, math.nan)
        for name, one in found.items()
    }


def _check(
    model: Any, when: Any, signal: Any, location: Any, scale: Any, threshold: Any, max_batches: Any
) -> tuple[float, float]:
    """Check the arguments; return the least and the largest size of a signal."""
    checks.model(model)
    for name, value, allowed in (
        ("when", when, ("needed", "always")),
        ("location", location, ("auto", "mean", "median", "keep")),
        ("scale", scale, ("layer", "unit", "keep")),
    ):
        if value not in allowed:
            raise ArgumentError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
    pair = signal if isinstance(signal, tuple) else (signal, signal)
    numbers = [*pair, threshold]
    if not all(map(checks.is_number, numbers)) or len(pair) != 2:
        raise ArgumentTypeError(
            f"signal must be a number or a pair of them, and threshold a number, not {signal!r} and {threshold!r}"
        )
    low, high = float(pair[0]), float(pair[1])
    if not 0 < low <= high < math.inf:
        raise ArgumentError(f"signal must be greater than 0, and a pair in order, not {signal!r}")
    if not 0 < threshold <= 1:
        raise ArgumentError(f"threshold must be greater than 0 and at most 1, not {threshold!r}")
    checks.integer("max_batches", max_batches, least=1)
    return low, high


def _take(batches: Any, count: int) -> list[Any]:
    if isinstance(batches, (Tensor, Mapping)):
        return [batches]
    if not isinstance(batches, Iterable):
        raise ArgumentTypeError(f"batches must be a tensor, a dict or an iterable of batches, not {batches!r}")
    chosen = list(islice(batches, count))
    if not chosen:
        raise ArgumentError("batches is empty; a few hundred samples are enough")
    for batch in chosen:
        if not isinstance(batch, (Tensor, Mapping, tuple, list)) or (isinstance(batch, (tuple, list)) and not batch):
            raise ArgumentTypeError(
                "a batch must be a tensor, a dict of keyword arguments, or a tuple or list that begins with the "
                f"input, not {batch!r}"
            )
    return chosen


def _samples(batch: Any) -> int:
    """Return the number of samples: the length of the batch's first tensor."""
    parts = (
        list(batch.values()) if isinstance(batch, Mapping) else batch if isinstance(batch, (tuple, list)) else [batch]
    )
    return next((len(part) for part in parts if isinstance(part, Tensor) and part.ndim), 0)


def _arrived(probe: "Probe", names: Mapping[AgileModule, str]) -> float:
    """Return the share of the signal in front of the first module that there is behind the last one."""
    order = list(probe.signals)
    first, last = probe.sizes(order[0])[0], probe.sizes(order[-1])[1]
    if first == 0.0:
        raise ArgumentError(
            f"all samples are alike at the first activation, {names[order[0]]!r}; give batches of different samples"
        )
    return last / first


def _why_not(module: AgileModule, name: str, filter_fn: Callable[[AgileModule, str], bool] | None) -> str:
    """Return why a module is not to be calibrated; empty if it is."""
    if filter_fn is not None and not filter_fn(module, name):
        return "filter_fn says so"
    own = [module._parameters.get(which) for which in ("scale", "location")]
    if any(parameter is None for parameter in own):
        return "its scale or location is parametrised or pruned"
    if not all(parameter.requires_grad for parameter in own if parameter is not None):
        return "its scale or location is frozen"
    return ""


def _calibrate_site(
    site: CalibratedSite,
    module: AgileModule,
    inputs: list[Tensor],
    low: float,
    high: float,
    location: Location,
    scale: Scale,
) -> CalibratedSite:
    """Set scale and location of one module; return its site with what was done."""
    size = size_of(_output_deviations(module, inputs))
    if low <= size <= high:
        return replace(site, reason=f"its output has size {size:.2g}, within range")
    if location == "auto":
        location = "mean" if all(map(math.isfinite, module.facts.bounds)) else "keep"
    shift = torch.zeros(1, dtype=torch.float64)
    if location != "keep":
        # The terms of a sum keep their distances.
        by_term = module.location.view(module.terms, -1)
        shift = _centre(module, inputs, location) - by_term[0].double().cpu()
        by_term += shift.to(by_term)
    deviations = _output_deviations(module, inputs)
    size = size_of(deviations)
    moved = replace(site, status="kept" if location == "keep" else "calibrated", shift=size_of(shift))
    if scale == "keep":
        return replace(moved, status="calibrated", reason=f"location at the {location}")
    if size == 0.0:
        return replace(moved, reason="its output does not differ between samples")
    if scale == "layer":
        deviations = torch.full_like(deviations, size)
    # A unit whose output is constant stays as it is: no factor brings it to size.
    factor = torch.where(deviations > 0, deviations.clamp(low, high) / deviations, 1.0)
    by_term = module.scale.view(module.terms, -1)
    by_term *= factor.to(by_term)
    reason = f"its output had size {size:.2g}" + ("" if location == "keep" else f", location at the {location}")
    return replace(moved, status="calibrated", reason=reason, factor=float(factor.mean()))


def _output_deviations(module: AgileModule, inputs: list[Tensor]) -> Tensor:
    outputs = (type(module).forward(module, x) for x in inputs)
    return unit_deviations(module, [y[0] if isinstance(y, tuple) else y for y in outputs])


def _centre(module: AgileModule, inputs: list[Tensor], centre: str) -> Tensor:
    """Return the mean or the median of each unit's inputs, in float64 on the CPU."""
    rows = [as_rows(x, *units_of(module, x)) for x in inputs]
    if centre == "median":
        return torch.cat(rows, dim=1).double().quantile(0.5, dim=1).cpu()
    total = sum((row.sum(dim=1, dtype=torch.float64).cpu() for row in rows), torch.zeros((), dtype=torch.float64))
    return total / sum(row.shape[1] for row in rows)


def feed(model: nn.Module, batch: Any) -> None:
    """Run a model on a batch: a tensor, a tuple or list of which the first part is the input, or keyword arguments."""
    if isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, (tuple, list)):
        model(batch[0])
    else:
        model(batch)


def unit_deviations(module: AgileModule, values: Sequence[Tensor]) -> Tensor:
    r"""Return the standard deviation of each unit over samples, in float64.

    It is taken at each position by itself: because what differs only from one position to another (a border, a
    position code) says nothing of the sample, and pooled over positions and batches:
    :math:`s^2 = \sum (x - \bar x)^2 / \sum (N - 1)`, with the mean :math:`\bar x` of each position in its batch.
    """
    squares, freedom = torch.zeros((), dtype=torch.float64), 0
    for value in values:
        start, stop = units_of(module, value)
        centred = value.double()
        centred = centred - centred.mean(dim=0, keepdim=True)
        part = as_rows(centred.square(), start, stop).sum(dim=1).cpu()
        squares = squares + part
        freedom += (value.shape[0] - 1) * (value.numel() // value.shape[0] // max(1, len(part)))
    return (squares / freedom).sqrt()


def size_of(deviations: Tensor) -> float:
    """Return the size of a layer's signal: the root mean square of its units' deviations."""
    return float(deviations.square().mean().sqrt())


class Probe:
    """Listens to agile modules while a model runs, and keeps their inputs, or only what these and outputs amount to."""

    def __init__(self, names: Mapping[AgileModule, str], *, keep: bool) -> None:
        self.names = names
        self.keep = keep
        self.inputs: dict[AgileModule, list[Tensor]] = {}
        self.signals: dict[AgileModule, list[tuple[Tensor, Tensor, float]]] = {}
        self.calls: dict[AgileModule, int] = {}

    def run(self, model: nn.Module, batches: Sequence[Any]) -> None:
        """Run a model on all batches."""
        handles = [module.register_forward_hook(self._hook) for module in self.names]
        try:
            for batch in batches:
                feed(model, batch)
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        if module not in self.names:  # a module inside that shares the hooks of the one around it
            return
        x, y = args[0], output[0] if isinstance(output, tuple) else output
        name = self.names[module]
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(f"layer {name!r} got no tensor, but {type(x).__name__}")
        start, stop = units_of(module, x)
        if x.ndim == 0 or (start == 0 and stop > start):
            raise ArgumentError(
                f"layer {name!r} got an input of shape {tuple(x.shape)} whose first axis is not one of samples; "
                "calibration needs batches of samples"
            )
        if x.shape[0] < 2:
            raise ArgumentError(
                f"layer {name!r} got {x.shape[0]} sample(s): what differs from sample to sample shows only in batches "
                "of at least 2"
            )
        for what, value in (("gets", x), ("gives", y)):
            if not value.isfinite().all():
                raise ArgumentError(
                    f"layer {name!r} {what} values that are not finite; look at the data and at the weights before it"
                )
        self.calls[module] = self.calls.get(module, 0) + 1
        if self.keep:
            self.inputs.setdefault(module, []).append(x.detach())
            return
        dof = float((x.shape[0] - 1) * (x.numel() // x.shape[0]))
        sizes = tuple(unit_deviations(module, [value]).square().mean() for value in (x, y))
        self.signals.setdefault(module, []).append((*sizes, dof))  # type: ignore[arg-type]

    def sizes(self, module: AgileModule) -> tuple[float, float]:
        """Return the size of the signal in front of a module and behind it, over all its calls."""
        parts = self.signals[module]
        total = sum(dof for _, _, dof in parts)
        front, behind = (float(sum(part[side] * part[2] for part in parts) / total) ** 0.5 for side in (0, 1))
        return front, behind
