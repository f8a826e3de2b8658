"""The paper's figures 2, 4, 5, 6, 9, 11, 12, 13 and 14, from a run's own data; 1, 3, 7, 8 and 10, from its networks.

Importing this needs no matplotlib; drawing does (``pip install "agileact[paper]"``).
"""

from agileact.paper.figures.draw import draw_all, draw_networks, draw_xor
from agileact.paper.figures.steps import StepShare, activation_step_share

__all__ = ["StepShare", "activation_step_share", "draw_all", "draw_networks", "draw_xor"]
