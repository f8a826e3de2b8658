"""Into a model and out again: where activations are, convert, fold, lint."""

from agileact.transforms.convert.convert import convert as convert
from agileact.transforms.convert.standardize import standardize as standardize
from agileact.transforms.edit.revert import restore_site as restore_site
from agileact.transforms.edit.revert import revert as revert
from agileact.transforms.fold.fold import fold as fold
from agileact.transforms.fold.lint import LintedSite as LintedSite
from agileact.transforms.fold.lint import LintReport as LintReport
from agileact.transforms.fold.lint import lint as lint
from agileact.transforms.report import ConversionReport as ConversionReport
from agileact.transforms.report import FoldedSite as FoldedSite
from agileact.transforms.report import FoldReport as FoldReport
from agileact.transforms.report import StandardizedSite as StandardizedSite
from agileact.transforms.report import StandardizeReport as StandardizeReport

__all__ = [
    "ConversionReport",
    "FoldReport",
    "FoldedSite",
    "LintReport",
    "LintedSite",
    "StandardizeReport",
    "StandardizedSite",
    "convert",
    "fold",
    "lint",
    "restore_site",
    "revert",
    "standardize",
]
