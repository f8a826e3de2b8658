"""What a person sees while trials run: bars in a terminal, elsewhere at most a line a minute."""

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

    A trial is expected to take as long as others of its task, and as many to run side by side as have so far. rich's
    own estimate takes every iteration for as long as the last ones, whatever the task.
    """

    def __init__(self) -> None:
        self.done = self.failed = self.total = 0
        self._waiting: Counter[TaskSpec] = Counter()
        self._later = 0
        self._running: dict[TrialSpec, list[tuple[float, int]]] = {}  # when it was at which iteration
        self._took: defaultdict[TaskSpec, list[float]] = defaultdict(list)  # seconds from start to end
        self._trained: defaultdict[TaskSpec, list[float]] = defaultdict(list)  # without what a worker begins with
        self._begun: float | None = None

    def plan(self, specs: Sequence[TrialSpec], done: int, later: int) -> None:
        """Take note of a round of trials: those that come next, how many are done, and how many follow the round."""
        self.done, self.total = done, done + len(specs) + later
        self._waiting = Counter(same_work(spec.task) for spec in specs)
        self._later = later
        self._running.clear()

    def note(self, event: Event) -> None:
        """Take note of an event."""
        now, spec, task = time.monotonic(), event.spec, same_work(event.spec.task)
        if isinstance(event, Started):
            self._begun = now if self._begun is None else self._begun
            self._running[spec] = [(now, 0)]
        elif isinstance(event, Advanced):
            self._running.setdefault(spec, [(now, 0)]).append((now, event.iteration))
        else:
            moments = self._running.pop(spec, [(now, 0)])
            self._waiting[task] -= 1
            self.done, self.failed = self.done + isinstance(event, Finished), self.failed + isinstance(event, Failed)
            if isinstance(event, Finished):
                self._took[task].append(now - moments[0][0])
                ended = event.result.curve.iteration[-1]
                rate = _rate([*moments, (now, ended)])
                self._trained[task].append(event.result.seconds if rate is None else rate * ended)

    @property
    def seconds(self) -> float | None:
        """Estimated seconds to the end; None while nothing is known."""
        now = time.monotonic()
        rates = self._rates()
        worked = sum(map(sum, self._took.values())) + sum(now - moments[0][0] for moments in self._running.values())
        if not rates or self._begun is None or worked <= 0:
            return None
        usual = statistics.mean(rates.values())
        each = {task: rates.get(task, usual) * task.budget.iterations for task in self._waiting}
        left = sum(each[task] * count for task, count in self._waiting.items())
        for spec, moments in self._running.items():
            task = same_work(spec.task)
            share = moments[-1][1] / task.budget.iterations
            left -= min(share * each[task] + (now - moments[-1][0] if share else 0.0), each[task])
        left += self._later * statistics.mean(each.values())
        side_by_side = worked / (now - self._begun)
        return left / side_by_side

    def _rates(self) -> dict[TaskSpec, float]:
        """Return seconds of an iteration by task: of trials that have ended, else of those that run."""
        promised = defaultdict(list)
        for spec, moments in self._running.items():
            if (rate := _rate(moments)) is not None:
                promised[same_work(spec.task)].append(rate)
        found = {task: statistics.mean(values) for task, values in promised.items()}
        for task, took in self._took.items():
            # The first trials of each worker took longer, by what it began with; among many they do not count.
            many = len(took) > 3 * max(1, len(self._running))
            seconds = statistics.median(took) if many else statistics.mean(self._trained[task])
            found[task] = seconds / task.budget.iterations
        return found


def _rate(moments: Sequence[tuple[float, int]]) -> float | None:
    """Return the seconds of an iteration, by the clock that all trials share; None while it cannot be known.

    From one report to another: what is before the first one is also a worker's beginning. A result's own seconds are a
    trial's share of its stack.
    """
    if len(moments) < 3 or moments[-1][1] <= moments[1][1]:
        return None
    (begin, first), (end, last) = moments[1], moments[-1]
    return (end - begin) / (last - first)


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
