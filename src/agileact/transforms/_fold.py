"""Turn a model with agile activations into a plain one that computes the same."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from agileact._errors import ArgumentError, ArgumentTypeError, FoldError
from agileact.nn import AgileModule
from agileact.transforms._apply import write
from agileact.transforms._gauge import Numbers
from agileact.transforms._labels import Activation
from agileact.transforms._parity import PROVEN, TOLERANCES, difference, precision, wide
from agileact.transforms._record import record
from agileact.transforms._recording import Arguments, Recording
from agileact.transforms._report import FoldedSite, FoldReport
from agileact.transforms._residual import residual_module, unseen_module
from agileact.transforms._revert import copied, original_module, restore_site
from agileact.transforms._rules import constraints
from agileact.transforms._shift import Blocked, Shifts, Target
from agileact.transforms._solve import Solution, residual_factor, solve


def fold(
    model: nn.Module, example_inputs: Arguments | None = None, *, tolerance: float | None = None
) -> tuple[nn.Module, FoldReport]:
    r"""Return a plain model with the outputs of a model with agile activations :math:`a f(x - b)`.

    The location b moves into a bias before the activation (of a linear or convolutional layer or a normalisation; one
    is created where there is none). The scale a moves into the weights behind it, through everything that commutes with
    it (pooling, reshaping, padding, dropout, sums whose parts agree, gates), or, if f is positively homogeneous,
    also into the weights before it. What cannot be moved stays as a multiplication or a subtraction of plain PyTorch,
    and is reported with the reason.

    Weights are computed in float64 and rounded once. Before it is returned, the model is compared with the
    agile one on the example: in evaluation mode, and in training mode with the same random numbers.

    Args:
        model: The model; it is not changed. Its training mode, hooks, buffers and ``requires_grad`` are kept.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments, on which the model is run. What
            it computes must not depend on the example by Python's control flow, or only that path is right.
        tolerance: How far outputs may be apart, relative to the largest number of the output. By default 1e-5 in
            float32, 1e-10 in float64, 1e-2 in float16 and 8e-2 in bfloat16; a larger difference is then accepted
            only where the same fold in float64 shows that it is rounding.

    Returns:
        The plain model, and a report: ``.sites`` with ``name``, ``base``, ``status`` ("folded", "partly folded" or
        "refused") and ``reason``; ``.folded``, ``.refused``, ``.same_architecture``; it prints as a table.

    Raises:
        ArgumentError: If there are agile activations but no example.
        ArgumentTypeError: If an argument has the wrong type.
        FoldError: If the outputs differ.

    Example:
        >>> import torch, agileact as ag
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), ag.AgileGELU(8), torch.nn.Linear(8, 2)).eval()
        >>> with torch.no_grad():
        ...     _ = model[1].scale.uniform_(0.5, 1.5), model[1].location.normal_()
        >>> x = torch.randn(3, 4)
        >>> plain, report = ag.fold(model, x)
        >>> plain
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): GELU(approximate='none')
          (2): Linear(in_features=8, out_features=2, bias=True)
        )
        >>> torch.allclose(plain(x), model(x), atol=1e-6), report.same_architecture
        (True, True)
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if tolerance is not None and (isinstance(tolerance, bool) or not isinstance(tolerance, (int, float))):
        raise ArgumentTypeError(f"tolerance must be a number, not {tolerance!r}")
    if tolerance is not None and not tolerance >= 0:
        raise ArgumentError(f"tolerance must be at least 0, not {tolerance!r}")
    plain: nn.Module = copied(model)
    if not any(True for _ in _agile(plain)):
        return plain, FoldReport()
    if example_inputs is None:
        raise ArgumentError(
            "fold needs example_inputs: it runs the model on them to see where each scale and location can go; pass a "
            "tensor, a tuple of positional or a dict of keyword arguments"
        )
    agile: nn.Module = copied(model)
    plain, sites = _folded(plain, example_inputs)
    return plain, _checked(agile, plain, example_inputs, sites, tolerance)


def _agile(model: nn.Module) -> Iterator[tuple[str, AgileModule]]:
    for name, module in model.named_modules():
        if isinstance(module, AgileModule):
            yield name, module


def is_agile(module: nn.Module) -> bool:
    """Return whether a module is an agile activation."""
    return isinstance(module, AgileModule)


def scale_of(module: AgileModule) -> Numbers:
    """Return the scale of a module as float64 numbers."""
    values: Numbers = module.scale.detach().to("cpu", torch.float64).reshape(-1).numpy()
    return values


def move_locations(
    model: nn.Module, recording: Recording, sites: dict[str, Activation], locations: dict[str, Tensor]
) -> tuple[dict[str, list[Target]], dict[str, str]]:
    """Return the biases that take up each location, and why others stay.

    Args:
        model: The model.
        recording: Its recording.
        sites: The agile modules.
        locations: The location of each, flat and in float64.
    """
    shifts = Shifts(model, recording)
    targets: dict[str, list[Target]] = {}
    stays: dict[str, str] = {}
    for name, site in sites.items():
        location = locations[name]
        if not bool(location.any()):
            targets[name] = []
            continue
        try:
            if site.blocked:
                raise Blocked(site.blocked)
            if not bool(torch.isfinite(location).all()):
                raise Blocked("its location is not finite")
            found: list[Target] = []
            for use in site.uses:
                shift = -location[torch.from_numpy(use.index)].reshape(use.shape)
                found += shifts.absorb(use.call.inputs[0], shift, use.call)
            targets[name] = found
        except Blocked as blocked:
            stays[name] = str(blocked)
    return targets, stays


def _folded(model: nn.Module, example_inputs: Arguments) -> tuple[nn.Module, list[FoldedSite]]:
    """Fold a model of its own in place; return it, or what stands in its place if it is itself agile."""
    recording = record(model, example_inputs, leaf=is_agile)
    found = constraints(model, recording)
    modules = dict(_agile(model))
    scales = {name: scale_of(site.module) for name, site in found.sites.items()}
    solution = solve(found, scales)
    locations = {
        name: site.module.location.detach().to("cpu", torch.float64).reshape(-1) for name, site in found.sites.items()
    }
    targets, stays = move_locations(model, recording, found.sites, locations)
    if modules:
        like = next(iter(modules.values())).location
        write(model, found.maps, solution.gauges, [one for some in targets.values() for one in some], like)
    sites = []
    replacements: dict[str, nn.Module | None] = {}
    for name, module in modules.items():
        site = found.sites.get(name)
        if site is None:
            replacements[name] = unseen_module(module)
            kept = replacements[name] is not None
            status, reason = ("refused" if kept else "folded"), "it did not run on the example"
            sites.append(FoldedSite(name, module.base, status, reason, kept=("location", "scale") * kept))
            continue
        replacements[name], described = _settled(site, solution, targets, stays, locations[name], scales[name])
        sites.append(described)
    order = list(found.sites)
    sites.sort(key=lambda one: order.index(one.name) if one.name in order else len(order))
    for name, replacement in replacements.items():
        if name:
            restore_site(model, name, replacement)
        else:
            model = replacement or original_module(modules[name])
    return model, sites


def _settled(
    site: Activation,
    solution: Solution,
    targets: dict[str, list[Target]],
    stays: dict[str, str],
    location: Tensor,
    scale: Numbers,
) -> tuple[nn.Module | None, FoldedSite]:
    """Return what is left of a site, None if nothing is, and its line in the report."""
    name, module = site.name, site.module
    use = site.uses[0]
    reasons = []
    kept = []
    b: list[Tensor | None] = [None] * module.terms
    a: list[Tensor | None] = [None] * module.terms
    if module.terms > 1:
        parts = torch.from_numpy(scale).view(module.terms, -1), location.view(module.terms, -1)
        index = torch.from_numpy(use.index).reshape(use.shape)
        a, b = ([_small(part[index]) for part in one] for one in parts)
        kept, reasons = ["location", "scale"], [site.blocked]
    else:
        if name in stays:
            index = torch.from_numpy(use.index)
            moved = location[index] / torch.from_numpy(solution.gauges[use.inputs])
            b[0] = _small(moved.reshape(use.shape))
            kept.append("location")
            reasons.append(f"location stays: {stays[name]}")
        if name in solution.reasons:
            factor = torch.from_numpy(residual_factor(use, scale, solution.gauges)).reshape(use.shape)
            if bool((factor != 1).any()):
                a[0] = _small(factor)
                kept.append("scale")
                reasons.append(f"scale stays: {solution.reasons[name]}")
    located = targets.get(name, [])
    if not kept:
        status = "folded"
    elif len(kept) == 2 or (not located and not (scale != 1).any()) or ("scale" in kept and not location.any()):
        status = "refused"
    else:
        status = "partly folded"
    went: list[str] = []
    if "scale" not in kept and (scale != 1).any():
        went = solution.forward[name] or (solution.backward[name] if site.homogeneous else [])
    replacement = None
    if kept or site.blocked.startswith("a hook"):
        replacement = residual_module(module, b, a)
    return replacement, FoldedSite(
        name,
        module.base,
        status,
        "; ".join(dict.fromkeys(reasons)),
        tuple(dict.fromkeys(target.name for target in located)),
        tuple(dict.fromkeys(went)),
        tuple(dict.fromkeys(target.name for target in located if target.created)),
        tuple(kept),
    )


def _small(values: Tensor) -> Tensor:
    """Return values without the axes in front that broadcasting adds."""
    while values.ndim and values.shape[0] == 1:
        values = values[0]
    return values


def _checked(
    agile: nn.Module, plain: nn.Module, example_inputs: Arguments, sites: list[FoldedSite], tolerance: float | None
) -> FoldReport:
    """Compare the models; return the report, or raise."""
    allowed = TOLERANCES[precision(agile)] if tolerance is None else tolerance
    notes = []
    measured = []
    for training in (False, True):
        found = difference(agile, plain, example_inputs, training=training)
        measured.append(found)
        if found is None or found.relative <= allowed:
            continue
        mode = "training" if training else "evaluation"
        exact = _in_float64(agile, example_inputs, training=training)
        message = f"in {mode} mode the outputs differ by {found.relative:.1e} of their size, more than {allowed:.1e}"
        if exact is None or not exact <= PROVEN:
            raise FoldError(
                f"the folded model is not the agile one: {message}. If the model's path depends on its input or on its "
                "mode, fold the part that does not. Sites: " + ", ".join(site.name or "the model" for site in sites)
            )
        if tolerance is not None and not training:
            raise FoldError(f"{message}; in float64 they differ by {exact:.1e}, so this is rounding: allow more")
        notes.append(f"{message}; in float64 they differ by {exact:.1e}: it is rounding")
    evaluation, training_ = measured
    assert evaluation is not None
    return FoldReport(
        tuple(sites),
        evaluation.absolute,
        evaluation.relative,
        None if training_ is None else training_.relative,
        "\n".join(notes),
    )


def _in_float64(model: nn.Module, example_inputs: Arguments, *, training: bool) -> float | None:
    """Return how far the fold of the model in float64 is from it; None if it does not run in float64."""
    try:
        agile = copied(model).double()
        example = wide(example_inputs)
        plain, _ = _folded(copied(agile), example)
        found = difference(agile, plain, example, training=training)
    except (RuntimeError, TypeError, ValueError):
        return None
    return None if found is None else found.relative

