"""Compare activations fairly: what a trial is, how many are run and stored, what their numbers say."""

from agileact._common.optional import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
