"""The exceptions that a user of Agileact can catch.

Every error that the package raises on purpose is an :class:`AgileactError`. Each also derives from
the built-in exception that Python code would expect in its place, so that ``except ValueError``
keeps working.
"""


class AgileactError(Exception):
    """Base of all errors that Agileact raises on purpose."""

    def __init_subclass__(cls) -> None:
        cls.__module__ = "agileact"  # a traceback names what a user can import


AgileactError.__module__ = "agileact"


class ArgumentError(AgileactError, ValueError):
    """An argument has a wrong value; the message says what came and what would fit."""


class ArgumentTypeError(AgileactError, TypeError):
    """An argument has a wrong type; the message says what came and what would fit."""


class MissingExtraError(AgileactError, ImportError):
    """A feature needs a package that is not installed; the message names the extra to install."""


class FoldError(AgileactError, RuntimeError):
    """A folded model does not compute what the agile one does; it is not returned."""


class ConversionError(AgileactError, RuntimeError):
    """A model cannot be converted, or brought back, without another output; the message names the place."""


class DataError(AgileactError, RuntimeError):
    """A data set is missing, truncated, corrupt or not what it should be."""


class StoreError(AgileactError, RuntimeError):
    """A store of trial results cannot be opened, read or written."""


class TrialError(AgileactError, RuntimeError):
    """Trials could not be run to their end.

    Attributes:
        details: What the failed trials printed, for a log rather than for a terminal.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details
