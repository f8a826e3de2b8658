"""Run one trial and return its result: nothing is written here."""

import os

import torch

from agileact._common.errors import ArgumentError
from agileact.study.data.dataset import DataSet
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import Budget, TrialSpec
from agileact.study.training.loop import Progress, Trial, evaluates_aside
from agileact.study.training.threads import one_thread


def run_trial(spec: TrialSpec, data: DataSet, progress: Progress | None = None, *, aside: bool = False) -> TrialResult:
    """Train one network on one thread and return everything that was measured.

    The result is a function of ``spec`` and ``data`` alone, on the CPU to the bit on one machine: one thread, weights
    and batches from streams of the seed that no arm shifts. With mixed precision or several processes Accelerate
    does the training (:mod:`agileact.study.training.mixed_precision`).

    Args:
        spec: What to run.
        data: The data set that ``spec.task.data`` names.
        progress: Called with the iteration and the loss of the last batch, about twice a second.
        aside: Whether a core is to spare, on which the network can be evaluated while it trains; without effect on the
            result.

    Raises:
        ArgumentError: If the arm and the model do not fit, or there is no such device.
        MissingExtraError: If Accelerate is needed and not installed.
    """
    budget = spec.task.budget
    check_device(budget)
    if budget.precision != "fp32" or budget.processes > 1:
        # Its imports take seconds, which a trial on one device need not pay.
        from agileact.study.training.mixed_precision import run_accelerated

        return run_accelerated(spec, data, progress)
    with one_thread():
        return Trial(spec, data, progress, aside=aside and evaluates_aside(spec)).run()


def check_device(budget: Budget) -> None:
    """Raise if this process does not see the device that the budget names."""
    if budget.device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError(
            "the trial needs the device 'cuda', but this process sees no CUDA device "
            f"(PyTorch {torch.__version__}, CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')})"
        )
