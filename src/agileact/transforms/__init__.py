"""Into a model and out again: where activations are, convert, fold, lint."""

from agileact.transforms._convert import convert as convert
from agileact.transforms._fold import fold as fold
from agileact.transforms._lint import LintedSite as LintedSite
from agileact.transforms._lint import LintReport as LintReport
from agileact.transforms._lint import lint as lint
from agileact.transforms._report import ConversionReport as ConversionReport
from agileact.transforms._report import FoldedSite as FoldedSite
from agileact.transforms._report import FoldReport as FoldReport
from agileact.transforms._revert import restore_site as restore_site
from agileact.transforms._revert import revert as revert

__all__ = [
    "ConversionReport",
    "FoldReport",
    "FoldedSite",
    "LintReport",
    "LintedSite",
    "convert",
    "fold",
    "lint",
    "restore_site",
    "revert",
]
