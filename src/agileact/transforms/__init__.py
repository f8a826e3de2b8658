"""Into a model and out again: where activations are, convert, fold, lint."""

from agileact.transforms._convert import convert as convert
from agileact.transforms._report import ConversionReport as ConversionReport
from agileact.transforms._report import FoldReport as FoldReport
from agileact.transforms._revert import restore_site as restore_site
from agileact.transforms._revert import revert as revert

__all__ = ["ConversionReport", "FoldReport", "convert", "restore_site", "revert"]
