"""Modules that run their own children one after the other, and so would run a new child, too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from agileact.transforms.convert.sites import Candidate
from agileact.transforms.trace.forward_runs import outputs
from agileact.transforms.trace.recording import Arguments

_NAME = "agileact_probe"


class _Probe(nn.Module):
    """Returns what it gets, and remembers that it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.ran = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.ran = True
        return next(iter((*args, *kwargs.values())), None)


def leave_enumerated(model: nn.Module, found: Iterable[Candidate], example_inputs: Arguments) -> None:
    """Leave calls alone in modules that would run the new child a second time, beside the call.

    So would a subclass of :class:`torch.nn.Sequential` whose method calls ``super().forward``, and what iterates over
    ``self.children()``. Each is given a child that does nothing, and the model is run.

    Args:
        model: The model; it is afterwards as it was.
        found: The calls; those that are left alone get the reason.
        example_inputs: What the model is run on.
    """
    new = [one for one in found if one.kind != "module" and not one.reason and not one.already]
    owners = list({id(one.owner): one.owner for one in new if one.owner is not None}.values())
    if not owners:
        return
    running, failed = _tried(model, owners, example_inputs)
    if failed:
        # Who runs a child that is in the way may stop the run before the others are reached.
        running = []
        for owner in owners:
            one, failed = _tried(model, [owner], example_inputs)
            running += [owner] if failed else one
    for call in new:
        if any(call.owner is owner for owner in running):
            call.reason = (
                "the module that calls it runs all its children, as nn.Sequential does, and would run a new one twice; "
                "make the activation a module"
            )


def _tried(model: nn.Module, owners: list[nn.Module], example_inputs: Arguments) -> tuple[list[nn.Module], bool]:
    probes = [(owner, _Probe()) for owner in owners]
    for owner, probe in probes:
        owner._modules[_NAME] = probe
    try:
        outputs(model, example_inputs)
        failed = False
    except Exception:
        failed = True
    finally:
        for owner, _ in probes:
            del owner._modules[_NAME]
    return [owner for owner, probe in probes if probe.ran], failed
