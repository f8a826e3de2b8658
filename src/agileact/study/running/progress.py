"""What a person sees while trials run: bars in a terminal, elsewhere at most a line a minute."""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from agileact._common.optional import require
from agileact._common.terminal import printable
from agileact.study.running.executors import Advanced, Event, Failed, Finished, Started
from agileact.study.running.naming import same_work, trial_name
from agileact.study.spec.protocol import Study
from agileact.study.spec.trial import TaskSpec, TrialSpec

_SECONDS_BETWEEN_LINES = 60.0


class Remaining:
    """Counts the trials of a whole run, over all its rounds, and estimates the time left.

    A task's trials take as long as those that have ended, or as the running ones so far promise; how many run side by
    side is what the work done so far took on the clock. rich's own estimate takes every iteration for as long as the
    last ones, whatever the task.
    """

    def __init__(self) -> None:
        self.done = self.failed = self.total = 0
        self._waiting: Counter[TaskSpec] = Counter()
        self._later = 0
        self._running: dict[TrialSpec, tuple[float, float]] = {}  # since when, and seconds of an iteration, once known
        self._took: defaultdict[TaskSpec, list[float]] = defaultdict(list)
        self._begun: float | None = None

    def plan(self, specs: Sequence[TrialSpec], done: int, later: int) -> None:
        """Take note of a round of trials: those that come next, how many are done, and how many follow the round."""
        self.done, self.total = done, done + len(specs) + later
        self._waiting = Counter(same_work(spec.task) for spec in specs)
        self._later = later
        self._running.clear()

    def note(self, event: Event) -> None:
        """Take note of an event."""
        now, spec = time.monotonic(), event.spec
        if isinstance(event, Started):
            self._begun = now if self._begun is None else self._begun
            self._running[spec] = (now, 0)
        elif isinstance(event, Advanced):
            since, _ = self._running.get(spec, (now, 0))
            self._running[spec] = (since, (now - since) / event.iteration)
        else:
            since, _ = self._running.pop(spec, (now, 0))
            self._waiting[same_work(spec.task)] -= 1
            self.done, self.failed = self.done + isinstance(event, Finished), self.failed + isinstance(event, Failed)
            if isinstance(event, Finished):
                self._took[same_work(spec.task)].append(now - since)

    @property
    def seconds(self) -> float | None:
        """Estimated seconds to the end; None while nothing is known."""
        now = time.monotonic()
        # Seconds of an iteration: of trials that have ended, else of those that run, else as in the other tasks.
        rates = {task: statistics.mean(took) / task.budget.iterations for task, took in self._took.items()}
        promised = defaultdict(list)
        for spec, (_, rate) in self._running.items():
            if rate:
                promised[same_work(spec.task)].append(rate)
        rates = {task: statistics.mean(found) for task, found in promised.items()} | rates
        if not rates or self._begun is None:
            return None
        usual = statistics.mean(rates.values())
        each = {task: rates.get(task, usual) * task.budget.iterations for task in self._waiting}
        at_work = sum(min(now - since, each[same_work(spec.task)]) for spec, (since, _) in self._running.items())
        work = sum(map(sum, self._took.values())) + at_work
        left = sum(each[task] * count for task, count in self._waiting.items()) - at_work
        left += self._later * statistics.mean(each.values())
        return left * (now - self._begun) / work if work > 0 else None


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


def outcome(event: Finished | Failed) -> str:
    """Return the outcome of a trial in a few words."""
    if isinstance(event, Failed):
        return f"FAILED, {event.reason}"
    result = event.result
    diverged = "diverged; " if result.status == "diverged" else ""
    if result.best_test_loss is not None:
        return f"{diverged}lowest test loss {result.best_test_loss:.4f} at iteration {result.best_iteration}"
    if result.selected_iteration is None:
        return result.status
    lowest = result.curve.validation_loss[result.curve.iteration.index(result.selected_iteration)]
    return f"{diverged}lowest validation loss {lowest:.4f} at iteration {result.selected_iteration}"


class Display:
    """Shows the events of a run, with one counter over all its rounds.

    Args:
        study: Gives arms and tasks their names.
        stream: Where to show it.
        bars: rich's progress, where there is a terminal to draw it on.
    """

    def __init__(self, study: Study | None, stream: IO[str], bars: Any = None) -> None:
        self._study, self._stream, self._bars = study, stream, bars
        self._remaining = Remaining()
        self._tasks: dict[TrialSpec, Any] = {}
        self._whole = bars and bars.add_task("all trials", total=None, detail="")
        self._spoken = -_SECONDS_BETWEEN_LINES
        self._begun = time.monotonic()

    def plan(self, specs: Sequence[TrialSpec], done: int = 0, later: int = 0) -> None:
        """Show a round of trials; arguments as for :meth:`Remaining.plan`."""
        self._remaining.plan(specs, done, later)
        while self._tasks:
            self._bars.remove_task(self._tasks.popitem()[1])

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self._remaining.note(event)
        (self._say if self._bars is None else self._draw)(event)

    def _state(self) -> str:
        known = self._remaining
        failed = f", {known.failed} failed" if known.failed else ""
        return f"{known.done} of {known.total} trials{failed}"

    def _left(self) -> str:
        seconds = self._remaining.seconds
        return "" if seconds is None else f"about {format_duration(seconds)} left"

    def _named(self, event: Event) -> str:
        said = trial_name(event.spec, self._study)
        if isinstance(event, Advanced):
            return f"{said}: iteration {event.iteration}, loss {event.loss:.4f}"
        return said if isinstance(event, Started) else f"{said}: {outcome(event)}"

    def _say(self, event: Event) -> None:
        now, known = time.monotonic(), self._remaining
        end = known.done + known.failed == known.total and not isinstance(event, (Started, Advanced))
        due = now - self._spoken >= _SECONDS_BETWEEN_LINES and not isinstance(event, Started)
        # The first failure is said at once; all of them are listed at the end.
        if not (due or end or (isinstance(event, Failed) and known.failed == 1)):
            return
        if isinstance(event, Advanced) and now - self._begun < _SECONDS_BETWEEN_LINES:
            return
        self._spoken = now
        left = f"in {format_duration(now - self._begun)}" if end else self._left()
        state = ", ".join(part for part in (self._state(), left) if part)
        print(printable(f"{state}; {self._named(event)}", self._stream), file=self._stream, flush=True)

    def _draw(self, event: Event) -> None:
        spec, bars = event.spec, self._bars
        if isinstance(event, Started):
            text = printable(trial_name(spec, self._study), self._stream)
            self._tasks[spec] = bars.add_task(text, total=spec.task.budget.iterations, detail="starting")
        elif isinstance(event, Advanced) and spec in self._tasks:
            detail = f"iteration {event.iteration}/{spec.task.budget.iterations}, loss {event.loss:.4f}"
            bars.update(self._tasks[spec], completed=event.iteration, detail=detail)
        elif isinstance(event, (Finished, Failed)):
            if spec in self._tasks:
                bars.remove_task(self._tasks.pop(spec))
            text = printable(self._named(event), self._stream)
            bars.console.print(text, highlight=False, markup=False, emoji=False)
        known = self._remaining
        detail = ", ".join(part for part in (self._state(), self._left()) if part)
        bars.update(self._whole, completed=known.done + known.failed, total=known.total, detail=detail)


@contextmanager
def display(study: Study | None = None, stream: IO[str] | None = None) -> Iterator[Display]:
    """Show the progress of a run on ``stream`` (standard error unless given) while the block runs."""
    stream = sys.stderr if stream is None else stream
    console = require("rich.console", "study").Console(file=stream) if stream.isatty() else None
    if console is None or console.is_dumb_terminal:
        yield Display(study, stream)
        return
    rich = require("rich.progress", "study")
    columns = (
        # Names are a user's text and never rich's markup.
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(bar_width=24),
        rich.TextColumn("{task.fields[detail]}", markup=False),
    )
    with rich.Progress(*columns, console=console, transient=True) as bars:
        yield Display(study, stream, bars)
