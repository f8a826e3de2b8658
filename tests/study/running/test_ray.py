"""The Ray executor gives what local workers give, on a cluster of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator

import pytest

from agileact import cli
from agileact._common.errors import ArgumentError, TrialError
from agileact.study.commands.yaml_file import read_study
from agileact.study.data import dataset as data
from agileact.study.running.conduct import identified
from agileact.study.running.executors import Advanced, Event, Failed, Finished, FinishedTogether, Started
from agileact.study.running.executors.local import LocalExecutor
from agileact.study.running.executors.ray import RayExecutor
from agileact.study.running.planner import plan
from agileact.study.running.store import Store
from agileact.study.training.run import run_trial
from tests.study.builders import make_spec
from tests.study.running.test_engine import SEEDS, STUDY

# Ray's own use of what newer versions of Python and of its libraries deprecate.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

SPECS = [make_spec(seed) for seed in range(2)]


@pytest.fixture(autouse=True)
def _ray() -> None:
    pytest.importorskip("ray", reason='Ray is missing: pip install "agileact[ray]"')


def workers() -> Iterator[int]:
    """Yield the processes that run a trial for Ray, which names them after the task."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", encoding="utf-8") as command:
                if command.read().startswith("ray::_run"):
                    yield int(name)


def test_the_same_results_as_local_workers_and_a_lost_worker_is_replaced():
    slow = make_spec(7, iterations=3000, evaluate_every=1000, probe_every=0)
    wrong = make_spec(8, fc="agile-sigmoyd")
    events: list[Event | FinishedTogether] = []
    killed = False
    for event in RayExecutor(jobs=1).run([*SPECS, wrong, slow]):
        events.append(event)
        if isinstance(event, Advanced) and event.spec == slow and not killed:
            os.kill(next(workers()), signal.SIGKILL)
            killed = True
    assert killed
    found = {event.spec: event.result for event in events if isinstance(event, Finished)}
    assert found.keys() == {*SPECS, slow}
    assert {event.spec for event in events if isinstance(event, Started)} == {*SPECS, wrong, slow}
    (failed,) = [event for event in events if isinstance(event, Failed)]
    assert failed.spec == wrong
    assert "agile-sigmoyd" in failed.reason
    for event in LocalExecutor(1).run(SPECS):
        if isinstance(event, Finished):
            assert found[event.spec].curve == event.result.curve
            assert found[event.spec].layers == event.result.layers
    running = RayExecutor(jobs=1).run([make_spec(seed, iterations=1_000_000) for seed in range(2)])
    assert isinstance(next(iter(running)), Started)
    running.close()  # type: ignore[attr-defined]
    assert not list(workers())


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_one_line(address: str):
    with pytest.raises(TrialError, match=r"no Ray cluster can be used at .*127.0.0.1:1: .*refused") as caught:
        list(RayExecutor(address).run(SPECS))
    assert "\n" not in str(caught.value)


def test_wrong_numbers_are_refused():
    with pytest.raises(ArgumentError, match="jobs must be at least 1, not 0"):
        RayExecutor(jobs=0)
    with pytest.raises(ArgumentError, match="leave out jobs"):
        RayExecutor("ray://somewhere:10001", jobs=2)
    with pytest.raises(ArgumentError, match="share of a GPU must be at least 0, not -1"):
        RayExecutor(gpus=-1)


def test_the_command_as_a_user_types_it(tmp_path, capsys):
    study = STUDY.replace(f"seeds: {SEEDS}", "seeds: 2")
    (tmp_path / "ray.yaml").write_text(study)
    command = ["study", "run", str(tmp_path / "ray.yaml"), "--out", str(tmp_path / "out"), "--on", "ray", "--jobs", "1"]
    assert cli.main([*command, "--gpus", "0.5"]) == 1
    assert (
        "trials on the CPU take no share of a GPU; leave out --gpus, or take --device cuda" in capsys.readouterr().err
    )
    assert cli.main([*command, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["finished"]
    assert re.search(r"4 of 4 trials, in .*; agile-relu; .*; rate .*; seed 1: ", captured.err)
    found, _ = identified(read_study(tmp_path / "ray.yaml"))
    specs = plan(found, lambda spec: None).next
    with Store(tmp_path / "out" / "store.sqlite", read_only=True) as store:
        stored = store.collect(specs)
    assert len(stored) == 4
    for result in stored:
        assert result.curve == run_trial(result.spec, data.load(result.spec.task.data)).curve
