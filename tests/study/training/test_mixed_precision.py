"""Mixed precision and several processes: the numbers of one process, and no process left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from typing import Any, cast

import pytest
import torch
from torch import nn

from agileact import cli
from agileact._common.errors import ArgumentError, TrialError
from agileact.study.data.dataset import DataSet
from agileact.study.running import cost
from agileact.study.running.executors.ray import RayExecutor
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import ArmSpec, Budget, TrialSpec, freeze
from agileact.study.training import child_process as _child
from agileact.study.training.mixed_precision import shard_units
from agileact.study.training.run import run_trial
from tests.study.builders import make_data, make_result, make_spec
from tests.study.processes import until

# Accelerate's and torch's own use of what newer versions of their libraries deprecate.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

DATA = make_data()


@pytest.fixture(autouse=True)
def _accelerate() -> None:
    pytest.importorskip("accelerate", reason='Accelerate is missing: pip install "agileact[accelerate]"')


def spec(**budget: Any) -> TrialSpec:
    # A batch that two processes cannot share equally.
    settings = {"iterations": 12, "batch_size": 7, "evaluate_every": 4, "test_curve": False, **budget}
    return make_spec(conv="agile-relu", **settings)


def others() -> list[int]:
    """Return the processes that train for one of this process's trials (Linux)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", encoding="utf-8") as command:
                    words = command.read().split("\0")
            except OSError:
                continue
            if "agileact.study.training.mixed_precision" in words and str(os.getpid()) in words:
                found.append(int(name))
    return found


def test_two_processes_give_the_numbers_of_one_also_when_one_is_killed():
    # Long enough for the kill to meet the training.
    long = {"iterations": 300, "evaluate_every": 60, "probe_every": 60}
    alone = run_trial(spec(**long), DATA)
    killed: list[int] = []

    def kill(iteration: int, loss: float) -> None:
        if not killed:
            killed.append(max(others()))
            os.kill(killed[0], signal.SIGKILL)

    both = run_trial(spec(processes=2, **long), DATA, kill)
    assert killed
    assert not others()
    for name in ("train_loss", "validation_loss"):
        torch.testing.assert_close(getattr(both.curve, name), getattr(alone.curve, name), rtol=1e-3, atol=1e-4)
    for layer, trace in alone.layers.items():
        for name, values in dataclasses.asdict(trace).items():
            torch.testing.assert_close(getattr(both.layers[layer], name), values, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(both.probe.after_weights, alone.probe.after_weights, rtol=1e-3, atol=1e-4)
    assert both.selected_iteration == alone.selected_iteration
    assert both.selected_test_loss == pytest.approx(alone.selected_test_loss, rel=1e-3)
    assert (both.parameters, both.curve.iteration) == (alone.parameters, alone.curve.iteration)
    assert both.spec.key != alone.spec.key


def test_half_precision_trains_and_keeps_less_and_leaves_no_trace():
    alone, half, again = run_trial(spec(), DATA), run_trial(spec(precision="bf16"), DATA), run_trial(spec(), DATA)
    assert half.curve.train_loss != alone.curve.train_loss
    torch.testing.assert_close(half.curve.validation_loss, alone.curve.validation_loss, rtol=0.02, atol=0.0)
    assert half.saved_bytes is not None
    assert alone.saved_bytes is not None
    assert half.saved_bytes < alone.saved_bytes
    assert again.curve == alone.curve
    assert run_trial(spec(precision="bf16"), DATA).curve == half.curve


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_sharded_network_gives_the_numbers_of_a_whole_one(precision):
    # Probes and the chosen state change the parts behind the back of whatever was gathered before.
    settings = {"precision": precision, "probe_every": 3, "iterations": 24}
    # A norm that the gradients of the first steps have, of all parts together, and a rate that changes at each step.
    steered: dict[str, Any] = {"clip_norm": 0.3, "schedule": "cosine", "warmup": 0.2, "label_smoothing": 0.1}
    whole, parts = (
        run_trial(dataclasses.replace(one, arm=dataclasses.replace(one.arm, **steered)), DATA)
        for one in (spec(**settings), spec(processes=2, sharded=True, **settings))
    )
    assert not others()
    near: Any = {"rtol": 1e-4, "atol": 1e-5} if precision == "fp32" else {"rtol": 5e-3, "atol": 5e-3}
    for name in ("train_loss", "validation_loss"):
        torch.testing.assert_close(getattr(parts.curve, name), getattr(whole.curve, name), **near)
    torch.testing.assert_close(parts.probe.after_weights, whole.probe.after_weights, **near)
    for layer, trace in whole.layers.items():
        for name, values in dataclasses.asdict(trace).items():
            torch.testing.assert_close(getattr(parts.layers[layer], name), values, **near)
        torch.testing.assert_close(parts.shapes[layer].after, whole.shapes[layer].after, rtol=2e-2, atol=2e-2)
    assert parts.selected_test_loss == pytest.approx(whole.selected_test_loss, rel=near["rtol"])
    assert (parts.parameters, parts.saved_bytes) == (whole.parameters, whole.saved_bytes)


def test_rows_that_are_shared_out_turn_as_whole_ones():
    def directed(**budget: Any) -> TrialSpec:
        one = spec(**budget)
        return dataclasses.replace(one, arm=dataclasses.replace(one.arm, weights="standardized"))

    whole, parts = (run_trial(one, DATA) for one in (directed(), directed(processes=2, sharded=True)))
    assert list(parts.directions) == list(whole.directions) == ["conv1", "conv2", "fc1"]
    for layer, trace in whole.directions.items():
        assert len(trace.turn_max) == 3
        for name, values in dataclasses.asdict(trace).items():
            torch.testing.assert_close(getattr(parts.directions[layer], name), values, rtol=1e-3, atol=1e-5)


def test_a_cost_is_estimated_where_the_trial_will_run(monkeypatch):
    tried = []

    def run(short: TrialSpec, data: DataSet) -> TrialResult:
        tried.append(short.task.budget)
        return dataclasses.replace(make_result(short), seconds=-1000.0, seconds_per_iteration=2.0)

    monkeypatch.setattr(cost, "run_trial", run)
    half = spec(precision="bf16", iterations=50, probe_every=10)
    # Fifty steps of two seconds, and a thousand until it began.
    assert cost.trial_seconds(half.task, half.arm, DATA) == pytest.approx(1100, abs=5)
    (budget,) = tried
    assert (budget.precision, budget.probe_every, budget.use_test) == ("bf16", 0, False)
    assert budget.iterations < 50
    assert 0 < cost.trial_seconds(spec().task, half.arm, DATA) < 100
    assert len(tried) == 1


def test_what_is_gathered_together():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(2000, 1000)
            self.blocks = nn.ModuleList(nn.Linear(1000, 1000) for _ in range(2))
            self.head = nn.Linear(1000, 2000, bias=False)
            self.head.weight = self.embedding.weight

    with torch.device("meta"):
        model = Tied()
    # Tied weights are the outermost module's; a list of blocks is none, though it has two million parameters.
    assert shard_units(model) == [*model.blocks, model]
    small = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    assert shard_units(small) == [small]


ADVANCED = """print('{"event": "advanced", "iteration": 1, "loss": 0.5}', flush=True)"""
FAILED = """print('{"event": "failed", "reason": "told to", "details": ""}', flush=True)"""


def pretend(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the processes of a trial do something else, of which the trial's own process knows nothing."""
    words = [sys.executable, "-c", code, str(os.getpid()), "agileact.study.training.mixed_precision"]
    monkeypatch.setattr(_child, "command", lambda module, *arguments: words)


@pytest.mark.parametrize(
    ("code", "part"),
    [
        (FAILED, "told to"),
        ("import sys; sys.exit('no such thing')", "process 0 of the trial ended early: no such thing"),
        ("import os; os.kill(os.getpid(), 9)", r"was lost 2 times \(process . was killed by signal 9\)"),
        (
            "import os, time\nif os.environ['RANK'] == '1': os.kill(os.getpid(), 9)\ntime.sleep(60)",
            r"was lost 2 times \(process 1 was killed by signal 9\)",
        ),
        ("print('half a li', end='', flush=True)", "ended early: it said nothing"),
    ],
)
def test_how_processes_can_end(monkeypatch, code, part):
    pretend(monkeypatch, code)
    with pytest.raises(TrialError, match=part):
        run_trial(spec(processes=2), DATA)
    assert not others()


def test_processes_end_when_the_one_that_waits_is_stopped(monkeypatch):
    pretend(monkeypatch, f"import time\n{ADVANCED}\ntime.sleep(60)")

    def stop(iteration: int, loss: float) -> None:
        assert len(others()) == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(spec(processes=2), DATA, stop)
    assert until(lambda: not others())


def test_what_is_not_part_of_older_trials_leaves_their_identity_alone():
    plain = spec()
    assert "precision" not in plain.to_json()
    assert "device" not in plain.to_json()
    keys = {one.key for one in (plain, spec(device="cuda"), spec(precision="bf16"), spec(processes=2))}
    assert len(keys) == 4
    assert TrialSpec.from_json(spec(precision="bf16").to_json()) == spec(precision="bf16")


def test_what_cannot_be_is_refused():
    with pytest.raises(ArgumentError, match="device must be 'cpu' or 'cuda', not 'cuba'; did you mean 'cuda'"):
        Budget(1, device="cuba")
    with pytest.raises(ArgumentError, match="'fp16' needs the device 'cuda'"):
        Budget(1, precision="fp16")
    with pytest.raises(ArgumentError, match="a batch of 3 cannot be shared by 4 processes"):
        Budget(1, 3, processes=4)
    with pytest.raises(ArgumentError, match="only be sharded over several processes"):
        Budget(1, sharded=True)
    with pytest.raises(ArgumentError, match="sharded must be True or False, not 'yes'"):
        Budget(1, processes=2, sharded=cast(Any, "yes"))
    with pytest.raises(ArgumentError, match="trains in 'fp32' or 'bf16', not in 'fp16'"):
        Budget(1, device="cuda", precision="fp16", processes=2, sharded=True)
    folded = spec(processes=2, sharded=True)
    folded = dataclasses.replace(folded, arm=ArmSpec(freeze({"*": "relu"}), updates="folded"))
    with pytest.raises(ArgumentError, match="folded updates take whole weights"):
        run_trial(folded, DATA)
    if not torch.cuda.is_available():
        with pytest.raises(ArgumentError, match="this process sees no CUDA device"):
            run_trial(spec(device="cuda"), DATA)


def test_a_device_for_ray_and_a_share_of_it_go_together(monkeypatch):
    pytest.importorskip("ray", reason='Ray is not installed: pip install "agileact[ray]"')
    with pytest.raises(ArgumentError, match="need a share of a GPU: --gpus"):
        next(RayExecutor(jobs=1).run([spec(device="cuda")]))
    with pytest.raises(ArgumentError, match="trials on the CPU take no share of a GPU"):
        next(RayExecutor(jobs=1, gpus=0.5).run([spec()]))


def test_compare_in_half_precision_as_a_user_types_it(tmp_path, capsys, monkeypatch):
    from agileact.study.commands import compare

    here = "tests.study.networks_of_a_user"
    monkeypatch.setattr(compare, "_MOST_SEEDS", 6)
    monkeypatch.setattr(compare, "_MOST_TUNING", 4)
    monkeypatch.setattr(compare, "_MOST_REPLICATES", 0)
    command = ["compare", "--model", f"{here}:Shared", "--data", f"{here}:pairs", "--arms", "relu,agile-relu"]
    command += ["--iterations", "4", "--batch-size", "20", "--validation", "30", "--jobs", "1", "--budget", "9m"]
    assert cli.main([*command, "--precision", "bf16", "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["finished"]
    record = json.loads((tmp_path / "study.json").read_text())
    assert record["tasks"][0]["budget"]["precision"] == "bf16"
    assert cli.main([*command, "--device", "cuba", "--out", str(tmp_path)]) == 1
    assert "device must be 'cpu' or 'cuda'" in capsys.readouterr().err
