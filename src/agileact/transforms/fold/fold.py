"""Turn a model with agile activations into a plain one that computes the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from agileact._common import checks
from agileact._common.errors import ArgumentError, FoldError
from agileact.nn import AgileModule
from agileact.transforms.edit.revert import copied, original_module, restore_site
from agileact.transforms.fold.analysis import analysed
from agileact.transforms.fold.gauge import Numbers
from agileact.transforms.fold.labels import Activation
from agileact.transforms.fold.leftovers import residual_module, unseen_module
from agileact.transforms.fold.locations import Target
from agileact.transforms.fold.solve import Solution, residual_factor
from agileact.transforms.fold.verify import PROVEN, TOLERANCES, Gap, compared, largest, precision, sensitivity, wide
from agileact.transforms.fold.write import write
from agileact.transforms.report import FoldedSite, FoldReport
from agileact.transforms.trace.forward_runs import needs_values, outcome
from agileact.transforms.trace.recording import Arguments, Outcome


def fold(
    model: nn.Module, example_inputs: Arguments | None = None, *, tolerance: float | None = None
) -> tuple[nn.Module, FoldReport]:
    r"""Return a plain model with the outputs of a model with agile activations :math:`a f(x - b)`.

    The location b moves into a bias before the activation (of a linear or convolutional layer or a normalisation; one
    is created where there is none). The scale a moves into the weights behind it, through everything that commutes with
    it (pooling, reshaping, padding, dropout, sums whose parts agree, gates), or, if f is positively homogeneous,
    also into the weights before it. What cannot be moved stays as a multiplication or a subtraction of plain PyTorch,
    and is reported with the reason.

    Nothing of this package is left in the model, with one exception: where a scale or location stays at a call of a
    function that :func:`agileact.convert` rewrote, the module keeps that rewritten method. Its state, and what
    ``torch.export`` and ONNX make of it, need nothing of this package then either, but a pickle of the model does.

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
    if not _agile(model):
        return copied(model), FoldReport()
    if example_inputs is None:
        raise ArgumentError(
            "fold needs example_inputs: it runs the model on them to see where each scale and location can go; pass a "
            "tensor, a tuple of positional or a dict of keyword arguments"
        )
    needs_values(model, "fold")
    agile: nn.Module = copied(model)
    if any(is_lazy(parameter) for parameter in agile.parameters()):
        # A run makes what is still open, the same for both models.
        outcome(agile, example_inputs)
    plain, sites, evaluation = _folded(agile, example_inputs)
    return plain, _checked(agile, plain, example_inputs, sites, evaluation, tolerance)


def _agile(model: nn.Module) -> dict[str, AgileModule]:
    return {name: module for name, module in model.named_modules() if isinstance(module, AgileModule)}


def _numbers(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float64).reshape(-1)


def _folded(agile: nn.Module, example_inputs: Arguments) -> tuple[nn.Module, list[FoldedSite], Outcome]:
    """Record a model; return a plain copy, what became of each site, and what the run made."""
    plain = copied(agile)
    analysis = analysed(agile, example_inputs)
    modules = _agile(plain)
    scales = {name: _numbers(modules[name].scale).numpy() for name in analysis.sites}
    locations = {name: _numbers(modules[name].location) for name in analysis.sites}
    solution = analysis.scales(scales)
    targets, stays = analysis.locations(locations)
    like = next(iter(modules.values())).location
    write(plain, analysis.found.maps, solution.gauges, [one for some in targets.values() for one in some], like)
    replacements: dict[str, nn.Module | None] = {}
    described: dict[str, FoldedSite] = {}
    for name, site in analysis.sites.items():
        replacements[name], described[name] = _settled(
            modules[name], site, solution, targets.get(name, []), stays.get(name, ""), locations[name], scales[name]
        )
    for name in modules.keys() - analysis.sites.keys():
        replacements[name] = unseen_module(modules[name])
        kept = replacements[name] is not None
        status, reason = ("refused" if kept else "folded"), "it did not run on the example"
        described[name] = FoldedSite(name, modules[name].base, status, reason, kept=("location", "scale") * kept)
    for name, module in modules.items():
        if name:
            restore_site(plain, name, replacements[name])
        else:
            plain = replacements[name] or original_module(module)
    return plain, list(described.values()), analysis.recording.outcome


def _settled(
    module: AgileModule,
    site: Activation,
    solution: Solution,
    located: list[Target],
    location_stays: str,
    location: Tensor,
    scale: Numbers,
) -> tuple[nn.Module | None, FoldedSite]:
    """Return what is left of a site, None if nothing is, and its line in the report."""
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
    went: list[str] = []
    if "scale" not in kept and (scale != 1).any():
        went = solution.forward[name] or (solution.backward[name] if site.homogeneous else [])
    # Calls with inputs of different numbers of axes share one pair along an axis that is named.
    swap = None
    if len({len(one.shape) for one in site.uses}) > 1 and module.granularity == "channel":
        swap = module.dim if module.dim != -1 else None
        a, b = ([None if one is None else one.flatten() for one in some] for some in (a, b))
    replacement = None
    if kept or site.blocked.startswith("a hook"):
        replacement = residual_module(module, b, a, swap=swap)
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
    agile: nn.Module,
    plain: nn.Module,
    example_inputs: Arguments,
    sites: list[FoldedSite],
    evaluation: Outcome,
    tolerance: float | None,
) -> FoldReport:
    """Compare the models; return the report, or raise."""
    allowed = TOLERANCES[precision(agile)] if tolerance is None else tolerance
    notes = []
    measured: list[Gap | None] = []
    for training in (False, True):
        expected = _trained(agile, example_inputs) if training else evaluation
        if expected is None:
            measured.append(None)
            continue
        gaps = compared(expected, outcome(plain, example_inputs, training=training), buffers=training)
        measured.append(largest(gaps))
        wrong = {name: gap for name, gap in gaps.items() if not gap.relative <= allowed}
        if not wrong:
            continue
        worst = max(wrong, key=lambda name: wrong[name].relative)
        message = (
            f"in {'training' if training else 'evaluation'} mode {worst} differs by {wrong[worst].relative:.1e} of its "
            f"size, more than {allowed:.1e}"
        )
        proof = _proof(agile, example_inputs, wrong, expected, training=training)
        if not proof:
            raise FoldError(
                f"the folded model is not the agile one: {message}, and not by rounding. If what the model does "
                "depends on its mode or on the values of its input, fold the part that does not. Sites: "
                + ", ".join(site.name or "(the model itself)" for site in sites)
            )
        if tolerance is not None and not training:
            raise FoldError(f"{message}; {proof}: allow more, or fold the model in float64")
        notes.append(f"{message}; {proof}")
    found, trained = measured
    assert found is not None
    return FoldReport(
        tuple(sites), found.absolute, found.relative, None if trained is None else trained.relative, "\n".join(notes)
    )


def _trained(agile: nn.Module, example_inputs: Arguments) -> Outcome | None:
    """Return what a model makes in training; None if it cannot run, as batch normalisation of a single number."""
    try:
        return outcome(agile, example_inputs, training=True)
    except (ValueError, RuntimeError):
        return None


def _proof(
    model: nn.Module, example_inputs: Arguments, wrong: dict[str, Gap], expected: Outcome, *, training: bool
) -> str:
    """Return how it is known that differences are rounding: by folding in float64; empty if it is not known of one."""
    try:
        agile = copied(model).double()
        example = wide(example_inputs)
        plain, _, exact = _folded(agile, example)
        if training:
            exact = outcome(agile, example, training=True)
        gaps = compared(exact, outcome(plain, example, training=training), buffers=training)
        noise = sensitivity(agile, example, training=training)
    except (RuntimeError, TypeError, ValueError):
        return ""
    # Each by its own: a quantity that rounding decides says nothing of the others.
    if any(not gaps[name].relative <= max(PROVEN, 100 * noise[name].relative) for name in wrong if name in gaps):
        return ""
    if not wrong.keys() <= gaps.keys():
        return ""
    worst = max(wrong, key=lambda name: gaps[name].relative)
    proof = f"it is rounding: folded in float64 they differ by {gaps[worst].relative:.1e}"
    if gaps[worst].relative > PROVEN:
        proof += f", and a change of all weights in their last bit changes it by {noise[worst].relative:.1e}"
    if not training and precision(model) != torch.float64:
        own = largest(compared(exact, Outcome(wide(expected.outputs), {}), buffers=False))
        proof += f", and the agile model is itself {own.relative:.1e} from what it gives in float64"
    return proof
