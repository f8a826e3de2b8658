from __future__ import annotations

import dataclasses
import gc
import json
import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agileact import ArgumentError, DataError, TrialError, cli
from agileact.study.commands.compare import fitted, proposed
from agileact.study.commands.context import Context
from agileact.study.commands.study import duration
from agileact.study.data import dataset as data
from agileact.study.data import user_function
from agileact.study.data.user_function import loaded_ahead
from agileact.study.running.budget import Limit
from agileact.study.running.conduct import identified
from agileact.study.running.cost import START_SECONDS
from agileact.study.running.executors import Finished, Started
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Study
from agileact.study.spec.tasks import task
from agileact.study.spec.trial import DataSpec, freeze
from tests.study import networks_of_a_user
from tests.study.running.test_planner import made_up

HERE = "tests.study.networks_of_a_user"


def load(name, validation=30):
    return data.load(DataSpec("custom", validation, options=freeze({"target": f"{HERE}:{name}"})))


def test_data_of_every_kind():
    found = load("pairs")
    assert (found.kind, found.classes) == ("classification", 3)
    assert [len(y) for y in (found.train_y, found.validation_y, found.test_y)] == [120, 30, 50]
    assert load("pairs").fingerprint == found.fingerprint
    found = load("regression")
    assert (found.kind, found.classes) == ("regression", 1)
    assert found.train_x.dtype == torch.float32
    assert found.validation_y.shape == (30, 1)
    assert (load("text").kind, load("text").classes) == ("text", 7)
    assert load("whole").name == "bars"
    assert (load("tokens").kind, load("tokens").classes, load("tokens").train_x.dtype) == (
        "classification",
        2,
        torch.int64,
    )


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("integers", "floating-point inputs, not torch.uint8"),
        ("one_pair", "two or three pairs"),
        ("no_module", "pairs"),
    ],
)
def test_data_that_does_not_fit(name, part):
    with pytest.raises(DataError, match=part):
        load(name)


ARMS = [arm("relu"), arm("agile-relu"), arm("prelu")]


def study(arms=ARMS):
    return proposed(arms, "m:f", "d:g", fingerprint="", iterations=1000, batch_size=10, validation=10)


@given(st.floats(0.01, 50), st.floats(5, 1e5), st.integers(1, 16))
def test_what_is_planned_fits_into_the_time_and_can_say_something(seconds, budget, jobs):
    each = {(one.name, "compare"): seconds for one in ARMS}
    try:
        protocol = fitted(study(), each, budget, jobs).protocol
    except ArgumentError:
        assert (budget - START_SECONDS) * jobs < 3 * seconds * (4 + 1)
        return
    if (budget - START_SECONDS) * jobs < 3 * seconds * (2 * 4 + 7):
        # What a verdict needs is begun, and made smaller while it runs.
        assert protocol == study().protocol
        return
    trials = 3 * protocol.replicates * (protocol.trials * len(protocol.tuning_seeds) + len(protocol.seeds))
    assert START_SECONDS + trials * seconds / jobs <= budget + 1e-6
    # Two comparisons are corrected for: the least p-value that the seeds allow must lie below the level.
    assert 2 * 2 / 2**protocol.units <= 0.05
    # Tuning is a part of the noise wherever the time allows it.
    room = int((budget - START_SECONDS) * jobs / (3 * seconds))
    assert (protocol.replicates > 1) == (room >= 7 * 5)


def test_a_budget_that_is_too_small_says_what_would_do():
    each = {(one.name, "compare"): 60.0 for one in ARMS}
    with pytest.raises(
        ArgumentError,
        match=r"3 arms need at least 4 trials each to tune and 1 seed, about 7 min 34 s, and for a verdict 22 min 34 s"
        r"; the budget is 5 min 00 s. Take a budget of that, fewer arms or about 657 iterations",
    ):
        fitted(study(), each, 300.0, 2)


@pytest.mark.parametrize(
    ("name", "expected"), [("pairs", 40), ("three", 500), ("many", 500)], ids=["a fifth", "a part of its own", "500"]
)
def test_what_is_set_aside_where_nobody_says(name, expected, monkeypatch):
    x, y = torch.randn(4000, 4), torch.arange(4000) % 3
    parts = {
        "pairs": [(x[:200], y[:200]), (x[:50], y[:50])],
        "three": [(x[:200], y[:200]), (x[:30], y[:30]), (x[:50], y[:50])],
        "many": [(x, y), (x[:50], y[:50])],
    }
    monkeypatch.setattr(networks_of_a_user, "chosen", lambda: parts[name], raising=False)
    with loaded_ahead(f"{HERE}:chosen") as usual:
        assert usual == expected
    # What it left is of no use to anybody else.
    assert not user_function._ahead


def test_times_as_people_write_them():
    assert [duration(text) for text in ("90s", "30m", "1.5h", "1h30m", "2m5s")] == [90, 1800, 5400, 5400, 125]
    for text in ("30", "m", "-3m", "infh", "", "30m1h", "1.2.3s", "0s"):
        with pytest.raises(ValueError):
            duration(text)


@pytest.mark.slow
def test_the_command_as_a_user_types_it(tmp_path, capsys, monkeypatch):
    command = ["compare", "--model", f"{HERE}:dense", "--data", f"{HERE}:pairs", "--arms", "original,agile-relu"]
    command += ["--iterations", "10", "--batch-size", "20", "--validation", "30", "--jobs", "1"]
    from agileact.study.commands import compare

    monkeypatch.setattr(compare, "_MOST_REPLICATES", 6)
    monkeypatch.setattr(compare, "_MOST_SEEDS_OF_ONE", 1)
    monkeypatch.setattr(compare, "_MOST_TUNING", 4)
    assert cli.main([*command, "--out", str(tmp_path / "o"), "--budget", "5m", "--json"]) == 0
    captured = capsys.readouterr()
    assert (
        "2 arms: each 4 points to tune, 1 seed a point, and 1 fresh ones; all of this in 6 replicates; about"
        in captured.err
    )
    document = json.loads(captured.out)
    assert document["finished"]
    assert [one["arm"] for one in document["verdicts"]] == ["agile-relu"]
    record = json.loads((tmp_path / "o" / "study.json").read_text())
    assert (record["protocol"]["trials"], record["protocol"]["replicates"]) == (4, 6)
    assert "6 replicates" in document["verdicts"][0]["sentence"]
    assert cli.main([*command, "--out", str(tmp_path / "p"), "--arms", "relu"]) == 1
    assert "at least two different arms" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*command, "--budget", "soon"])
    assert "'soon' is not a time such as 90s, 30m or 1.5h" in capsys.readouterr().err


@pytest.fixture
def planned(monkeypatch):
    """The study that a command plans, which then does not run; and its limit."""
    seen = []

    def note(context, options, executor, limit):
        context.limit = limit
        seen.append(context)

    monkeypatch.setattr("agileact.study.commands.compare.carry_out", note)
    return seen


DENSE = ["compare", "--model", f"{HERE}:dense", "--data", f"{HERE}:pairs", "--arms", "original,agile-relu"]
DENSE += ["--iterations", "10", "--validation", "30", "--jobs", "1"]


def test_the_time_of_a_command_began_with_its_process(tmp_path, planned, monkeypatch):
    monkeypatch.setattr("agileact.study.commands.compare.estimate", lambda *_: costs(0.5))
    monkeypatch.setattr("agileact.cli.running_seconds", lambda: 40.0)
    monkeypatch.setattr("agileact.cli.time", SimpleNamespace(monotonic=lambda: 1000.0))
    for module in ("study", "compare"):
        clock = SimpleNamespace(monotonic=lambda: 1003.0)
        monkeypatch.setattr(f"agileact.study.commands.{module}.time", clock)
    monkeypatch.setattr("sys.argv", ["agileact", *DENSE, "--budget", "2m", "--out", str(tmp_path / "own")])
    assert cli.main() == 0  # as the shell starts it
    assert (
        cli.main([*DENSE, "--budget", "2m", "--out", str(tmp_path / "called")]) == 0
    )  # in a program that runs for long
    own, called = planned
    # Verdict and report come before the end, too: they take as long as the beginning tells, or a small share.
    assert own.limit.end == pytest.approx(1000 - 40 + 120 - 0.4 * 43)
    assert called.limit.end == pytest.approx(1000 + 120 - 0.03 * 120)
    # Fewer trials are planned from the first on.
    assert called.study.pair_trials - own.study.pair_trials >= 50


@pytest.mark.parametrize(("of_a_core", "enough"), [(25.0, 80), (2.5, 150), (0.5, 750)])
def test_a_budget_that_is_over_before_the_first_trial_is_one_line(
    tmp_path, planned, capsys, monkeypatch, of_a_core, enough
):
    monkeypatch.setattr("agileact.cli.running_seconds", lambda: 25.0)
    monkeypatch.setattr("time.process_time", lambda: of_a_core)
    monkeypatch.setattr("sys.argv", ["agileact", *DENSE, "--budget", "20s", "--out", str(tmp_path)])
    gc.disable()  # hypothesis has a callback for its rounds, in which an exception is lost
    try:
        assert cli.main() == 1
    finally:
        gc.enable()
    said = "the budget of 20 s was over before the first trial could begin, on this machine as busy as it is; take one"
    found = re.search(f"{re.escape(said)} of ([0-9]+) s or more", capsys.readouterr().err)
    assert found
    assert enough <= int(found[1]) <= 1.2 * enough  # a moment passes before it is measured
    assert not planned


def costs(seconds):
    return SimpleNamespace(trial_seconds={("original", "compare"): seconds, ("agile-relu", "compare"): seconds})


def test_a_command_that_is_repeated_plans_what_it_planned(tmp_path, planned, monkeypatch):
    command = [*DENSE, "--budget", "2m", "--out", str(tmp_path)]
    for seconds, code in ((60.0, 1), (0.5, 0), (0.1, 0)):
        monkeypatch.setattr("agileact.study.commands.compare.estimate", lambda *_, seconds=seconds: costs(seconds))
        assert cli.main(command) == code
    # The first was refused, on a machine that was busy then, and is forgotten.
    assert planned[0].study == planned[1].study


@pytest.mark.parametrize("more", [[], ["--validation", "30"]], ids=["usual", "given"])
def test_the_data_is_loaded_twice_to_see_whether_it_is_the_same(tmp_path, planned, monkeypatch, more):
    monkeypatch.setattr("agileact.study.commands.compare.estimate", lambda *_: costs(0.1))
    calls = []

    def chosen():
        calls.append(1)
        return networks_of_a_user.pairs()

    monkeypatch.setattr(networks_of_a_user, "chosen", chosen, raising=False)
    command = ["compare", "--model", f"{HERE}:dense", "--data", f"{HERE}:chosen", "--arms", "original,agile-relu"]
    assert cli.main([*command, "--iterations", "10", "--jobs", "1", "--out", str(tmp_path), *more]) == 0
    assert len(calls) == 2


class Slow:
    """Trials of a minute each, on a clock of their own."""

    def __init__(self):
        self.now, self.code, self.tick, self.jobs = 0.0, None, None, 1

    def run(self, specs):
        for spec in specs:
            yield Started(spec)
            self.now += 60
            yield Finished(spec, dataclasses.replace(made_up(spec), seconds=60.0))


def test_a_time_too_short_for_one_seed_of_each_arm_is_one_line_with_the_time_that_would_do(tmp_path):
    parts, data = identified(Study("s", (arm("relu"), arm("prelu")), (task("digits-mlp"),)))
    slow = Slow()
    limit = Limit(300.0, 1.0, clock=lambda: slow.now)
    with pytest.raises(TrialError) as caught:
        Context(parts, data, tmp_path).run(slow, limit=limit)
    said = str(caught.value)
    assert "5 min 00 s, was over before each arm had one seed: 5 of the fewest, 10 trials, are done" in said
    assert "a budget of about 10 min 15 s" in said
    assert "\n" not in said
    # With it the same command ends, and all arms have a seed.
    again = Limit(615.0, 1.0, clock=lambda: slow.now)
    outcome = Context(parts, data, tmp_path).run(slow, limit=again)
    assert outcome.current.finished
    assert [len(cell.results) >= 1 for cell in outcome.cells] == [True, True]


def half(outputs, y):
    return 0.5 * torch.nn.functional.cross_entropy(outputs, y)


def noisy(x):
    return x + 0.1 * torch.randn_like(x)


def test_metric_loss_weights_and_augmentation_are_options(tmp_path, planned):
    command = DENSE
    given = ["--metric", "auc", "--class-weights", "1,2,4", "--augment", f"{__name__}:noisy"]
    assert cli.main([*command, *given, "--out", str(tmp_path / "a")]) == 0
    assert cli.main([*command, "--loss", f"{__name__}:half", "--out", str(tmp_path / "b")]) == 0
    first, second = (context.data["compare"] for context in planned)
    assert (first.metric, first.class_weights, first.augment) == ("AUC", (1.0, 2.0, 4.0), f"{__name__}:noisy")
    assert second.loss == f"{__name__}:half"
    options = dict(planned[0].study.tasks[0].spec.data.options)
    assert options["class_weights"] == (1.0, 2.0, 4.0)
    with pytest.raises(SystemExit):
        cli.main([*command, "--class-weights", "even"])


def test_inputs_and_targets_of_other_lengths_are_named_before_anything_runs(tmp_path, planned, capsys):
    command = ["compare", "--model", f"{HERE}:dense", "--data", f"{HERE}:unequal", "--arms", "original,agile-relu"]
    assert cli.main([*command, "--out", str(tmp_path / "o")]) == 1
    assert "has inputs (150, 8) and targets (147,)" in capsys.readouterr().err
    assert not planned


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("raise ValueError('half edited')", "raised ValueError: half edited (broken_of_a_user.py, line 1)"),
        (
            "import torch\nimport pandsa",
            "raised ModuleNotFoundError: No module named 'pandsa' (broken_of_a_user.py, line 2)",
        ),
        ("x = 1\ndef load(:\n    pass\n", "raised SyntaxError: invalid syntax"),
        ("x = 1\ndef load(:\n    pass\n", "(broken_of_a_user.py, line 2)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line_with_its_place(tmp_path, monkeypatch, capsys, text, part):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_of_a_user.py").write_text(text)
    command = [
        "compare",
        "--model",
        f"{HERE}:dense",
        "--data",
        "broken_of_a_user:load",
        "--arms",
        "original,agile-relu",
    ]
    assert cli.main([*command, "--out", str(tmp_path / "o")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("agileact: error: the data 'broken_of_a_user:load': importing 'broken_of_a_user' ")
    assert part in said
    assert said.count("\n") == 1
