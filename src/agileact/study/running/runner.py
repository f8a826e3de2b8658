"""Planned minus done, to the executor, into the store: the only writer."""

from collections.abc import Callable, Sequence
from contextlib import closing

from agileact._common.errors import TrialError
from agileact.study.running.executors import Event, Executor, Failed, Finished, FinishedTogether
from agileact.study.running.naming import trial_name
from agileact.study.running.store import Store
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import TrialSpec


def run_study(
    specs: Sequence[TrialSpec],
    store: Store,
    executor: Executor,
    on_event: Callable[[Event], None] | None = None,
) -> list[TrialResult]:
    """Run those of ``specs`` that ``store`` does not hold, store each at once, and return all results.

    Args:
        specs: The planned trials; a spec that occurs twice is run once.
        store: Holds what was done before and receives what is done now.
        executor: Where trials run.
        on_event: Called with each event, after a finished trial has been stored.

    Returns:
        The results of ``specs``, in their order.

    Raises:
        TrialError: If trials failed; the others were run and stored all the same.
    """
    planned = list(dict.fromkeys(specs))
    failures: list[Failed] = []
    ran: dict[TrialSpec, TrialResult] = {}
    # Closing the generator stops its workers, whether we leave by an error, Ctrl-C or the end.
    with closing(executor.run([spec for spec in planned if spec not in store])) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, FinishedTogether):
                store.put(*event.results)
                ran |= {result.spec: result for result in event.results}
                seen: list[Event] = [Finished(result.spec, result) for result in event.results]
            else:
                if isinstance(event, Finished):
                    store.put(event.result)
                    ran[event.spec] = event.result
                elif isinstance(event, Failed):
                    failures.append(event)
                seen = [event]
            if on_event:
                for each in seen:
                    on_event(each)
    if failures:
        raise TrialError(
            f"{len(failures)} of {len(planned)} trials failed; what finished is stored in {store.path}. "
            f"The first, {trial_name(failures[0].spec)}: {failures[0].reason}",
            "\n".join(f"{trial_name(f.spec)}: {f.reason}\n{f.details}\n" for f in failures),
        )
    found = (ran.get(spec) or store.get(spec) for spec in specs)
    return [result for result in found if result is not None]
