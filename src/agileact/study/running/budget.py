"""A time that a run keeps to: what is planned shrinks while it would take longer, for all arms alike."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

from agileact._common.deadline import CLOSING
from agileact.study.running.conduct import Results
from agileact.study.running.cost import START_SECONDS
from agileact.study.running.executors import Event, Executor, Finished, Started
from agileact.study.running.planner import Plan, plan
from agileact.study.running.runner import run_study
from agileact.study.running.store import Store
from agileact.study.spec.protocol import Study
from agileact.study.training.stacked import stacks

_CLOSING_OF_BEGINNING = 0.4
"""Verdict and report take about so many times as long as the process took to begin, on a slow machine too."""
_BATCH = 0.1
"""How often the plan is looked at again: after about this share of the time."""
MARGIN = 1.05
"""Trials are expected to take so many times as long as those before."""

_LAST = 4
"""So many trials tell how fast they are now."""
_SAME_END = 0.1
"""Trials that end within this share of their time ended together, as those of a stack do."""


class OutOfTimeError(Exception):
    """The time is over."""


class Limit:
    """How much time is left, and how many trials fit into it.

    Args:
        seconds: The whole time, which began when this is made.
        expected: Seconds that a trial takes of it before one was seen: of one core, by the number of cores.
        clock: Returns seconds.
        begun: When the time began; None for now.
        beginning: Seconds that the process took to begin; they tell how long verdict and report take.
    """

    def __init__(
        self,
        seconds: float,
        expected: float,
        clock: Callable[[], float] = time.monotonic,
        begun: float | None = None,
        beginning: float = 0.0,
    ) -> None:
        self.seconds, self._expected, self._clock = seconds, expected, clock
        self.closing = max(CLOSING * seconds, _CLOSING_OF_BEGINNING * beginning)
        self.end = (clock() if begun is None else begun) + seconds - self.closing
        self._started: float | None = None
        self._first: float | None = None
        self._latest: list[float] = []
        self._stacks: set[int] = set()  # where in them a stack begins, or a trial alone

    @property
    def left(self) -> float:
        """Seconds in which trials may still run."""
        return self.end - self._clock()

    @property
    def each(self) -> float:
        """Seconds that one more trial takes, as far as is known: those of all so far, or of the last few if longer."""
        if self._first is None or not self._latest:
            return self._expected
        begin, count = self._first, len(self._latest)
        means = [(self._latest[-1] - begin) / count]
        # The trials of a stack end together: a part of it says nothing of how long they took.
        first = next((at for at in range(count - _LAST, 0, -1) if at in self._stacks), 0)
        if first:
            means.append((self._latest[-1] - self._latest[first - 1]) / (count - first))
        return max(means)

    @property
    def at_once(self) -> int:
        """How many trials run before the plan is looked at again: none while it is not known how slow they are."""
        return int(_BATCH * self.seconds / self.each) if self._latest and self.each > 0 else 0

    def enough(self, missing: int) -> float:
        """Return about how long the whole time would have to be for so many more trials."""
        if self._latest or self._started is None:
            return self.seconds + missing * self.each * MARGIN
        # Of workers that have returned nothing yet it is not known how long they begin: as long again, perhaps. On a
        # machine that does other things, trials are as much slower than timed as this beginning is.
        begins = self._clock() - self._started
        slower = max(1.0, begins / (START_SECONDS + self._expected))
        return self.seconds + begins + missing * self.each * slower * MARGIN

    def check(self) -> None:
        """Raise OutOfTimeError if the time is over."""
        if self.left <= 0:
            raise OutOfTimeError

    def note(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, Started) and self._started is None:
            self._started = self._clock()
        elif isinstance(event, Finished):
            now = self._clock()
            if self._first is None:
                # What its worker began with, such as imports, comes once.
                self._first = now - event.result.seconds
            # One that ended much later than its share of the work is of another stack, or of another worker's.
            if not self._latest or now - self._latest[-1] > _SAME_END * event.result.seconds:
                self._stacks.add(len(self._latest))
            self._latest.append(now)

    def fitting(self, sizes: Sequence[Study], known: Results) -> tuple[Study, Plan]:
        """Return the first study whose missing trials fit into the time that is left, else the last; and its plan."""
        room, stored = self.left, len(known)
        for place, study in enumerate(sizes[:-1]):
            # To plan is to look at every trial: not where all that is stored could not be enough.
            if place and (study.most_trials - stored) * self.each * MARGIN > room:
                continue
            current = plan(study, known)
            missing = 0 if current.finished else study.most_trials - current.done
            if missing * self.each * MARGIN <= room:
                return study, current
        return sizes[-1], plan(sizes[-1], known)


def smaller(study: Study) -> Iterator[Study]:
    """Yield the study, and ever smaller ones whose trials are among its own: fewer replicates, seeds, and points.

    Example:
        >>> from agileact.study.spec.arms import arm
        >>> from agileact.study.spec.protocol import Protocol
        >>> from agileact.study.spec.tasks import task
        >>> protocol = Protocol(trials=5, seeds=tuple(range(7)))
        >>> study = Study("s", (arm("relu"), arm("prelu")), (task("paper-mlp"),), protocol)
        >>> [(len(p.seeds), p.trials, len(p.tuning_seeds)) for p in (one.protocol for one in smaller(study))][:5]
        [(7, 5, 2), (6, 5, 2), (6, 4, 2), (6, 4, 1), (5, 4, 1)]
    """
    yield study
    protocol = study.protocol
    # One replicate would choose by another rule by itself.
    choose = "within-noise" if protocol.chooses_within_noise else protocol.choose

    def changed(**changes: object) -> Study:
        nonlocal protocol
        protocol = dataclasses.replace(protocol, choose=choose, **changes)  # type: ignore[arg-type]
        return dataclasses.replace(study, protocol=protocol)

    def shrunk(name: str, least: int) -> Iterator[Study]:
        while len(values := getattr(protocol, name)) > least:
            yield changed(**{name: values[:-1]})

    def tuned_less() -> Iterator[Study]:
        if protocol.tune:
            least = min(4, protocol.trials) if study.searches else len(protocol.lr)
            while protocol.trials > least:
                yield changed(trials=protocol.trials - 1)
            yield from shrunk("tuning_seeds", 1)

    def repeated_less(least: int) -> Iterator[Study]:
        while protocol.replicates > least:
            yield changed(replicates=protocol.replicates - 1)

    if protocol.replicates > 1:
        # A test needs so many replicates: rather fewer seeds and points in each.
        yield from repeated_less(study.least_seeds)
        yield from shrunk("seeds", 1)
        yield from tuned_less()
        yield from repeated_less(1)
    else:
        yield from shrunk("seeds", study.least_seeds)
        yield from tuned_less()
        yield from shrunk("seeds", 1)


def conduct_within(
    limit: Limit,
    study: Study,
    store: Store,
    executor: Executor,
    *,
    results: Results | None = None,
    jobs: int = 1,
    on_plan: Callable[[Study, Plan, int], Callable[[Event], None] | None] = lambda study, current, now: None,
) -> tuple[Study, Plan]:
    """Run what the study lacks until the time is over, and return the part of it that is complete, with its plan.

    The plan is looked at again and again; a part that would not fit is left out, and comes back if there is time.
    Called again with a new limit it goes on from the store. If not even the smallest part is complete, that is
    returned, unfinished.

    Args:
        limit: The time.
        study: The study, with the fingerprints of its data (:func:`agileact.study.running.conduct.identified`).
        store: Holds what was done before and receives what is done now.
        executor: Where trials run.
        results: The store's results as far as they were read before.
        jobs: How many trials run side by side.
        on_plan: Called before each batch with the part that is carried out, its plan, and how many trials come now;
            what it returns is called with each event of the batch.

    Raises:
        TrialError: If trials failed; the others of that batch were run and stored all the same.
    """
    known = Results(store) if results is None else results
    sizes = list(smaller(study))
    if hasattr(executor, "tick"):
        executor.tick = limit.check  # also while nothing happens
    try:
        while True:
            part, current = limit.fitting(sizes, known)
            # Replicate after replicate: whole ones count. In each, tuning first; of that first what the smallest study
            # needs, then seed after seed: how slow the run is shows only while it runs.
            least = set(plan(sizes[-1], known).next)
            waiting = sorted(
                current.next,
                key=lambda spec: (spec.task.data.split, spec.task.budget.use_test, spec not in least, spec.seed),
            )
            # First one of each stack, alone: what a part of a stack takes, and how fast workers begin, is not known.
            batch = [stack[0] for stack in stacks(waiting)][:jobs]
            if limit.at_once:
                batch = waiting[: max(jobs, limit.at_once)]
            show = on_plan(part, current, len(batch))
            if current.finished:
                break
            limit.check()

            def seen(event: Event, show: Callable[[Event], None] | None = show) -> None:
                if isinstance(event, Finished):
                    known.add(event.result)
                limit.note(event)
                if show:
                    show(event)
                limit.check()

            run_study(batch, store, executor, seen)
    except OutOfTimeError:
        pass
    finally:
        if hasattr(executor, "tick"):
            executor.tick = None
    for part in sizes:
        current = plan(part, known)
        if current.finished:
            break
    return part, current
