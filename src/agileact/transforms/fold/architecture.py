"""Which switch of a model's configuration gives it the biases that folding wants."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from agileact.transforms.report import few


def switches(model: nn.Module, wanted: Sequence[str]) -> list[str]:
    """Return a sentence on each switch of ``model.config`` that gives the class biases which folding wants.

    The class is built without values to see which state it has then; where it cannot be, nothing is said.
    """
    config: Any = getattr(model, "config", None)
    if not wanted or not hasattr(config, "__dict__"):
        return []
    found = []
    for name, value in vars(config).items():
        if value is not False or "bias" not in name:
            continue
        other = copy.deepcopy(config)
        try:
            setattr(other, name, True)
            with torch.device("meta"):
                state = type(model)(other).state_dict()
        except Exception:  # a class that is made in another way
            continue
        given = [one for one in wanted if one in state]
        if given:
            found.append(f"config.{name} = True gives the class a bias where one is missing: {few(given)}")
    return found
