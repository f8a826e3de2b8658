"""What a budget needs of Ray's executor, without Ray: it is asked again and again, and what it says stops the run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agileact.study.running.budget import Limit, OutOfTimeError
from agileact.study.running.executors.ray import RayExecutor, _Run
from agileact.study.spec.arms import arm
from agileact.study.spec.tasks import task
from agileact.study.spec.trial import TrialSpec


class NeverReady:
    """A cluster on which no task ends; a look at it takes a second of a clock of its own."""

    def __init__(self) -> None:
        self.seconds, self.cancelled = 0.0, 0
        self.exceptions = SimpleNamespace(RayError=OSError, RayActorError=OSError)

    def remote(self, *_: Any, **__: Any) -> Any:
        made = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: object()))
        made.remote = lambda *_: SimpleNamespace(take=SimpleNamespace(remote=lambda: None))
        return lambda *_: made

    def put(self, data: object) -> object:
        return data

    def get(self, _: object) -> list[Any]:
        return []

    def wait(self, refs: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        self.seconds += 1.0
        return [], refs

    def cancel(self, _: object, **__: Any) -> None:
        self.cancelled += 1


def test_a_run_ends_when_its_time_is_over_and_its_tasks_are_cancelled():
    ray = NeverReady()
    spec = TrialSpec(task("digits-mlp").spec, arm("relu").spec, 0)
    limit = Limit(10.0, 1.0, clock=lambda: ray.seconds)
    executor = RayExecutor.__new__(RayExecutor)
    executor._ray, executor.gpus, executor.data_dir, executor.code = ray, 0.0, None, None
    executor._connected, executor._kept, executor.tick = True, True, limit.check
    with pytest.raises(OutOfTimeError):
        list(executor.run([spec]))
    assert 9.7 <= ray.seconds <= 10.7
    assert ray.cancelled == 1


def test_without_a_budget_nobody_is_asked():
    ray = NeverReady()
    run = _Run(ray, 0.0, {}, None)
    assert list(run.events([])) == []
