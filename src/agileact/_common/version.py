"""The version of the installed package, from its metadata: pyproject.toml is the one place that sets it."""

from importlib.metadata import version

__version__ = version("agileact")
