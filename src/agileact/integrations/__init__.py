"""Agile activations in the training loops and the loggers that people use already.

Thin callbacks over :func:`agileact.param_groups`, :class:`agileact.Monitor` and :func:`agileact.fold`. What needs a
package is in a module that is named after it, and nothing imports these but you:

- :class:`AgileLogger`: a loop of your own, with any of the loggers of :func:`report`
- :func:`report`: what a monitor has seen, to Weights & Biases, MLflow, TensorBoard, ``logging``, or a function of yours
- ``agileact.integrations.tensorboard``: histograms and pictures of the learned activations
- ``agileact.integrations.lightning``: :class:`~agileact.integrations.lightning.AgileCallback`
- ``agileact.integrations.transformers``: :class:`~agileact.integrations.transformers.AgileTrainerCallback`
"""

from agileact.integrations.logger import AgileLogger as AgileLogger
from agileact.integrations.reporting import report as report

__all__ = ["AgileLogger", "report"]
