"""A study run as a user runs it, and all that can end it: no finished trial lost, none run twice, same numbers."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agileact.study.commands.yaml_file import read_study
from agileact.study.models import subseed
from agileact.study.running.conduct import conduct, identified
from agileact.study.running.store import Store
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import TrialSpec
from tests.study.builders import HereExecutor
from tests.study.processes import Command, Forks, forks, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are found in /proc (Linux)"),
]

HERE = "tests.study.engine_of_a_user"
SEEDS = 8
STUDY = f"""
name: engine
arms: [relu, agile-relu]
tasks:
  - name: small
    data: {{name: custom, target: "{HERE}:load"}}
    model: {{name: custom, target: "{HERE}:build"}}
    budget: {{iterations: 30, batch_size: 10, evaluate_every: 10, test_curve: false}}
protocol: {{tune: false, seeds: {SEEDS}}}
"""
TRIALS = 2 * SEEDS


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "engine.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def log(spec: Path) -> Path:
    return spec.with_name("starts.log")


@pytest.fixture(scope="module")
def commands(log: Path) -> Iterator[Forks]:
    with forks(AGILEACT_TEST_LOG=str(log)) as started:
        yield started


def numbers(result: TrialResult) -> TrialResult:
    """Return a result without the times that were measured."""
    return dataclasses.replace(result, seconds=0.0, seconds_per_iteration=0.0)


@pytest.fixture(scope="module")
def undisturbed(spec: Path) -> dict[TrialSpec, TrialResult]:
    """What the study gives when nothing disturbs it."""
    study, _ = identified(read_study(spec))
    with Store(spec.with_name("undisturbed.sqlite")) as store:
        plan = conduct(study, store, HereExecutor())
        assert plan.finished
        specs = [run for cell in study.arms for run in trials(study, cell)]
        return {result.spec: numbers(result) for result in store.collect(specs)}


def trials(study, arm) -> list[TrialSpec]:
    from agileact.study.running.planner import plan

    return [one for one in plan(study, lambda spec: None).next if one.arm == arm.spec]


def stored(out: Path) -> dict[str, tuple[int, str]]:
    """Return place and content of every stored trial, by key; the measured times in it are unlike in every run."""
    path = out / "store.sqlite"
    if not path.exists():
        return {}
    # To look is to bring in order what a killed runner left, which must be allowed to write.
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'trials'").fetchone():
            return {}  # killed before there was a table
        rows = connection.execute("SELECT key, rowid, result FROM trials").fetchall()
    return {key: (rowid, hashlib.sha256(text.encode()).hexdigest()) for key, rowid, text in rows}


def starts(log: Path) -> int:
    return log.read_text().count("\n") if log.exists() else 0


def results(out: Path, specs: Sequence[TrialSpec]) -> dict[TrialSpec, TrialResult]:
    with Store(out / "store.sqlite", read_only=True) as store:
        return {result.spec: numbers(result) for result in store.collect(specs)}


def run(commands: Forks, spec: Path, out: Path, *more: str, **settings: int) -> Command:
    out.mkdir(parents=True, exist_ok=True)
    argv = ("study", "run", str(spec), "--out", str(out), "--jobs", "1", *more)
    return commands.start(spec.parent, *argv, **settings)


def test_the_runner_killed_at_ten_random_moments_then_a_second_runner_then_a_worker_killed(
    commands, spec, log, undisturbed, tmp_path
):
    moments = random.Random(5)
    names = {(subseed(one.seed, "weights"), one.arm.activations[0][1].startswith("agile")): one for one in undisturbed}
    seen: dict[str, tuple[int, str]] = {}
    when: dict[str, int] = {}
    killed = []
    for _ in range(10):
        command = run(commands, spec, tmp_path)
        if moments.random() < 0.4:  # while the runner reads, locks, opens and starts its worker
            time.sleep(moments.uniform(0.0, 1.0))
        else:  # while trials run and are stored
            begun = starts(log) + moments.randrange(1, 4)
            assert until(lambda begun=begun: starts(log) >= begun)
            time.sleep(moments.uniform(0.0, 0.2))
        command.signal(signal.SIGKILL)
        assert command.wait() == -signal.SIGKILL
        killed.append(command)
        now = stored(tmp_path)
        assert seen.items() <= now.items()  # nothing lost, nothing written anew
        when |= {key: time.time_ns() for key in now.keys() - seen.keys()}
        seen = now
        # What was told to be finished is stored.
        assert sum(line.startswith("[") for each in killed for line in each.err.splitlines()) <= len(seen)
    assert 0 < len(seen) < TRIALS, "the moments are too early or too late to mean anything"
    # The last run meets a second runner, and loses a worker.
    begun = starts(log)
    last = run(commands, spec, tmp_path)
    assert until(lambda: starts(log) > begun)
    second = run(commands, spec, tmp_path)
    assert second.wait() == 1
    assert f"{tmp_path} is in use by process {last.pid}; wait until it ends" in second.err
    assert second.err.count("\n") == 2  # the data, and the error
    (worker,) = last.others()
    os.kill(worker, signal.SIGKILL)
    assert last.wait() == 0, last.err
    assert f"{len(seen)} of at most {TRIALS} trials done; next: {TRIALS - len(seen)} final" in last.err
    assert worker != int(log.read_text().splitlines()[-1].split()[-1])
    done = stored(tmp_path)
    assert seen.items() <= done.items()
    assert sorted(rowid for rowid, _ in done.values()) == list(range(1, TRIALS + 1))
    assert results(tmp_path, list(undisturbed)) == undisturbed
    # No training started of a trial that had been seen in the store.
    for line in log.read_text().splitlines():
        moment, seed, activation, _ = line.split()
        trial = names[int(seed), activation.startswith("Agile")]
        assert int(moment) < when.get(trial.key, time.time_ns())
    assert all(command.alone() for command in [*killed, second, last]), "orphaned workers live on"
    assert "Traceback" not in "".join(command.err for command in [*killed, second, last])


def test_sigterm_stops_cleanly_and_goes_on(commands, spec, undisturbed, tmp_path):
    """A batch system and a container stop what runs by it, some of them the whole group of processes."""
    for group in (False, True):
        before = len(stored(tmp_path)) if group else 0
        command = run(commands, spec, tmp_path)
        assert until(lambda before=before: len(stored(tmp_path)) > before)
        command.signal(signal.SIGTERM, group=group)
        assert command.wait() == 143
        assert command.err.splitlines()[-1].startswith("agileact: stopped; finished trials are stored")
        assert command.alone()
        assert "Traceback" not in command.err
    assert results(tmp_path, list(undisturbed)).items() <= undisturbed.items()


def test_ctrl_c_stops_cleanly_and_goes_on_and_so_does_a_second_one(commands, spec, undisturbed, tmp_path):
    command = run(commands, spec, tmp_path)
    assert until(lambda: len(stored(tmp_path)) >= 2)
    command.signal(signal.SIGINT, group=True)
    assert command.wait() == 130
    assert command.err.splitlines()[-1] == (
        "agileact: stopped; finished trials are stored, and the same command continues with the rest"
    )
    seen = stored(tmp_path)
    assert command.alone()
    impatient = run(commands, spec, tmp_path)
    assert until(lambda: len(stored(tmp_path)) > len(seen))
    for _ in range(2):
        impatient.signal(signal.SIGINT, group=True)
        time.sleep(0.005)
    assert impatient.wait() == 130
    assert f"{len(seen)} of at most {TRIALS} trials done" in impatient.err
    assert impatient.alone()
    assert "Traceback" not in command.err + impatient.err
    assert seen.items() <= stored(tmp_path).items()
    found = results(tmp_path, list(undisturbed))
    assert found.items() <= undisturbed.items()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Make ``folder`` a disk of 4 MB; say whether that was allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_loses_nothing_and_the_study_goes_on_when_there_is_room(commands, spec, undisturbed, tmp_path):
    with small_disk(tmp_path / "disk") as mounted:
        out = tmp_path / "disk" / "out"
        ballast = tmp_path / "disk" / "ballast"
        limit = {}
        if mounted:
            ballast.write_bytes(bytes(4030 * 1024))
        else:
            limit = {"file_size": 28 * 1024}  # an error of the system like that of a full disk, without rights
        command = run(commands, spec, out, **limit)
        assert command.wait() == 1
        assert f"cannot write to {out / 'store.sqlite'}: " in command.err.splitlines()[-1]
        assert "what was stored before is kept, and the same command goes on" in command.err
        assert "Traceback" not in command.err
        assert command.alone()
        seen = stored(out)
        assert 0 < len(seen) < TRIALS
        ballast.unlink(missing_ok=True)
        command = run(commands, spec, out)
        assert command.wait() == 0, command.err
        assert seen.items() <= stored(out).items()
        assert results(out, list(undisturbed)) == undisturbed
