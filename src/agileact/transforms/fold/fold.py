"""Turn a model with agile activations into a plain one that computes the same."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from agileact._common import checks
from agileact._common.errors import ArgumentError, ArgumentTypeError, FoldError
from agileact.nn import AgileModule
from agileact.nn.rows import directions, release
from agileact.transforms.edit.gains import inner_name, joined, outer_name, put_together, siblings, taken_apart
from agileact.transforms.edit.revert import copied, origin_of, original_module, restore_site
from agileact.transforms.fold.analysis import Analysis, again, analysed
from agileact.transforms.fold.architecture import switches
from agileact.transforms.fold.gauge import Numbers
from agileact.transforms.fold.labels import Activation
from agileact.transforms.fold.leftovers import (
    Pair,
    changes,
    not_writable,
    put_pair,
    remaining_pair,
    remains,
    residual_module,
    unseen_module,
)
from agileact.transforms.fold.locations import Target
from agileact.transforms.fold.solve import Solution, residual_factor, solve
from agileact.transforms.fold.verify import PROVEN, TOLERANCES, Gap, compared, disturbed, largest, precision, wide
from agileact.transforms.fold.write import write
from agileact.transforms.report import FoldedSite, FoldReport, few
from agileact.transforms.trace.forward_runs import needs_values, outcome
from agileact.transforms.trace.recording import Examples, Outcome, examples

Architecture = Literal["extend", "keep"]


def fold(
    model: nn.Module,
    example_inputs: Examples | None = None,
    *,
    tolerance: float | None = None,
    architecture: Architecture = "extend",
    training: bool = True,
) -> tuple[nn.Module, FoldReport]:
    r"""Return a plain model with the outputs of a model with agile activations :math:`a f(x - b)`.

    The location b moves into a bias before the activation (of a linear or convolutional layer or a normalisation; one
    is created where there is none). The scale a moves into the weights behind it, through everything that commutes with
    it (pooling, reshaping, padding, dropout, sums whose parts agree, gates). If f is positively homogeneous, it may
    also move into the weights before it. What cannot be moved stays as a multiplication or a subtraction of plain
    PyTorch, and is reported with the reason.

    Nothing of this package is left in the model, with one exception: where a scale or location stays at a call of a
    function that :func:`agileact.convert` rewrote, the module keeps that rewritten method. Its state, and what
    ``torch.export`` and ONNX make of it, need nothing of this package then either, but a pickle of the model does.

    Weights are computed in float64 and rounded once. Before it is returned, the model is compared with the
    agile one on the example: in evaluation mode, and in training mode with the same random numbers. Each output is
    compared by its own size, each running statistic by the deviation beside it, and each tensor that the model keeps
    in an attribute, too.

    Args:
        model: The model; it is not changed. Its training mode, hooks, buffers and ``requires_grad`` are kept.
        example_inputs: A tensor, a tuple of positional or a dict of keyword arguments, on which the model is run. What
            it computes must not depend on the example by Python's control flow, or only that path is right. A list has
            several of these; in it, a pair ("encode", example) calls ``model.encode``. The plain model is right for
            every call that is in the list.
        tolerance: How far outputs may be apart, relative to the largest number of the output. By default 1e-5 in
            float32, 1e-10 in float64, 1e-2 in float16 and 8e-2 in bfloat16; a larger difference is then accepted
            only where the same fold in float64 shows that it is rounding.
        architecture: "extend" creates biases and leaves multiplications and subtractions. "keep" folds only what
            leaves the architecture as it was without agile activations. An activation of which a part cannot be folded
            so stays agile with that part alone, and with the reason.
        training: Whether the plain model must be right in training mode, too. False folds for evaluation alone: what
            only training does may come out differently then, and the report says so.

    Returns:
        The plain model, and a report: ``.sites`` with ``name``, ``base``, ``status`` ("folded", "partly folded" or
        "refused") and ``reason``; ``.folded``, ``.refused``, ``.same_architecture``, ``.new_parameters``; it prints as
        a table, whose first line says whether the state fits the original class.

    Raises:
        ArgumentError: If there are agile activations but no example, or the model has no values yet (device "meta").
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
    checks.model(model)
    if tolerance is not None and not checks.number("tolerance", tolerance) >= 0:
        raise ArgumentError(f"tolerance must be at least 0, not {tolerance!r}")
    if architecture not in ("extend", "keep"):
        raise ArgumentError(f"architecture must be 'extend' or 'keep', not {architecture!r}")
    if not isinstance(training, bool):
        raise ArgumentTypeError(f"training must be True or False, not {training!r}")
    if not _agile(model):
        return copied(model), FoldReport()
    if example_inputs is None:
        raise ArgumentError(
            "fold needs example_inputs: it runs the model on them to see where each scale and location can go; pass a "
            "tensor, a tuple of positional or a dict of keyword arguments, or a list of these"
        )
    needs_values(model, "fold")
    agile: nn.Module = copied(model)
    for layer in directions(agile).values():
        release(layer)  # to the plain model a row is a row, and the layer has the bias again that it had
    if any(is_lazy(parameter) for parameter in agile.parameters()):
        # A run makes what is still open, the same for both models.
        for method, example in examples(example_inputs):
            outcome(agile, example, method=method)
    folded = _folded(agile, example_inputs, architecture, training)
    notes = [] if training else ["folded for evaluation alone: in training mode it may compute something else"]
    if folded.analysis.idle:
        notes.append(f"in training mode it does not run on the example and was not compared ({folded.analysis.idle})")
    report = _checked(agile, folded, example_inputs, tolerance, architecture, training)
    notes += [report.note, *switches(agile, folded.missing)]
    return folded.plain, replace(report, note="\n".join(filter(None, notes)))


@dataclass(frozen=True)
class _Folded:
    """A plain model, what became of each site, what the runs have shown, and the biases that its class has not."""

    plain: nn.Module
    sites: list[FoldedSite]
    analysis: Analysis
    missing: list[str]


def _agile(model: nn.Module) -> dict[str, AgileModule]:
    return {name: module for name, module in model.named_modules() if isinstance(module, AgileModule)}


def _numbers(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float64).reshape(-1)


def _folded(agile: nn.Module, example_inputs: Examples, architecture: str, training: bool) -> _Folded:
    """Record a model and fold a copy of it."""
    keep = architecture == "keep"
    plain = taken_apart(copied(agile))
    analysis = analysed(taken_apart(copied(agile)), example_inputs, training=training)
    modules, sites = _agile(plain), analysis.sites
    # Of the model that ran: a scale that is pruned or parametrised is computed in the run.
    scales = {name: _numbers(site.module.scale).numpy() for name, site in sites.items()}
    locations = {name: _numbers(site.module.location) for name, site in sites.items()}
    targets, stays = analysis.locations(locations)
    missing = {name: made for name, some in targets.items() if (made := [one.name for one in some if one.created])}
    for name, made in missing.items() if keep else ():
        del targets[name]
        stays[name] = f"it needs a bias that the architecture has not: {few(made)}"
    fixed = not_writable(agile) if keep else set()
    frozen: dict[str, str] = {}
    left: dict[str, Pair] = {}  # in agile modules
    while True:
        solution = solve(analysis.found, scales, frozen)
        stuck = {}
        for name, site in sites.items() if keep else ():
            before = scales[name], locations[name].numpy()
            pair = before if name in frozen else remaining_pair(site, solution, name in stays, *before)
            if pair is None or (name in fixed and changes(pair, before) and remains(pair)):
                stuck[name] = solution.reasons.get(name) or stays.get(name, "")
            else:
                left[name] = pair
        if not stuck:
            break
        # Each that stays whole may keep others from folding; of an activation with a gain both parts stay.
        frozen |= stuck | {other: why for name, why in stuck.items() for other in siblings(name, sites)}
    like = next(iter(modules.values())).location
    moved = [one for name, some in targets.items() if name not in frozen for one in some]
    write(plain, analysis.found.maps, solution.gauges, moved, like)
    replacements: dict[str, nn.Module | None] = {}
    described: dict[str, FoldedSite] = {}
    for name, site in sites.items():
        module, pair = modules[name], left.get(name)
        if name in frozen:
            described[name] = _whole(name, module, frozen[name])
            continue
        agile_stays = pair is not None and remains(pair)
        replacement, report = _settled(
            module,
            site,
            solution,
            targets.get(name, []),
            stays.get(name, ""),
            locations[name],
            scales[name],
            agile_stays,
        )
        changed = pair is not None and changes(pair, (scales[name], locations[name].numpy()))
        if pair is not None and changed:
            put_pair(module, pair)
        if not agile_stays:
            replacements[name], described[name] = replacement, report
        elif changed:
            reason, new = _STAYS + report.reason, _new(name, module, module)
            described[name] = replace(report, reason=reason, new_parameters=new)
        else:
            described[name] = _whole(name, module, report.reason)
    for name in modules.keys() - sites.keys():
        module, why = modules[name], "it did not run on the example"
        unseen = unseen_module(module)
        if unseen is not None and keep:
            described[name] = _whole(name, module, why)
            continue
        replacements[name] = unseen
        kept = unseen is not None
        described[name] = FoldedSite(
            name,
            module.base,
            "refused" if kept else "folded",
            why,
            kept=("location", "scale") * kept,
            new_parameters=_new(name, module, unseen),
        )
    plain, gained = put_together(plain)
    for name, whole in gained.items():
        parts = inner_name(name), outer_name(name)
        staying = [part for part in parts if part not in replacements]
        module_left, report = joined(name, whole, [replacements.pop(part, None) for part in parts], described)
        if staying:
            reason = _STAYS + report.reason.replace(_STAYS, "")
            described[name] = replace(report, reason=reason, new_parameters=_new(name, whole, whole))
        else:
            new = report.created + _new(name, whole, module_left)
            replacements[name], described[name] = module_left, replace(report, new_parameters=new)
    modules = _agile(plain)
    for name, replacement in replacements.items():
        if name:
            restore_site(plain, name, replacement)
        else:
            plain = replacement or original_module(modules[name])
    whole_of = {part(name): name for name in gained for part in (inner_name, outer_name)}
    reports = [described[name] for name in dict.fromkeys(whole_of.get(name, name) for name in described)]
    if gained:
        analysis = replace(analysis, runs=[(run, again(agile, run)) for run, _ in analysis.runs])
    return _Folded(plain, reports, analysis, [bias for some in missing.values() for bias in some])


_STAYS = "it stays agile; "


def _whole(name: str, module: AgileModule, why: str) -> FoldedSite:
    """Describe an activation that stays as it is."""
    kept = ("location", "scale", "gain")[: 2 + (getattr(module, "gain", None) is not None)]
    new = _new(name, module, module)
    return FoldedSite(name, module.base, "refused", _STAYS + why, kept=kept, new_parameters=new)


def _new(name: str, module: AgileModule, left: nn.Module | None) -> tuple[str, ...]:
    """Return the names in the state of what is left of a site that the original does not have."""
    origin = origin_of(module)
    before = origin.original.state_dict() if origin is not None and isinstance(origin.original, nn.Module) else {}
    prefix = f"{name}." if name else ""
    return () if left is None else tuple(f"{prefix}{key}" for key in left.state_dict() if key not in before)


def _settled(
    module: AgileModule,
    site: Activation,
    solution: Solution,
    located: list[Target],
    location_stays: str,
    location: Tensor,
    scale: Numbers,
    agile_stays: bool,
) -> tuple[nn.Module | None, FoldedSite]:
    """Return what is left of a site, None if nothing is or if it stays agile, and its line in the report."""
    name, use = site.name, site.uses[0]
    reasons = []
    kept = []
    b: list[Tensor | None] = [None] * module.terms
    a: list[Tensor | None] = [None] * module.terms
    if module.terms > 1:
        parts = torch.from_numpy(scale).view(module.terms, -1), location.view(module.terms, -1)
        index = torch.from_numpy(use.index).reshape(use.shape)
        a[:], b[:] = (map(_small, one[:, index]) for one in parts)
        kept, reasons = ["location", "scale"], [site.blocked]
    else:
        if location_stays:
            index = torch.from_numpy(use.index)
            moved = location[index] / torch.from_numpy(solution.gauges[use.inputs])
            b[0] = _small(moved.reshape(use.shape))
            kept.append("location")
            reasons.append(f"location stays: {location_stays}")
        if name in solution.reasons:
            factor = torch.from_numpy(residual_factor(use, scale, solution.gauges)).reshape(use.shape)
            if bool((factor != 1).any()):
                a[0] = _small(factor)
                kept.append("scale")
                reasons.append(f"scale stays: {solution.reasons[name]}")
    if not kept:
        status = "folded"
    elif len(kept) == 2 or (not located and not (scale != 1).any()) or ("scale" in kept and not location.any()):
        status = "refused"
    else:
        status = "partly folded"
    # Calls with inputs of different numbers of axes share one pair along an axis that is named.
    swap = None
    if len({len(one.shape) for one in site.uses}) > 1 and module.granularity == "channel":
        swap = module.dim if module.dim != -1 else None
        a, b = ([None if one is None else one.flatten() for one in some] for some in (a, b))
    replacement = None
    if (kept or site.blocked.startswith("a hook")) and not agile_stays:
        replacement = residual_module(module, b, a, swap=swap)
    return replacement, FoldedSite(
        name,
        module.base,
        status,
        "; ".join(dict.fromkeys(reasons)),
        tuple(dict.fromkeys(target.name for target in located)),
        () if "scale" in kept else solution.into(name),
        (created := tuple(dict.fromkeys(target.name for target in located if target.created))),
        tuple(kept),
        created + _new(name, module, replacement),
    )


def _small(values: Tensor) -> Tensor:
    """Return values without the axes in front that broadcasting adds."""
    while values.ndim and values.shape[0] == 1:
        values = values[0]
    return values


def _checked(
    agile: nn.Module,
    folded: _Folded,
    example_inputs: Examples,
    tolerance: float | None,
    architecture: str,
    training: bool,
) -> FoldReport:
    """Compare the models; return the report, or raise."""
    allowed = TOLERANCES[precision(agile)] if tolerance is None else tolerance
    notes = []
    measured: dict[bool, Gap] = {}
    for number, (run, expected) in enumerate(folded.analysis.runs):
        mode = run[2]
        gaps = compared(_outside(expected, agile), again(folded.plain, run), buffers=mode)
        found = largest(gaps)
        measured[mode] = largest({"before": measured.get(mode, Gap()), "now": found})
        wrong = {name: gap for name, gap in gaps.items() if not gap.relative <= allowed}
        if not wrong:
            continue
        worst = max(wrong, key=lambda name: wrong[name].relative)
        message = (
            f"in {'training' if mode else 'evaluation'} mode {worst} differs by {wrong[worst].relative:.1e} of its "
            f"size, more than {allowed:.1e}"
        )
        proof = _proof(agile, example_inputs, number, wrong, expected, architecture, training)
        if not proof:
            raise FoldError(
                f"the folded model is not the agile one: {message}, and not by rounding. If what the model does "
                "depends on the values of its input, or on what no recording sees, fold the part that does not"
                + ("; training=False folds for evaluation alone. Sites: " if mode else ". Sites: ")
                + ", ".join(site.name or "(the model itself)" for site in folded.sites)
            )
        if tolerance is not None and not mode:
            raise FoldError(f"{message}; {proof}: allow more, or fold the model in float64")
        notes.append(f"{message}; {proof}")
    evaluation, trained = measured[False], measured.get(True)
    return FoldReport(
        tuple(folded.sites),
        evaluation.absolute,
        evaluation.relative,
        None if trained is None else trained.relative,
        "\n".join(notes),
    )


def _outside(made: Outcome, agile: nn.Module) -> Outcome:
    """Return what a run made but for what agile modules keep themselves, such as the mask of a scale that is pruned."""
    inside = tuple(f"{name}." if name else "" for name in _agile(agile))
    buffers, kept = (
        {name: tensor for name, tensor in some.items() if not name.startswith(inside)}
        for some in (made.buffers, made.kept)
    )
    return Outcome(made.outputs, buffers, kept)


def _proof(
    model: nn.Module,
    example_inputs: Examples,
    number: int,
    wrong: dict[str, Gap],
    expected: Outcome,
    architecture: str,
    training: bool,
) -> str:
    """Return how it is known that differences are rounding: by folding in float64; empty if it is not known of one."""
    try:
        agile = copied(model).double()
        folded = _folded(agile, wide(example_inputs), architecture, training)
        run, exact = folded.analysis.runs[number]
        exact = _outside(exact, agile)
        gaps = compared(exact, again(folded.plain, run), buffers=run[2])
        noise = compared(exact, again(disturbed(agile), run), buffers=run[2])
    except (RuntimeError, TypeError, ValueError, IndexError):
        return ""
    # Each by its own: a quantity that rounding decides says nothing of the others.
    if any(name not in gaps or not gaps[name].relative <= max(PROVEN, 100 * noise[name].relative) for name in wrong):
        return ""
    worst = max(wrong, key=lambda name: gaps[name].relative)
    proof = f"it is rounding: folded in float64 they differ by {gaps[worst].relative:.1e}"
    if gaps[worst].relative > PROVEN:
        proof += f", and a change of all weights in their last bit changes it by {noise[worst].relative:.1e}"
    if not run[2] and precision(model) != torch.float64:
        own = largest(compared(exact, Outcome(wide(expected.outputs)), buffers=False))
        proof += f", and the agile model is itself {own.relative:.1e} from what it gives in float64"
    return proof
