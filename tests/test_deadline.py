"""A deadline interrupts what computes, and nothing after it."""

from __future__ import annotations

import signal
import threading

import pytest

from agileact._common.deadline import DeadlineError, deadline


def forever():
    while True:
        try:
            sum(range(100))
        except Exception:
            raise AssertionError("it was taken for a fault") from None


def test_what_computes_for_ever_is_interrupted():
    before = signal.getsignal(signal.SIGALRM)
    for seconds in (0.02, -1.0):
        with pytest.raises(DeadlineError), deadline(seconds):
            forever()
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_who_is_ready_before_is_left_alone():
    with deadline(30.0) as ready:
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        ready()
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    with deadline(30.0):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_another_thread_has_none():
    found = []

    def use():
        with deadline(-1.0) as ready:
            ready()
            found.append(signal.getitimer(signal.ITIMER_REAL)[0])

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [0]


def test_a_deadline_that_was_lost_in_a_callback_comes_again(monkeypatch):
    class Lost:
        def __del__(self):
            try:
                forever()
            except DeadlineError:
                lost.append(True)  # as Python itself does, with a note on the terminal

    lost: list[bool] = []
    monkeypatch.setattr("agileact._common.deadline._AGAIN", 0.02)

    def loses_one():
        Lost()
        assert lost
        forever()

    with pytest.raises(DeadlineError), deadline(0.02):
        loses_one()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
