"""A time after which the main thread is interrupted, whatever it computes, imports or waits for."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

LATEST = 0.95
"""The share of a budget after which no first trial begins: the process has to end within it, too."""
CLOSING = 0.03
"""The share of a budget that verdict and report have at least."""

_AGAIN = 1.0
"""Seconds after which it is raised again: in a callback of the garbage collector an exception leads nowhere."""


class DeadlineError(BaseException):
    """The time is over. No Exception: who catches those takes them for a fault of what was running."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[Callable[[], None]]:
    """Raise a DeadlineError in the block after so many seconds, unless what this gives is called before.

    Systems without interval timers, and threads that are not the main one, have no such time.

    Example:
        >>> with deadline(60.0) as met:
        ...     met()
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def over(number: int, frame: FrameType | None) -> NoReturn:
        raise DeadlineError

    def met() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)

    before = signal.signal(signal.SIGALRM, over)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), _AGAIN)  # 0 would be none at all
        yield met
    finally:
        met()
        signal.signal(signal.SIGALRM, before)
