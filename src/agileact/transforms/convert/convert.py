"""Make the activations of any model agile, without a change of its outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from agileact import bases
from agileact._common import checks
from agileact._common.errors import ArgumentError, ArgumentTypeError, ConversionError
from agileact.bases import Value
from agileact.functional import Granularity, check_granularity
from agileact.nn import AgileModule, AgileWrapped
from agileact.transforms.convert.activations import Activations
from agileact.transforms.convert.enumeration import leave_enumerated
from agileact.transforms.convert.make import BaseArgument, agile_module, new_base
from agileact.transforms.convert.parameter_shape import Geometry, MisfitError
from agileact.transforms.convert.sites import Candidate, FilterFn, candidates
from agileact.transforms.edit.plain_modules import plain_module
from agileact.transforms.edit.revert import (
    Origin,
    copied,
    origin_of,
    refresh_fast_paths,
    restore,
    set_origin,
    share_hooks,
    slots_of,
)
from agileact.transforms.edit.rewrite import edited_class, edits_of
from agileact.transforms.edit.source import Edit
from agileact.transforms.report import ConversionReport, ConvertedSite
from agileact.transforms.trace.forward_runs import outputs, same, watched
from agileact.transforms.trace.recording import Arguments, Recording

Sharing = Literal["per_use", "shared"]
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
) -> tuple[nn.Module, ConversionReport]:
    r"""Make every activation of a model agile, :math:`a f(x - b)` (equation (9)), with the same outputs bit for bit.

    The model is run once on the example, in evaluation mode, and what it calls is written down: modules and their
    subclasses, wrappers and modules of the user's own that compute an elementwise function, functions and methods
    (``F.relu(x)``, ``x.relu()``), functions kept as attributes. Modules are replaced in their slots. For calls of
    functions, and for a module used at several places, the source of the method is compiled again with a call
    of the new child: the module gets a subclass of its class, of the same name, that pickles, copies, compiles
    and exports like any other. How many channels there are, and along which axis, is followed from the layers that made
    them. Afterwards the model is run again, and its outputs and those of every activation are compared.

    f stays what it was. Where Agileact has it as a base function, the agile module of that base is used; otherwise
    :class:`~agileact.AgileWrapped` around the module that was there.

    Not converted, and in the report with the reason: what is not elementwise (softmax, attention, GLU), fused recurrent
    layers, what learns or draws its own slope (PReLU, RReLU), gates written as functions (``x * torch.sigmoid(y)``;
    a gate that is a module is converted), what works in place on values used again, code that cannot be seen or changed
    (scripted modules, helper functions), and what the example does not reach.

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

    Returns:
        The converted model (another object than ``model`` if that is an activation itself, even in place), and the
        report.

    Raises:
        ArgumentError: If an argument has a wrong value, or an example is needed.
        ArgumentTypeError: If an argument has a wrong type.
        ConversionError: If the outputs would change; the model is then as it was.

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
    checks.integer("terms", terms, least=1)
    if dim is not None and not checks.is_integer(dim):
        raise ArgumentTypeError(f"dim must be an integer or None, not {dim!r} of type {type(dim).__name__}")
    if example_inputs is None and granularity == "channel" and dim is None:
        raise ArgumentError(
            "where the channels lie is seen in a run: pass example_inputs, a tensor or a tuple or dict of arguments "
            "that the model takes; or dim, the channel axis of every activation; or granularity='layer'"
        )
    conversion = _Conversion(model if inplace else copied(model), new_base(base), granularity, terms, sharing, dim)
    return conversion.run(example_inputs, filter_fn)


class _Conversion:
    """One conversion: what it was asked for, and what it has done so far."""

    def __init__(
        self,
        model: nn.Module,
        base: tuple[str, dict[str, Value]] | None,
        granularity: Granularity,
        terms: int,
        sharing: Sharing,
        dim: int | None,
    ) -> None:
        self.model = model
        self.root = model
        self.base = base
        self.granularity = granularity
        self.terms = terms
        self.sharing = sharing
        self.dim = dim
        self.activations = Activations(model, sharing)
        self.made: list[tuple[Candidate, AgileModule]] = []
        self.edits: dict[int, tuple[nn.Module, set[Edit]]] = {}

    def run(self, example_inputs: Arguments | None, filter_fn: FilterFn | None) -> tuple[nn.Module, ConversionReport]:
        try:
            recording = Recording() if example_inputs is None else self.activations.run(example_inputs)
            found = candidates(self.activations, recording, filter_fn, seen=example_inputs is not None)
            expected = [] if example_inputs is None else outputs(self.model, example_inputs)
            if example_inputs is not None:
                leave_enumerated(self.model, found, example_inputs)
            where = Geometry(self.model, self.granularity, self.dim)
            with torch.inference_mode(False):  # parameters made in it could never be trained
                for one in found:
                    if not one.reason and not one.already:
                        self._convert(one, where)
            self._rewrite()
            self.activations.put_together()
            refresh_fast_paths(self.model)
            if example_inputs is not None:
                self._verify(example_inputs, expected)
        except BaseException:
            self._undo()
            raise
        return self.model, self._report(found, "" if example_inputs is not None else _UNSEEN)

    # --- One activation ---

    def _convert(self, one: Candidate, where: Geometry) -> None:
        try:
            size, dim, note = where.of(one.calls)
        except MisfitError as misfit:
            one.reason = str(misfit)
            return
        one.note = "; ".join(filter(None, [one.note, note]))
        device, dtype = where.placement(one.calls)
        keywords: dict[str, Any] = {"granularity": self.granularity, "dim": dim, "device": device, "dtype": dtype}
        module = self._made(one, size, keywords)
        original = one.original if isinstance(one.original, nn.Module) else None
        training = original if original is not None else one.owner
        module.train(training.training if training is not None else self.model.training)
        set_origin(module, Origin(one.kind, one.original, replaced=self.base is not None))
        if original is not None and not module.has_uninitialized_params():
            share_hooks(original, module)
        self._place(one, module)
        self.made.append((one, module))

    def _made(self, one: Candidate, size: int | None, keywords: dict[str, Any]) -> AgileModule:
        name, options = self.base if self.base is not None else (one.base, one.options)
        if options is None:
            assert one.function is not None
            one.note = "; ".join(filter(None, ["no base function: it computes itself", one.note]))
            function = one.original if isinstance(one.original, nn.Module) else one.function
            return AgileWrapped(function, size, terms=self.terms, **keywords)
        return agile_module(name, size, self.terms, keywords | options)

    def _place(self, one: Candidate, module: AgileModule) -> None:
        if one.kind == "module":
            for parent, key in one.slots:
                parent._modules[key] = module
            if one.original is self.root:
                self.model = module
            return
        assert one.owner is not None
        if one.kind == "attribute":
            del one.owner.__dict__[one.key]
            one.owner._modules[one.key] = module
            return
        assert one.source is not None
        child = _free_name(one.owner, one.key or one.base)
        prefix = one.name.rpartition(".")[0] if one.key else one.name
        one.name = f"{prefix}.{child}" if prefix else child
        one.owner._modules[child] = module
        _, edits = self.edits.setdefault(id(one.owner), (one.owner, set()))
        edits.add(one.source.edit(child, one.key))

    def _rewrite(self) -> None:
        for owner, edits in self.edits.values():
            kind = type(owner)
            try:
                owner.__class__ = edited_class(kind, edits_of(kind) | edits)
            except Exception as error:
                raise ConversionError(
                    f"{kind.__qualname__} cannot be given another {sorted(edit.method for edit in edits)[0]}: {error}; "
                    "leave the calls of functions in it out by filter_fn"
                ) from error

    # --- The whole ---

    def _verify(self, example_inputs: Arguments, expected: list[Tensor]) -> None:
        result, wrong, idle = self._watched(example_inputs)
        for module in idle:
            self._leave(
                module, "the converted model does not reach it: something else than its slot or source calls it"
            )
        if wrong:
            for module in wrong:
                self._wrap(module)
            result, wrong, _ = self._watched(example_inputs)
        for module in wrong:
            self._leave(module, "on such an input our function has other bits, and so has the module's own")
        if idle or wrong:
            refresh_fast_paths(self.model)
            result = outputs(self.model, example_inputs)
        if self.base is None and not self._equal(expected, result):
            self._explain(example_inputs, expected)

    def _leave(self, module: AgileModule, reason: str) -> None:
        """Put back what stood in the place of a module."""
        one = next(one for one, made in self.made if made is module)
        one.reason = reason
        if module is self.model:
            self.model = self.root
        else:
            restore(self.model, module, None, same_function=False)
        self.made = [pair for pair in self.made if pair[1] is not module]

    def _equal(self, expected: list[Tensor], result: list[Tensor]) -> bool:
        return len(expected) == len(result) and all(
            same(*pair, signs=self.terms == 1) for pair in zip(expected, result, strict=True)
        )

    def _explain(self, example_inputs: Arguments, expected: list[Tensor]) -> None:
        """Raise, with the first place after whose conversion the outputs differ, or with another cause."""
        first = ""
        for one, module in list(self.made)[::-1]:
            if module is self.model:
                break
            restore(self.model, module, None, same_function=False)
            self.made.remove((one, module))
            if self._equal(expected, outputs(self.model, example_inputs)):
                first = one.name
                break
        self._undo()
        if not self._equal(expected, outputs(self.model, example_inputs)):
            raise ConversionError(
                "the model does not give the same outputs twice on one example, so that nothing can be compared; "
                "make it deterministic, such as by torch.use_deterministic_algorithms(True)"
            )
        raise ConversionError(
            f"the outputs would change with the conversion of {first or 'the model itself'}; leave it out by filter_fn"
        )

    def _watched(self, example_inputs: Arguments) -> tuple[list[Tensor], list[AgileModule], list[AgileModule]]:
        functions: dict[nn.Module, Callable[[Tensor], Tensor]] = {
            module: self._function(one, module) for one, module in self.made
        }
        result, wrong, idle = watched(self.model, example_inputs, functions, signs=self.terms == 1)
        return (
            result,
            [module for module in wrong if isinstance(module, AgileModule)],
            [module for module in idle if isinstance(module, AgileModule)],
        )

    def _function(self, one: Candidate, module: AgileModule) -> Callable[[Tensor], Tensor]:
        if self.base is not None:
            return functools.partial(bases.get(self.base[0]).function, **self.base[1])
        if isinstance(one.original, nn.Module):
            # Not by calling it: its hooks are those of the agile module.
            forward: Callable[[Tensor], Tensor] = one.original.forward
            return forward
        assert one.function is not None
        return one.function

    def _wrap(self, module: AgileModule) -> None:
        """Let f be computed by what computed it before, where our function has other bits for such an input."""
        index = next(index for index, (_, made) in enumerate(self.made) if made is module)
        one = self.made[index][0]
        one.note = "; ".join(
            filter(None, ["on such an input our function has other bits: it computes itself", one.note])
        )
        plain = one.original if isinstance(one.original, nn.Module) else plain_module(module)
        wrapped = AgileWrapped(
            plain,
            module.num_parameters if self.granularity != "layer" else None,
            terms=self.terms,
            granularity=self.granularity,
            dim=module.dim,
            device=module.scale.device,
            dtype=module.scale.dtype,
        ).train(module.training)
        origin = origin_of(module)
        assert origin is not None
        set_origin(wrapped, origin)
        share_hooks(module, wrapped)
        for parent, key in slots_of(self.model, module):
            parent._modules[key] = wrapped
        if module is self.model:
            self.model = wrapped
        self.made[index] = one, wrapped

    def _undo(self) -> None:
        for owner, edits in self.edits.values():
            for edit in edits:
                owner._modules.pop(edit.child, None)
            owner.__class__ = edited_class(type(owner), edits_of(type(owner)) - edits)
        self.edits.clear()
        for _, module in self.made:
            if module is not self.model:
                restore(self.model, module, None, same_function=False)
        self.made.clear()
        self.model = self.root
        self.activations.put_together()
        refresh_fast_paths(self.model)

    def _report(self, found: list[Candidate], note: str) -> ConversionReport:
        made = {id(one): module for one, module in self.made}
        sites = []
        for one in found:
            module = made.get(id(one))
            status = "already agile" if one.already else "converted" if module is not None else "skipped"
            known = isinstance(module, AgileModule) and not module.has_uninitialized_params()
            sites.append(
                ConvertedSite(
                    one.name,
                    module.base if module is not None else one.base,
                    status,
                    one.note if module is not None else one.reason or "it was agile before",
                    one.was,
                    (module.num_parameters or 0) if module is not None and known else 0,
                    module.dim if module is not None and self.granularity == "channel" else None,
                )
            )
        return ConversionReport(tuple(sites), note)


def _free_name(owner: nn.Module, wish: str) -> str:
    """Return a name for a child that nothing of its owner has."""
    name, number = wish, 1
    while hasattr(owner, name):
        number += 1
        name = f"{wish}_{number}"
    return name
