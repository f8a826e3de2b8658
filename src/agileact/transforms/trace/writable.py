"""Which parameters of a model may be rewritten."""

from __future__ import annotations

from torch import nn

from agileact.transforms.trace.recording import Recording, Value


def hooked(module: nn.Module) -> bool:
    """Return whether code of the user sees what goes in and out of a module."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind, None) for kind in kinds)


class Writable:
    """Which parameters of a model may be rewritten, and why others may not."""

    def __init__(self, model: nn.Module, recording: Recording) -> None:
        self.model = model
        self._owned = dict(model.named_parameters(remove_duplicate=False))
        self._names: dict[int, int] = {}
        for parameter in self._owned.values():
            self._names[id(parameter)] = self._names.get(id(parameter), 0) + 1

    def refusal(self, value: Value) -> str:
        """Return why a parameter may not be rewritten; empty if it may."""
        if value.kind != "parameter":
            where = value.users[0].owner if value.users else ""
            what = value.name or (f"the weight of {where}" if where else "a weight")
            return f"{what} is computed or no parameter of the model (parametrised, pruned or quantised)"
        parameter = self._owned.get(value.name)
        if parameter is None or not value.dtype.is_floating_point:
            return f"{value.name} is no parameter of floating-point numbers"
        if self._names[id(parameter)] > 1 or len(value.users) > 1:
            return f"{value.name} is shared: it is used in more than one place"
        if value.tainted:
            return f"{value.name} is changed or read by code that cannot be followed"
        if hooked(self.model.get_submodule(value.name.rpartition(".")[0])):
            return f"a hook sees what goes in and out of {value.name.rpartition('.')[0]}"
        return ""
