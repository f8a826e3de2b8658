from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import agileact as ag
from agileact._common.errors import ArgumentTypeError
from agileact.integrations import report


def monitored(steps: int = 2) -> ag.Monitor:
    activation = ag.AgileSigmoid(3)
    monitor = ag.Monitor(nn.Sequential(nn.Linear(4, 3), activation), activations_every=None)
    for step in range(1, steps + 1):
        with torch.no_grad():
            activation.scale.fill_(1.0 + step)
        monitor.step()
    return monitor


class Run:
    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, float], int]] = []

    def log(self, data: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.calls.append((data, step))


class MetricsModule:
    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, float], int]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.calls.append((metrics, step))


@pytest.mark.parametrize("kind", [Run, MetricsModule])
def test_a_run_and_a_metrics_logger_get_each_step_once(kind: Any):
    logger, monitor = kind(), monitored()
    written = report(monitor, logger)
    assert [step for _, step in logger.calls] == [0, 1, 2]
    assert sum(len(metrics) for metrics, _ in logger.calls) == written
    assert [metrics["agileact/1/scale/max"] for metrics, _ in logger.calls] == [1.0, 2.0, 3.0]
    logger.calls.clear()
    monitor.step()
    report(monitor, logger, prefix="agileact")
    assert [step for _, step in logger.calls] == [3]
    assert report(monitor, logger) == 0


def test_tensorboard_writes_a_file_that_reads_back(tmp_path: Path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        report(monitored(), writer)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("agileact/1/scale/max")] == [1.0, 2.0, 3.0]


def test_what_is_no_logger_is_refused_with_what_would_be_one():
    with pytest.raises(ArgumentTypeError, match=r"logger must have log\(metrics, step=\.\.\.\).*int is none"):
        report(monitored(), 3)
