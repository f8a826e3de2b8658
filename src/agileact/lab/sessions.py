"""What the server keeps for each open page, a bounded table from which the page that was quiet longest goes first."""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from agileact._common.errors import ArgumentError

T = TypeVar("T")
_KEY = re.compile(r"[0-9a-f]{32}")


class Sessions(Generic[T]):
    """A table from an open page to its state, which holds at most ``limit`` of them."""

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, T] = OrderedDict()
        self.alone = threading.RLock()
        """Held, it lets no other request near the table, or what is in it."""

    def get(self, key: Any) -> T | None:
        """Return what is kept for the page, or None."""
        with self.alone:
            name = _checked(key)
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def put(self, key: Any, state: T) -> None:
        """Keep ``state`` for the page."""
        with self.alone:
            self._kept[_checked(key)] = state
            self._kept.move_to_end(key)
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)


def current_run(
    table: Sessions[Any], key: Any, spec: Any, make: Callable[[Any], T], steps: int | None, taken: Any
) -> tuple[T, bool]:
    """Return the page's run, and whether the one that the page shows, ``taken`` steps on, had been put away.

    Another spec than the run's begins anew, as does None for the steps that are asked for.
    """
    run = table.get(key)
    lost = steps is not None and run is None and bool(taken)
    if run is None or run.spec != spec or steps is None:
        run = make(spec)
        table.put(key, run)
    return run, lost


def steps_asked(triggers: Iterable[str], steps: Mapping[str, int]) -> int | None:
    """Return how many steps a page asks for by the ids that a call names; None is a run from the start.

    What happens while a browser is busy comes as one call with several triggers: of "one more" and "from the start"
    the second counts, in whatever order they are named. When the page opens there is none.

    Example:
        >>> steps = {"go": 10, "step": 1}
        >>> steps_asked(["go"], steps), steps_asked(["go", "step"], steps), steps_asked(["go", "reset"], steps)
        (10, 11, None)
    """
    asked = list(triggers)
    return sum(steps[key] for key in asked) if asked and all(key in steps for key in asked) else None


def _checked(key: Any) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ArgumentError("the page has no key; load it again")
    return key
