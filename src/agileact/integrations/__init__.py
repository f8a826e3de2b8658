"""Agile activations in the training loops and the loggers that people use already.

Thin callbacks over :func:`agileact.param_groups`, :class:`agileact.Monitor` and :func:`agileact.fold`. Each module
needs the package that it is named after, and nothing imports them but you:

- ``agileact.integrations.lightning``: :class:`~agileact.integrations.lightning.AgileCallback`
- ``agileact.integrations.transformers``: :class:`~agileact.integrations.transformers.AgileTrainerCallback`
- :func:`report`: what a monitor has seen, to Weights & Biases, MLflow, TensorBoard, or a function of your own
"""

from agileact.integrations._report import report as report

__all__ = ["report"]
