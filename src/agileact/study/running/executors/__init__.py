"""Where trials run; every executor takes specs and yields events, none writes the store."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import TrialSpec


@dataclass(frozen=True)
class Started:
    """A trial has begun."""

    spec: TrialSpec


@dataclass(frozen=True)
class Advanced:
    """A running trial has reached ``iteration`` with this loss on its last batch."""

    spec: TrialSpec
    iteration: int
    loss: float


@dataclass(frozen=True)
class Finished:
    """A trial has returned its result."""

    spec: TrialSpec
    result: TrialResult


@dataclass(frozen=True)
class FinishedTogether:
    """The trials of one stack have returned; they are stored together or not at all."""

    results: tuple[TrialResult, ...]


@dataclass(frozen=True)
class Failed:
    """A trial could not be run; ``reason`` is one line, ``details`` whatever more is known."""

    spec: TrialSpec
    reason: str
    details: str = ""


Event = Started | Advanced | Finished | Failed


def ended(message: Mapping[str, Any], group: Sequence[TrialSpec]) -> Iterator[Event | FinishedTogether]:
    """Yield what the last event of a worker, from ``child_process.outcome``, tells of its stack."""
    if message["event"] == "failed":
        yield from (Failed(spec, message["reason"], message["details"]) for spec in group)
        return
    results = tuple(map(TrialResult.from_json, message["results"]))
    yield Finished(results[0].spec, results[0]) if len(results) == 1 else FinishedTogether(results)


class Executor(Protocol):
    """Runs trials somewhere; local processes, a cluster and a test double look alike to the runner."""

    def run(self, specs: Sequence[TrialSpec]) -> Iterator[Event | FinishedTogether]:
        """Run ``specs``, started in their order, and yield what happens; closing the iterator stops all."""
        ...


class Elsewhere(Executor, Protocol):
    """An executor of other processes, which import the user's modules anew.

    Attributes:
        code: Folder with the copy of these modules that trials run; None for the modules as they are found.
        tick: Called at least once a second while trials run; an error that it raises stops them.
    """

    code: Path | None
    tick: Callable[[], None] | None
