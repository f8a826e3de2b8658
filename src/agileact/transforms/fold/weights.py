"""Which parameter of the model's own a value is, number by number, however it was turned and cut on the way."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agileact.transforms.trace.operations import JOINING, PASSING, REARRANGING, SHAPED_BY
from agileact.transforms.trace.recording import Recording, Ref, Value, words
from agileact.transforms.trace.writable import Writable

_CUTTING = REARRANGING - JOINING - words("as_strided rename")


@dataclass
class Source:
    """A parameter; ``places`` says which of its numbers each number of the value is, None if it is the same tensor."""

    parameter: Value
    places: Tensor | None = None


class Weights:
    """Tells for values of several runs of one model which parameter they are."""

    def __init__(self, model: nn.Module, recordings: Sequence[Recording]) -> None:
        self.writable = Writable(model, recordings)

    def of(self, value: Value, *, repeated: bool = False) -> Source | str:
        """Return the parameter that a value is, or why there is none that may be rewritten.

        A number of it that occurs more than once in the value is allowed only if ``repeated``.
        """
        chain: list[Value] = []
        current = value
        while current.kind == "result" and current.maker is not None:
            maker = current.maker
            if maker.name not in PASSING | _CUTTING or (len(maker.inputs) > 1 and maker.name not in SHAPED_BY):
                break
            if maker.inputs[0].dtype != current.dtype:
                break
            chain.append(current)
            current = maker.inputs[0]
        if current.kind != "parameter":
            return self.writable.refusal(value)
        why = self.writable.refusal(current)
        if why or not chain:
            return why or Source(current)
        if any(len(one.users) > 1 or one.returned or one.kept for one in chain):
            return f"{current.name} is shared: it is used in more than one place"
        if any(one.tainted for one in chain):
            return f"{current.name} is changed or read by code that cannot be followed"
        if all(one.maker is not None and one.maker.name in PASSING for one in chain):
            return Source(current)
        places = torch.arange(current.shape.numel()).reshape(current.shape)
        for one in reversed(chain):
            assert one.maker is not None
            if one.maker.name not in PASSING:
                given = {taken.index: torch.zeros(taken.shape, dtype=torch.int64) for taken in one.maker.inputs}
                made = one.maker.rearranged({**given, one.maker.inputs[0].index: places})
                if made is None:
                    return f"{current.name} is turned in a way that cannot be followed"
                places = made[one.maker.outputs.index(one)]
        if not repeated and places.numel() and int(torch.bincount(places.reshape(-1)).max()) > 1:
            return f"{current.name} is shared: a number of it is used in more than one place"
        return Source(current, places)

    def magnitude(self, value: Value) -> Source | None:
        """Return the magnitude g of a weight that weight normalisation made, g v / |v|, if it may be rewritten."""
        maker = value.maker
        if maker is None or maker.name != "_weight_norm" or len(value.users) > 1 or value.returned or value.tainted:
            return None
        g = maker.argument(1, "g")
        found = self.of(maker.inputs[1]) if isinstance(g, Ref) and len(maker.inputs) == 2 else ""
        return found if isinstance(found, Source) else None
