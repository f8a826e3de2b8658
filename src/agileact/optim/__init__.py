"""What an optimizer must know of scale and location: groups, decay towards the start, ranges, rows."""

from agileact.optim.constraint import constrain_scale as constrain_scale
from agileact.optim.decay import decay_activations as decay_activations
from agileact.optim.groups import param_groups as param_groups
from agileact.optim.standardize import standardize_weights as standardize_weights

__all__ = ["constrain_scale", "decay_activations", "param_groups", "standardize_weights"]
