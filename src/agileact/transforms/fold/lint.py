"""Say which scales and locations add to what a model can compute, and which only write it in another way."""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from agileact._common import checks
from agileact._common.errors import ArgumentError
from agileact._common.terminal import format_table
from agileact.nn.rows import held, held_at
from agileact.transforms.edit.gains import Apart, inner_name, outer_name, taken_apart
from agileact.transforms.edit.revert import copied
from agileact.transforms.fold.analysis import analysed
from agileact.transforms.fold.gauge import Numbers
from agileact.transforms.fold.labels import Activation, is_agile
from agileact.transforms.fold.locations import Target
from agileact.transforms.fold.solve import Solution, solve
from agileact.transforms.report import Site, few
from agileact.transforms.trace.recording import Examples

ADDS = "adds capacity"
REPARAMETRISES = "only reparametrises"
SIGN = "only its sign adds capacity"

_NOTE = (
    "What only reparametrises changes nothing that the model can compute: other weights could do the same, and fold "
    "moves it there.\nWhat it changes is training: a product of two parameters takes other steps than one (larger ones "
    "where the other is large), a weight\nthat is shared by all inputs of a channel moves them together, and weight "
    "decay acts on each separately."
)


@dataclass(frozen=True)
class LintedSite(Site):
    """A site in the report of :func:`agileact.lint`.

    Attributes:
        status: "redundant", "partly redundant" or "adds capacity".
        scale: "adds capacity", "only reparametrises" or "only its sign adds capacity", and the same for ``location``.
        scale_why: Why.
        location: As ``scale``.
        location_why: Why.
        gain: As ``scale``; empty if the activation has no gain.
        gain_why: Why.
    """

    scale: str = ADDS
    scale_why: str = ""
    location: str = ADDS
    location_why: str = ""
    gain: str = ""
    gain_why: str = ""


@dataclass(frozen=True)
class LintReport:
    """Which scales and locations of a model add capacity; prints as a table.

    Attributes:
        sites: All agile modules that ran, in the order in which they run.
        note: What holds for all of them.
    """

    sites: Sequence[LintedSite] = field(default_factory=list)
    note: str = _NOTE

    @property
    def redundant(self) -> list[LintedSite]:
        """The sites where none of scale, location and gain adds capacity."""
        return [site for site in self.sites if site.status == "redundant"]

    def __str__(self) -> str:
        head = f"{len(self.redundant)} of {len(self.sites)} activations add nothing to what the model can compute"
        rows = []
        for site in self.sites:
            name = site.name or "(the model itself)"
            rows += [
                (name, site.base, "scale a", site.scale, site.scale_why),
                ("", "", "location b", site.location, site.location_why),
            ]
            rows += [("", "", "gain g", site.gain, site.gain_why)] * bool(site.gain)
        table = format_table(("name", "base", "parameter", "verdict", "why"), rows)
        return "\n".join([head, table, self.note] if self.sites else [head])


def lint(model: nn.Module, example_inputs: Examples) -> LintReport:
    """Say for each agile activation whether scale and location add to what the model can compute.

    The same analysis as that of :func:`agileact.fold`, for scales and locations in general rather than those that the
    model has: a bias or the bias of a normalisation before an activation makes its location redundant; a linear
    layer behind it its scale; for a positively homogeneous f (ReLU) a linear layer before it a positive scale; a batch
    normalisation behind it divides the size of the scale out in training. Rows that
    :func:`agileact.standardize_weights` holds at length 1 cannot do the same.

    Several parameters that are redundant only one by one are not all called so: of scales that meet in a sum
    without a weight to take them up, the first is redundant and the others add capacity.

    Args:
        model: The model; it is not changed.
        example_inputs: As for :func:`agileact.fold`.

    Returns:
        A report: ``.sites`` with ``scale``, ``scale_why``, ``location`` and ``location_why``; it prints as a table.

    Raises:
        ArgumentTypeError: If an argument has the wrong type.
        ArgumentError: If the model has no agile activation.

    Example:
        >>> import torch, agileact as ag
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), ag.AgileReLU(8), torch.nn.Linear(8, 2), ag.AgileTanh(2))
        >>> report = ag.lint(model, torch.randn(3, 4))
        >>> [(site.scale, site.location) for site in report.sites]
        [('only reparametrises', 'only reparametrises'), ('adds capacity', 'only reparametrises')]
        >>> report.sites[1].scale_why
        'the model returns it'
    """
    checks.model(model)
    if not any(is_agile(module) for module in model.modules()):
        raise ArgumentError("the model has no agile activation; agileact.convert makes them")
    apart = taken_apart(copied(model))
    analysis = analysed(apart, example_inputs)
    draw = np.random.default_rng(0)
    sizes = {name: site.module.scale.numel() for name, site in analysis.sites.items()}
    positive: dict[str, Numbers] = {name: draw.uniform(0.5, 1.5, size) for name, size in sizes.items()}
    both: dict[str, Numbers] = {name: positive[name] * draw.choice([-1.0, 1.0], sizes[name]) for name in sizes}
    for scale in both.values():
        scale[0] = -abs(scale[0])
    targets, stays = analysis.locations({name: torch.from_numpy(draw.normal(size=n)) for name, n in sizes.items()})
    # Normalisations that divide the size of each channel out demand nothing of the third.
    freed = copy.copy(analysis.found)
    freed.grounds = [mark for mark in analysis.found.grounds if not mark.normalised]
    solutions = [solve(analysis.found, positive), solve(analysis.found, both), solve(freed, positive)]
    scales = {name: _scale(site, *solutions) for name, site in analysis.sites.items()}
    locations = {name: _location(name, targets, stays) for name in analysis.sites}
    gained = {name: one.whole[0] for name, one in apart.named_modules() if isinstance(one, Apart)}
    whole_of = {part(name): name for name in gained for part in (inner_name, outer_name)}
    sites = []
    for name in dict.fromkeys(whole_of.get(name, name) for name in analysis.sites):
        if name in gained:
            inner, outer = inner_name(name), outer_name(name)
            verdicts = [scales[outer], locations[inner], _gain(apart, analysis.sites[inner], scales[inner])]
            base = gained[name].base
        else:
            verdicts, base = [scales[name], locations[name]], analysis.sites[name].module.base
        same = [verdict for verdict, _ in verdicts].count(REPARAMETRISES)
        status = "redundant" if same == len(verdicts) else "partly redundant" if same else "adds capacity"
        sites.append(LintedSite(name, base, status, "", *itertools.chain(*verdicts)))
    return LintReport(sites)


def _scale(site: Activation, positive: Solution, both: Solution, unnormalised: Solution) -> tuple[str, str]:
    name = site.name
    if name in positive.reasons:
        if name not in unnormalised.reasons:
            return REPARAMETRISES, f"its size is divided out again: {positive.reasons[name].removeprefix(_BEHIND)}"
        return ADDS, positive.reasons[name].removeprefix(_BEHIND)
    behind, before = positive.forward[name], positive.backward[name] if site.homogeneous else ()
    into = [f"behind it: {few(behind)}"] * bool(behind) + [f"before it: {few(before)}"] * bool(before)
    why = f"weights could do the same, {' or '.join(into)}" if into else "nothing behind it depends on it"
    if name in both.reasons:
        # How many are negative is true of the scales that were drawn here, not of the model.
        obstacle = both.reasons[name].removeprefix(_BEHIND).rpartition(", and ")[2]
        return SIGN, f"if positive, {why}; a negative one: {obstacle}"
    return REPARAMETRISES, why


def _gain(model: nn.Module, site: Activation, verdict: tuple[str, str]) -> tuple[str, str]:
    """Say of a gain that adds capacity what the weights before it are, rather than what lies behind it."""
    maker = site.uses[0].calls[0][1].inputs[0].maker
    if verdict[0] == ADDS and maker is not None and held(layer := model.get_submodule(maker.owner)):
        return ADDS, f"the rows of {maker.owner}.weight are held at {held_at(layer)}"
    return verdict


_BEHIND = "behind it: "


def _location(name: str, targets: dict[str, list[Target]], stays: dict[str, str]) -> tuple[str, str]:
    if name in stays:
        return ADDS, stays[name]
    created = [target.name for target in targets[name] if target.created]
    if created:
        return ADDS, f"as a bias would, which is missing: {few(created)}"
    return REPARAMETRISES, f"a bias could do the same: {few([target.name for target in targets[name]])}"
