"""What an optimizer must know of scale and location: parameter groups, decay towards the start, ranges."""

from agileact.optim.constraint import constrain_scale as constrain_scale
from agileact.optim.decay import decay_activations as decay_activations
from agileact.optim.groups import param_groups as param_groups

__all__ = ["constrain_scale", "decay_activations", "param_groups"]
