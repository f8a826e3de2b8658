"""What a person sees while trials run: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any, Protocol

from agileact._common.optional import require
from agileact._common.terminal import printable
from agileact.study.running.executors import Advanced, Event, Failed, Finished, Started
from agileact.study.running.runner import describe
from agileact.study.spec.trial import TrialSpec


class Display(Protocol):
    """Shows events of a running study."""

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        ...


class Remaining:
    """Estimates the time left from the iterations that were taken since the start."""

    def __init__(self, specs: Sequence[TrialSpec]) -> None:
        self.total = sum(spec.task.budget.iterations for spec in specs)
        self.done = 0
        self._running: dict[TrialSpec, int] = {}
        self._start = time.monotonic()

    def note(self, event: Event) -> None:
        """Count what ``event`` tells of iterations."""
        if isinstance(event, Advanced):
            self._running[event.spec] = event.iteration
        elif isinstance(event, (Finished, Failed)):
            self._running.pop(event.spec, None)
            self.done += event.spec.task.budget.iterations

    @property
    def iterations(self) -> int:
        """Iterations taken so far, running trials included."""
        return self.done + sum(self._running.values())

    @property
    def seconds(self) -> float | None:
        """Estimated seconds to the end; None while nothing is known."""
        if not self.iterations:
            return None
        return (time.monotonic() - self._start) * (self.total - self.iterations) / self.iterations


def format_duration(seconds: float | None) -> str:
    """Return a duration for people.

    Example:
        >>> format_duration(3725), format_duration(65), format_duration(None)
        ('1 h 02 min', '1 min 05 s', 'unknown')
    """
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@contextmanager
def display(specs: Sequence[TrialSpec], stream: IO[str] | None = None) -> Iterator[Display]:
    """Show the progress of ``specs`` on ``stream`` (standard error unless given) while the block runs."""
    stream = sys.stderr if stream is None else stream
    shown: AbstractContextManager[Display] = _live(specs, stream) if _can_draw(stream) else _lines(specs, stream)
    with shown as show:
        yield show


def _can_draw(stream: IO[str]) -> bool:
    """Return whether a stream is a terminal on which lines can be drawn anew."""
    return stream.isatty() and not require("rich.console", "study").Console(file=stream).is_dumb_terminal


@contextmanager
def _lines(specs: Sequence[TrialSpec], stream: IO[str]) -> Iterator[Display]:
    """Print a line when a trial ends, and one every 20 seconds while it runs."""
    remaining = Remaining(specs)
    ended = 0
    spoken: dict[TrialSpec, float] = {}

    def show(event: Event) -> None:
        nonlocal ended
        remaining.note(event)
        name = printable(describe(event.spec), stream)
        now = time.monotonic()
        if isinstance(event, Started):
            spoken[event.spec] = now
            return
        if isinstance(event, Advanced):
            if now - spoken.get(event.spec, now) < 20:
                return
            spoken[event.spec] = now
            text = f"{name}: iteration {event.iteration}, loss {event.loss:.4f}"
        elif isinstance(event, Finished):
            ended += 1
            text = f"[{ended}/{len(specs)}] {name}: {outcome(event)}"
        else:
            ended += 1
            text = f"[{ended}/{len(specs)}] {name}: FAILED, {event.reason}"
        print(f"{text}; left {format_duration(remaining.seconds)}", file=stream, flush=True)

    yield show


def outcome(event: Finished) -> str:
    """Return the outcome of a trial in a few words."""
    result = event.result
    diverged = "diverged; " if result.status == "diverged" else ""
    if result.best_test_loss is None:
        if result.selected_iteration is None:
            return result.status
        lowest = result.curve.validation_loss[result.curve.iteration.index(result.selected_iteration)]
        return f"{diverged}lowest validation loss {lowest:.4f} at iteration {result.selected_iteration}"
    return f"{diverged}lowest test loss {result.best_test_loss:.4f} at iteration {result.best_iteration}"


@contextmanager
def _live(specs: Sequence[TrialSpec], stream: IO[str]) -> Iterator[Display]:
    """Draw a bar for all trials and one for each that runs."""
    console = require("rich.console", "study").Console(file=stream)
    bars = require("rich.progress", "study")
    progress = bars.Progress(
        # Names are a user's text and never rich's markup.
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=24),
        bars.TextColumn("{task.fields[position]}", markup=False),
        bars.TextColumn("{task.fields[detail]}", markup=False),
        console=console,
        transient=True,
    )
    remaining = Remaining(specs)
    ended = 0
    tasks: dict[TrialSpec, Any] = {}
    with progress:
        whole = progress.add_task("all trials", total=remaining.total, position=f"0/{len(specs)}", detail="")

        def show(event: Event) -> None:
            nonlocal ended
            remaining.note(event)
            spec = event.spec
            total = spec.task.budget.iterations
            if isinstance(event, Started):
                tasks[spec] = progress.add_task(
                    printable(describe(spec), stream), total=total, position="starting", detail=""
                )
            elif isinstance(event, Advanced) and spec in tasks:
                progress.update(
                    tasks[spec],
                    completed=event.iteration,
                    position=f"iteration {event.iteration}/{total}",
                    detail=f"loss {event.loss:.4f}",
                )
            elif isinstance(event, (Finished, Failed)):
                ended += 1
                if spec in tasks:
                    progress.remove_task(tasks.pop(spec))
                text = outcome(event) if isinstance(event, Finished) else f"FAILED, {event.reason}"
                console.print(
                    printable(f"{describe(spec)}: {text}", stream), highlight=False, markup=False, emoji=False
                )
            progress.update(
                whole,
                completed=remaining.iterations,
                position=f"{ended}/{len(specs)}",
                detail=f"left {format_duration(remaining.seconds)}",
            )

        yield show
