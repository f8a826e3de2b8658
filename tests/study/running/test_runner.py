from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest

from agileact._common.errors import ArgumentError, TrialError
from agileact.study.running.executors import Advanced, Failed, Finished, Started
from agileact.study.running.executors.local import LocalExecutor
from agileact.study.running.runner import run_study
from agileact.study.running.store import Store
from tests.study.builders import ScriptedExecutor, make_result, make_spec

SPECS = [make_spec(seed) for seed in range(4)]


def test_only_what_is_missing_is_run_and_results_come_in_the_planned_order(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put(make_result(SPECS[2], best_test_loss=7.0))
        executor = ScriptedExecutor()
        results = run_study([*SPECS, SPECS[0]], store, executor)
    assert executor.ran == [SPECS[0], SPECS[1], SPECS[3]]
    assert [r.spec for r in results] == [*SPECS, SPECS[0]]
    assert results[2].best_test_loss == 7.0


def test_each_trial_is_stored_before_it_is_told(tmp_path):
    with Store(tmp_path / "s") as store:

        def check(event):
            if isinstance(event, Finished):
                assert event.spec in store

        run_study(SPECS, store, ScriptedExecutor(), check)


def test_a_failed_trial_does_not_stop_the_others(tmp_path):
    with Store(tmp_path / "s") as store:
        with pytest.raises(TrialError, match=r"1 of 4 trials failed.*seed 1: told to") as caught:
            run_study(SPECS, store, ScriptedExecutor(fail=[SPECS[1]]))
        assert "the details" in caught.value.details
        assert [spec in store for spec in SPECS] == [True, False, True, True]
        assert len(run_study(SPECS, store, ScriptedExecutor())) == 4


def test_an_interrupted_run_keeps_what_it_had(tmp_path):
    with Store(tmp_path / "s") as store:
        with pytest.raises(KeyboardInterrupt):
            run_study(SPECS, store, ScriptedExecutor(stop_after=2))
        assert len(store) == 2


@pytest.mark.slow
def test_local_workers_return_the_same_bits_for_any_number_of_jobs():
    def run(jobs):
        events = list(LocalExecutor(jobs).run(SPECS[:2]))
        assert {type(e) for e in events} == {Started, Advanced, Finished}
        results = {e.spec: e.result for e in events if isinstance(e, Finished)}
        return [(results[s].curve, results[s].probe, results[s].layers) for s in SPECS[:2]]

    assert run(1) == run(2)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_trial_run_again():
    specs = [make_spec(iterations=300, evaluate_every=100), make_spec(1)]
    killed = False
    finished = []
    with contextlib.closing(LocalExecutor(1).run(specs)) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, Started) and not killed:
                os.kill(_children()[-1], signal.SIGKILL)
                killed = True
            if isinstance(event, Finished):
                finished.append(event.spec)
            assert not isinstance(event, Failed)
    assert finished == specs


@pytest.mark.slow
def test_a_trial_that_loses_two_workers_fails_and_the_rest_goes_on():
    events = []
    with contextlib.closing(LocalExecutor(1).run(SPECS[:2])) as running:  # type: ignore[type-var]
        for event in running:
            events.append(event)
            if isinstance(event, Started) and event.spec == SPECS[0]:
                os.kill(_children()[-1], signal.SIGKILL)
    assert [e.spec.seed for e in events if isinstance(e, Failed)] == [0]
    assert "lost 2 times (killed by signal 9)" in next(e.reason for e in events if isinstance(e, Failed))
    assert [e.spec.seed for e in events if isinstance(e, Finished)] == [1]


def test_a_bad_trial_is_one_line_and_the_worker_lives_on():
    events = list(LocalExecutor(1).run([make_spec(name="mnist5k-splat"), SPECS[0]]))
    failed = [e for e in events if isinstance(e, Failed)]
    assert len(failed) == 1
    assert "mnist5k-splat" in failed[0].reason
    assert [e.spec for e in events if isinstance(e, Finished)] == [SPECS[0]]


@pytest.mark.slow
def test_closing_the_executor_ends_its_workers():
    events = LocalExecutor(2).run([make_spec(seed, iterations=100_000) for seed in range(2)])
    assert isinstance(next(events), Started)
    assert isinstance(next(events), Started)
    assert len(_children()) == 2
    events.close()  # type: ignore[attr-defined]
    assert _children() == []


@pytest.mark.slow
def test_within_a_with_block_workers_live_on_and_are_replaced_when_they_died():
    with LocalExecutor(1) as executor:
        assert isinstance(list(executor.run(SPECS[:1]))[-1], Finished)
        first = _children()
        assert isinstance(list(executor.run(SPECS[1:2]))[-1], Finished)
        assert _children() == first
        os.kill(first[0], signal.SIGKILL)
        events = list(executor.run(SPECS[:1]))
        assert isinstance(events[-1], Finished)
        assert _children() != first
    assert _children() == []


@pytest.mark.slow
def test_workers_that_began_early_run_the_trials():
    with LocalExecutor(1) as executor:
        executor.warm()
        executor.warm()
        first = _children()
        assert len(first) == 1
        assert isinstance(list(executor.run(SPECS[:1]))[-1], Finished)
        assert _children() == first
    assert _children() == []


def test_no_jobs_is_refused():
    with pytest.raises(ArgumentError, match="jobs must be at least 1, not 0"):
        LocalExecutor(0)


def _children() -> list[int]:
    """Return the worker processes of this process, oldest first (Linux)."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/stat", encoding="utf-8") as stat:
                fields = stat.read().rpartition(")")[2].split()
            with open(f"/proc/{name}/cmdline", encoding="utf-8") as command:
                if int(fields[1]) == os.getpid() and fields[0] != "Z" and "executors.worker" in command.read():
                    found.append((int(fields[19]), int(name)))
    return [pid for _, pid in sorted(found)]


@pytest.mark.slow
def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path):
    import subprocess
    import sys

    code = (
        "from agileact.study.running.executors.local import LocalExecutor\n"
        "from tests.study.builders import make_spec\n"
        "for event in LocalExecutor(1).run([make_spec(iterations=1_000_000, evaluate_every=1000, probe_every=0)]):\n"
        "    print(type(event).__name__, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "Started"
    assert process.stdout.readline().strip() == "Advanced"
    worker = [int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(name) == process.pid]
    assert len(worker) == 1
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 240
    while _parent(str(worker[0])) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _parent(str(worker[0])) is None


def _parent(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[1])
