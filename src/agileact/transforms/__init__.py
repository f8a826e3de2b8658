"""Into a model and out again: where activations are, convert, fold, lint."""

from agileact.transforms._fold import fold as fold
from agileact.transforms._report import FoldedSite as FoldedSite
from agileact.transforms._report import FoldReport as FoldReport
