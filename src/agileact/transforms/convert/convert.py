"""Make the activations of any model agile, without a change of its outputs."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from agileact._common import checks
from agileact._common.errors import ArgumentError, ArgumentTypeError
from agileact.functional import Granularity, check_granularity
from agileact.nn import AgileWrapped
from agileact.transforms.convert.plan import BaseArgument, Placement, Planner, new_base, put_in, take_out
from agileact.transforms.convert.sites import FilterFn, find
from agileact.transforms.convert.standardize import Centre, check_centre, standardize
from agileact.transforms.convert.verify import Verifier
from agileact.transforms.convert.wrappers import check_wrappers
from agileact.transforms.edit.revert import copied
from agileact.transforms.report import ConversionReport, ConvertedSite
from agileact.transforms.trace.forward_runs import refuse_closures
from agileact.transforms.trace.recording import Arguments

Sharing = Literal["per_use", "shared"]
Weights = Literal["free", "standardized"]
_UNSEEN = (
    "Without example_inputs only activation modules were seen: calls of functions such as F.relu, and whether a "
    "module is used at several places, show in a run alone. Channels are counted at the first forward pass."
)


def convert(
    model: nn.Module,
    base: BaseArgument = None,
    *,
    example_inputs: Arguments | None = None,
    filter_fn: FilterFn | None = None,
    granularity: Granularity = "channel",
    terms: int = 1,
    inplace: bool = False,
    sharing: Sharing = "per_use",
    dim: int | None = None,
    weights: Weights = "free",
    centre: Centre | None = None,
) -> tuple[nn.Module, ConversionReport]:
    r"""Make every activation of a model agile, :math:`a f(x - b)` (equation (9)), with the same outputs bit for bit.

    ``convert`` runs the model once on the example, in evaluation mode, and records what it calls: modules and their
    subclasses, wrappers and modules of the user's own that compute an elementwise function; functions and methods
    (``F.relu(x)``, ``x.relu()``), functions kept as attributes, modules made in ``forward`` or kept in lists, and
    formulas (``h * torch.sigmoid(h)``), also over several statements. Modules are replaced in their slots. For calls of
    functions, and for a module used at several places, the source of the method is compiled again with a call
    of the new child: the module gets a subclass of its class, of the same name, that pickles, copies, compiles
    and exports like any other. A call in a loop over layers, of a function or a module, calls a child for each turn.
    How many channels there are, and along which axis, is followed from the layers that made them. Afterwards the model
    is run again, and its outputs and those of every activation are compared.

    f stays what it was. Where Agileact has it as a base function, the agile module of that base is used; otherwise
    :class:`~agileact.AgileWrapped` around the module that was there.

    Not converted, and in the report with the reason: what is not elementwise (softmax, attention, GLU), fused
    recurrent layers, what learns or draws its own slope (PReLU, RReLU), gates written as functions (``x *
    torch.sigmoid(y)`` and cells made of them; a gate that is a module is converted), what works in place on values
    used again; code that cannot be seen or changed (scripted modules, helper functions), and what the example does
    not reach.

    Args:
        model: The model, or an activation.
        base: None to keep every f. The name of a base function, or a mapping of "name" and its options, such as
            ``{"name": "softplus", "beta": 2.0}``, *replaces* f everywhere; the outputs are then other ones.
        example_inputs: What the model is run on: a tensor, a tuple of positional or a dict of keyword arguments.
            Without an example only activation modules are converted, they count their channels at the first forward
            pass, and ``dim`` must be given unless the granularity needs none.
        filter_fn: ``filter_fn(module, name)`` tells which activations to convert, as for ``torchao.quantize_``. For the
            call of a function it gets the module that makes the call.
        granularity: A pair (a, b) per "channel", "layer" or "element"; see :class:`~agileact.Agile`.
        terms: More than 1 for a sum of several, as :class:`~agileact.CombinedAgile`; zeros may then lose their sign.
        inplace: Whether to change ``model`` itself rather than a copy.
        sharing: What becomes of an activation module that is used at several places: "per_use" gives each place
            a pair of its own, "shared" one to all. A module that contains activations and is itself used several times
            keeps sharing them, as it shares its weights.
        dim: The channel axis for all activations; None to follow the channels.
        weights: "free" to leave them; "standardized" to call :func:`agileact.standardize` on the converted model. The
            outputs are then other ones: this is where training starts.
        centre: Which rows of standardised weights get mean 0, as for :func:`agileact.standardize`.

    Returns:
        The converted model (another object than ``model`` if that is an activation itself, even in place), and the
        report.

    Raises:
        ArgumentError: If an argument has a wrong value, an example is needed, or the model is wrapped in what does not
            learn of new parameters (DistributedDataParallel, FSDP, AveragedModel): convert before wrapping.
        ArgumentTypeError: If an argument has a wrong type.
        ConversionError: If the outputs would change, or a closure ties the copy to ``model``'s own modules; the model
            is then as it was.

    Example:
        >>> import torch, torch.nn.functional as F, agileact as ag
        >>> class Net(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.features = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
        ...         self.head = torch.nn.Linear(4 * 6 * 6, 10)
        ...     def forward(self, x):
        ...         return self.head(self.features(x).flatten(1))
        >>> net, x = Net(), torch.randn(2, 1, 8, 8)
        >>> agile, report = ag.convert(net, example_inputs=x)
        >>> torch.equal(agile(x), net(x)), agile.features[1]
        (True, AgileReLU(4))
        >>> print(report)
        1 converted, 0 skipped
        name        base  status     channels  dim  was   reason
        ----------  ----  ---------  --------  ---  ----  ------
        features.1  relu  converted  4         1    ReLU
    """
    checks.model(model)
    if filter_fn is not None and not callable(filter_fn):
        raise ArgumentTypeError(f"filter_fn must be a function of a module and its name, not {filter_fn!r}")
    check_granularity(granularity)
    if sharing not in ("per_use", "shared"):
        raise ArgumentError(f"sharing must be 'per_use' or 'shared', not {sharing!r}")
    if weights not in ("free", "standardized"):
        raise ArgumentError(f"weights must be 'free' or 'standardized', not {weights!r}")
    if weights == "standardized" and (granularity != "channel" or example_inputs is None):
        raise ArgumentError("weights='standardized' needs granularity 'channel', and example_inputs to find the layers")
    check_centre(centre)
    if centre is not None and weights == "free":
        raise ArgumentError(f"centre={centre!r} is for weights='standardized', not for 'free' ones")
    checks.integer("terms", terms, least=1)
    if dim is not None and not checks.is_integer(dim):
        raise ArgumentTypeError(f"dim must be an integer or None, not {dim!r} of type {type(dim).__name__}")
    if example_inputs is None and granularity == "channel" and dim is None:
        raise ArgumentError(
            "where the channels lie is seen in a run: pass example_inputs, a tensor or a tuple or dict of arguments "
            "that the model takes; or dim, the channel axis of every activation; or granularity='layer'"
        )
    check_wrappers(model, inplace)
    if isinstance(model, nn.DataParallel):
        # Its replicas are made anew in every run: what is inside is converted, and put back.
        keywords: Any = {"example_inputs": example_inputs, "filter_fn": filter_fn, "granularity": granularity}
        keywords |= {"terms": terms, "inplace": inplace, "sharing": sharing, "dim": dim, "weights": weights}
        keywords["centre"] = centre
        inner, report = convert(model.module, base, **keywords)
        wrapper = model if inplace else copy.copy(model)
        wrapper._modules = {"module": inner}
        renamed = [replace(site, name=_inside(site.name)) for site in report.sites]
        layers = report.weights
        if layers is not None:
            layers = replace(layers, sites=[replace(site, name=_inside(site.name)) for site in layers.sites])
        return wrapper, replace(report, sites=tuple(renamed), weights=layers)
    given, model = model, model if inplace else copied(model)
    planner = Planner(model, new_base(base), granularity, terms, dim)
    sites, recordings = find(model, example_inputs, sharing, filter_fn)
    if not inplace:
        for recording in recordings:
            refuse_closures(recording, given, "convert")
    plan = planner.plan(sites)
    if example_inputs is None:
        return put_in(model, plan), _report(plan, granularity, _UNSEEN)
    verifier = Verifier(planner, plan, example_inputs, [one.outcome.outputs for one in recordings])
    try:
        result, report = verifier.run(), _report(verifier.plan, granularity, "")
        if weights == "free":
            return result, report
        return result, replace(report, weights=standardize(result, example_inputs, centre=centre, inplace=True)[1])
    except BaseException:
        take_out(model, verifier.plan)
        raise


def _inside(name: str) -> str:
    return f"module.{name}".rstrip(".")


def _report(plan: Sequence[Placement], granularity: Granularity, note: str) -> ConversionReport:
    sites = []
    for one in plan:
        site, module = one.site, one.module
        status = "already agile" if site.already else "converted" if module is not None else "skipped"
        counted = module is not None and not module.has_uninitialized_params()
        sites.append(
            ConvertedSite(
                one.name,
                module.base if module is not None and not isinstance(module, AgileWrapped) else site.base,
                status,
                site.note if module is not None else site.reason or "it was agile before",
                site.was,
                (module.num_parameters or 0) if module is not None and counted else 0,
                module.dim if module is not None and granularity == "channel" else None,
            )
        )
    return ConversionReport(tuple(sites), note)
