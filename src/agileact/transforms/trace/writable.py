"""Which parameters of a model may be rewritten."""

from collections.abc import Sequence

from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from agileact.nn.rows import held, held_at
from agileact.transforms.trace.recording import Recording, Value


def computes(hook: object) -> str:
    """Return the name of the parameter that a hook computes before each run, looking at no signal; else empty."""
    if isinstance(hook, BasePruningMethod):
        return hook._tensor_name
    return hook.name if isinstance(hook, (SpectralNorm, WeightNorm)) else ""


def hooked(module: nn.Module, *, behind: bool = False) -> bool:
    """Return whether code of the user sees what goes in and out of a module, or with ``behind`` what goes out."""
    kinds = ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks") + ("_forward_pre_hooks",) * (not behind)
    return any(not computes(hook) for kind in kinds for hook in (getattr(module, kind, None) or {}).values())


class Writable:
    """Which parameters of a model may be rewritten, and why others may not, as all its runs together tell."""

    def __init__(self, model: nn.Module, recordings: Sequence[Recording]) -> None:
        self.model = model
        self._owned = dict(model.named_parameters(remove_duplicate=False))
        # A module under two names has its parameters once.
        self._places: dict[int, int] = {}
        for module in model.modules():
            for parameter in module._parameters.values():
                self._places[id(parameter)] = self._places.get(id(parameter), 0) + 1
        self._values: dict[str, list[Value]] = {}
        for recording in recordings:
            for value in recording.values:
                if value.kind == "parameter":
                    self._values.setdefault(value.name, []).append(value)

    def refusal(self, value: Value) -> str:
        """Return why a parameter may not be rewritten; empty if it may."""
        if value.kind != "parameter":
            where = value.users[0].owner if value.users else ""
            what = value.name or (f"the weight of {where}" if where else "a weight")
            return f"{what} is computed or no parameter of the model (parametrised, pruned or quantised)"
        name = value.name
        parameter = self._owned.get(name)
        if parameter is None or not value.dtype.is_floating_point:
            return f"{name} is no parameter of floating-point numbers"
        if self._places[id(parameter)] > 1 or any(len(one.users) > 1 for one in self._values[name]):
            return f"{name} is shared: it is used in more than one place"
        if any(one.tainted for one in self._values[name]):
            return f"{name} is changed or read by code that cannot be followed"
        owner = self.model.get_submodule(name.rpartition(".")[0])
        if name.endswith("weight") and held(owner):
            return f"the rows of {name} are held at {held_at(owner)}"
        if hooked(owner):
            return f"a hook sees what goes in and out of {name.rpartition('.')[0]}"
        return ""
