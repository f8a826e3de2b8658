"""Run the converted model once beside what was there: its outputs, and those of every activation, to the bit."""

import functools
import linecache
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agileact import bases
from agileact._common.errors import ConversionError
from agileact.transforms.convert.plan import Placement, Planner, put_in, take_out, together
from agileact.transforms.convert.sites import Candidate
from agileact.transforms.trace.forward_runs import outcome, outputs, same
from agileact.transforms.trace.recorder import as_before_training, calling_place
from agileact.transforms.trace.recording import Arguments, tensors

_ENUMERATES = (
    "the module that calls it runs all its children, as nn.Sequential does, and would run a new one twice; "
    "make the activation a module"
)
_PASSED_BY = "the converted model does not reach it: something else than its slot or source calls it"
_OTHER_BITS = "on such an input our function has other bits, and so has the module's own"


class Verifier:
    """Compares a converted model with the recording of the model, and leaves out of the plan what does not work."""

    def __init__(
        self, planner: Planner, plan: Sequence[Placement], example_inputs: Arguments, expected: list[list[Tensor]]
    ) -> None:
        self.planner = planner
        self.model = planner.model
        self.plan = list(plan)
        self.example_inputs = example_inputs
        self.expected, *self.in_training = expected
        self.signs = planner.terms == 1  # with several terms zeros may lose their sign

    def run(self) -> nn.Module:
        """Run until nothing has to be left, once in the usual case, and return the converted model.

        Where it raises, the plan is to be taken out.
        """
        while True:
            result = put_in(self.model, self.plan)
            made, changed = self._compared(result)
            if not changed:
                changed = self._trained(result)
            if not changed:
                break
            take_out(self.model, self.plan)
            self.plan = together([changed.get(id(one), one) for one in self.plan])
        if self.planner.base is not None or self._equal(made):
            return result
        take_out(self.model, self.plan)
        self.expected = outputs(self.model, self.example_inputs)  # as they are where nobody writes down
        if not self._equal(made):
            self._explain()
        return put_in(self.model, self.plan)

    def _trained(self, model: nn.Module) -> dict[int, Placement]:
        """Compare in training mode, where something runs in it alone: that is left if anything differs."""
        late = [one for one in self.plan if one.module is not None and one.site.training]
        if not late:
            return {}
        with as_before_training(model):
            made, changed = self._compared(model, training=True)
        if not changed and self.planner.base is None and not self._equal(made, self.in_training[0]):
            return {id(one): one.left("in training mode the outputs would change") for one in late}
        return changed

    def _compared(self, model: nn.Module, training: bool = False) -> tuple[list[Tensor], dict[int, Placement]]:
        """Run the model, and return what it makes and the placements that change, by ``id``."""
        placements = {id(one.module): one for one in self.plan if one.module is not None}
        runs = dict.fromkeys(placements, 0)
        changed: dict[int, Placement] = {}

        def compare(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
            one = placements.get(id(module))
            if one is None:  # a module that shares its hooks with one of them
                return
            runs[id(module)] += 1
            if one.site.kind != "module" and not _called_in_place(one):
                changed[id(one)] = one.left(_ENUMERATES)
            x = next(tensors((args, kwargs)))
            # Inside torch.func nothing can be looked at: what the model returns is compared, and that is all.
            if id(one) in changed or torch._C._functorch.is_functorch_wrapped_tensor(x):
                return
            wanted = self._function(one.site)(_twin(x))
            if same(wanted, output, signs=self.signs):
                return
            wrapped = self.planner.wrapped(one)
            assert wrapped.module is not None
            right = same(wanted, wrapped.module.forward(_twin(x)), signs=self.signs)
            changed[id(one)] = wrapped if right and self.planner.base is None else one.left(_OTHER_BITS)

        # Before the hooks of the user, which may change the output; once for modules that share theirs.
        hooks = {id(one.module._forward_hooks): one.module for one in self.plan if one.module is not None}
        handles = [module.register_forward_hook(compare, prepend=True, with_kwargs=True) for module in hooks.values()]
        try:
            made = outcome(model, self.example_inputs, training=training).outputs
        except Exception as error:
            return [], self._failing(error)
        finally:
            for handle in handles:
                handle.remove()
        for key, one in placements.items():
            if not runs[key] and one.site.training == training:
                changed[id(one)] = one.left(_PASSED_BY)
        return made, changed

    def _function(self, site: Candidate) -> Callable[[Tensor], Tensor]:
        if self.planner.base is not None:
            return functools.partial(bases.get(self.planner.base[0]).function, **self.planner.base[1])
        # Not by calling a module: its hooks are those of the agile module.
        assert site.function is not None
        return site.function

    def _failing(self, error: Exception) -> dict[int, Placement]:
        """Return the new children of the innermost module that fails, left: it may run its children, and one more."""
        trace, owner = error.__traceback__, None
        while trace is not None:
            code = trace.tb_frame.f_code
            own = trace.tb_frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            if isinstance(own, nn.Module) and any(
                one.module is not None and one.site.kind != "module" and one.site.owner is own for one in self.plan
            ):
                owner = own
            trace = trace.tb_next
        if owner is None:
            raise error
        return {
            id(one): one.left(_ENUMERATES)
            for one in self.plan
            if one.module is not None and one.site.kind != "module" and one.site.owner is owner
        }

    def _equal(self, made: list[Tensor], expected: list[Tensor] | None = None) -> bool:
        wanted = self.expected if expected is None else expected
        return len(wanted) == len(made) and all(
            same(*pair, signs=self.signs) for pair in zip(wanted, made, strict=True)
        )

    def _explain(self) -> None:
        """Raise, with the first place after whose conversion the outputs differ, or with another cause."""
        before = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
        if not self._equal(outputs(self.model, self.example_inputs)):
            changed = [name for name, one in self.model.named_parameters() if not same(before[name], one.detach())]
            way = (
                f"each run changes {changed[0]}, also in evaluation mode; let it do so in training mode alone"
                if changed
                else "make it deterministic, such as by torch.use_deterministic_algorithms(True)"
            )
            raise ConversionError(
                f"the model does not give the same outputs twice on one example, so that nothing can be compared; {way}"
            )
        first = next((one for one in self.plan if one.module is not None), None)
        for stop in range(1, len(self.plan) + 1):
            if self.plan[stop - 1].module is not None:
                made = outputs(put_in(self.model, self.plan[:stop]), self.example_inputs)
                take_out(self.model, self.plan[:stop])
                if not self._equal(made):
                    first = self.plan[stop - 1]
                    break
        name = "" if first is None else first.name
        raise ConversionError(
            f"the outputs would change with the conversion of {name or 'the model itself'}; leave it out by filter_fn"
        )


def _called_in_place(one: Placement) -> bool:
    """Return whether the child of a call or an attribute is called where it should be."""
    place = calling_place(sys._getframe(2))
    if place is None or place.column is None:
        return True  # of a text that is not there nothing is known but the line
    line = linecache.getline(place.code.co_filename, place.line).encode()[place.column :].decode(errors="replace")
    return re.match(rf"\w+\s*\.\s*{re.escape(one.child)}\b", line) is not None


def _twin(x: Tensor) -> Tensor:
    """Return a copy with the same strides: PyTorch may have other bits for others, as for a part of a chunk."""
    if x.layout is torch.strided and not x.is_contiguous():
        try:
            return torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device=x.device).copy_(x)
        except RuntimeError:
            pass  # elements that share their place, as those of expand
    return x.clone(memory_format=torch.preserve_format)
