"""Studies from YAML: what is read, and that every error says where it is."""

from __future__ import annotations

import dataclasses

import pytest

from agileact import ArgumentError
from agileact.study.commands.yaml_file import read_study
from agileact.study.spec.arms import arm
from agileact.study.spec.tasks import task

WHOLE = """
name: whole
arms:
  - relu
  - agile-relu+calibrated
  - name: mixed
    activations: {conv: relu, "fc[12]*": agile-sigmoid, fc: gelu}
    optimizer: sgd
    freeze: [scale]
    weight_decay: 1e-2
  - {name: decayed, arm: agile-relu, activation_decay: 0.1}
tasks:
  - paper-cnn
  - name: small
    data: {name: digits, validation: 100, test: 200}
    model: {name: mlp, nodes: [8, 4]}
    budget: {iterations: 50, evaluate_every: 10, test_curve: false}
  - name: faces
    task: cifar-resnet
    data: {folder: somewhere}
    budget: {iterations: 10}
protocol:
  seeds: [0, 3, 5]
  lr: [0.001, 1e-2]
  trials: 4
  tuning_seeds: 2
"""


def read(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return read_study(path)


def test_a_whole_study(tmp_path):
    study = read(tmp_path, WHOLE)
    assert study.name == "whole"
    assert study.arms[:2] == (arm("relu"), arm("agile-relu+calibrated"))
    mixed = study.arms[2].spec
    assert mixed.activations == (("conv", "relu"), ("fc", "gelu"), ("fc[12]*", "agile-sigmoid"))
    assert (mixed.optimizer, mixed.freeze, mixed.weight_decay) == ("sgd", ("scale",), 0.01)
    assert study.arms[3].spec.activation_decay == 0.1
    assert study.tasks[0] == task("paper-cnn")
    small = study.tasks[1].spec
    assert (small.data.name, small.data.validation, small.data.options) == ("digits", 100, (("test", 200),))
    assert small.model.options == (("nodes", (8, 4)),)
    assert (small.budget.iterations, small.budget.batch_size) == (50, 100)
    faces = study.tasks[2].spec
    assert faces.data.options == (("folder", "somewhere"),)
    assert faces.data.validation == task("cifar-resnet", "x").spec.data.validation
    assert (faces.budget.iterations, faces.budget.evaluate_every) == (10, 200)
    assert study.protocol.seeds == (0, 3, 5)
    assert study.protocol.tuning_seeds == (1000, 1001)
    assert study.protocol.lr == (0.001, 0.01)


def small(**parts):
    found = {"name": "x", "arms": "[relu]", "tasks": "[digits-mlp]", **parts}
    return "".join(f"{key}: {value}\n" for key, value in found.items())


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (small(protocl="{}"), r"study.yaml: protocl: unknown key; did you mean 'protocol'\? known: arms, name,"),
        (small(protocol="{seed: 3}"), r"study.yaml: protocol.seed: unknown key; did you mean 'seeds'\?"),
        (small(protocol="{seeds: 0}"), r"protocol.seeds: at least one seed is needed, not 0"),
        (small(protocol="{seeds: 100000000000}"), r"protocol.seeds: at most 100,000 seeds, not 100,000,000,000"),
        (small(protocol=f"{{trials: {10**400}}}"), r"protocol.trials: the number is too large"),
        (small(protocol="{seeds: [1, x]}"), r"protocol.seeds\[1\]: a whole number was expected, not 'x'"),
        (small(protocol="{trials: 2.5}"), r"protocol.trials: a whole number was expected, not 2.5"),
        (small(protocol="{tune: 1}"), r"protocol.tune: true or false was expected, not 1"),
        (small(protocol="{lr: 0.1}"), r"protocol.lr: a list was expected, not 0.1"),
        (small(protocol="{lr: [a]}"), r"protocol.lr\[0\]: a number was expected, not 'a'"),
        (small(protocol="{trials: 1}"), r"protocol: trials must be at least"),
        (small(arms="[relu, agil-relu]"), r"arms\[1\]: unknown activation 'agil-relu'; did you mean 'agile-relu'"),
        (small(arms="[{name: a, activations: {fc: rleu}}]"), r"arms\[0\].activations.fc: unknown activation 'rleu'"),
        (small(arms="[{name: a, activation: relu}]"), r"arms\[0\].activation: unknown key; did you mean 'activations'"),
        (small(protocol="{tune: false, lr: [0.1]}"), r"protocol.lr: is for tuning, and tune is false"),
        (small(arms="[{name: a, activations: relu, lr: 0.1}]"), r"arms\[0\].lr: is tuned, .*protocol.tune: false"),
        (small(arms="[{name: a}]"), r"arms\[0\]: needs either 'activations' or 'arm'"),
        (small(arms="[{activations: relu}]"), r"arms\[0\].name: text was expected, not nothing"),
        (small(arms="[{name: a, activations: relu, weight_decay: -1}]"), r"arms\[0\]: weight_decay must be at least 0"),
        (small(arms="[{name: a, activations: relu, freeze: scale}]"), r"arms\[0\].freeze: a list was expected"),
        (
            small(arms="[{name: a, activations: relu, weight_decay: .inf}]"),
            r"arms\[0\]: weight_decay .* finite, not inf",
        ),
        (small(arms="[relu, {name: a, activations: relu}]"), r"arms\[1\]: 'a' is the same as 'relu' but for the name"),
        (small(arms="relu"), r"arms: a list was expected, not 'relu'"),
        (small(arms="[]"), r"study.yaml: a study needs at least one arm"),
        (small(arms="[relu, relu]"), r"two arms are called 'relu'"),
        (small(tasks="[digit-mlp]"), r"tasks\[0\]: unknown task 'digit-mlp'; did you mean 'digits-mlp'"),
        (small(tasks="[{name: a, data: digits, model: mlp}]"), r"tasks\[0\]: lacks 'budget'"),
        (
            small(tasks="[{name: a, data: digts, model: mlp, budget: {iterations: 1}}]"),
            r"tasks\[0\].data.name: no data set is named 'digts'; did you mean 'digits'",
        ),
        (
            small(tasks="[{name: a, data: digits, model: {name: mlp, node: [3]}, budget: {iterations: 1}}]"),
            r"tasks\[0\].model.node: unknown key; did you mean 'nodes'",
        ),
        (
            small(tasks="[{name: a, data: digits, model: {name: mlp, nodes: 3}, budget: {iterations: 1}}]"),
            r"tasks\[0\].model.nodes: a list was expected",
        ),
        (small(tasks="[{name: a, data: digits, model: mlp, budget: {}}]"), r"tasks\[0\].budget: lacks 'iterations'"),
        (small(tasks="[{task: cifar-resnet}]"), r"tasks\[0\].data: the task 'cifar-resnet' needs 'folder'"),
        ("name: x\n", r"study.yaml: lacks 'arms'"),
        ("- 1\n", r"a mapping was expected, not \[1\]"),
        ("", r"a mapping was expected, not nothing"),
        ("name: x\nname: y\n", r"study.yaml: line 2: the key 'name' occurs twice"),
        ("name: [x\n", r"line 2: not YAML"),
        ("[" * 3000, r"study.yaml: nested too deeply"),
        ("name: 2020-99-99\n", r"study.yaml: not YAML: month must be in 1..12"),
        ("name: !!python/object/apply:os.system [ls]\n", r"not YAML"),
    ],
)
def test_an_error_says_where_it_is(tmp_path, text, part):
    with pytest.raises(ArgumentError, match=part):
        read(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ArgumentError, match=r"none.yaml: cannot be read: No such file"):
        read_study(tmp_path / "none.yaml")


def test_rates_may_be_set_where_they_are_not_tuned(tmp_path):
    study = read(tmp_path, small(arms="[{name: a, activations: relu, lr: 0.1}]", protocol="{tune: false}"))
    assert study.arms[0].spec.lr == 0.1


def test_what_all_arms_share_is_written_once(tmp_path):
    text = """
    arms: [relu, agile-relu+weight-decay=0.1, {name: own, activations: relu, schedule: linear}]
    tasks: [digits-mlp]
    training:
      optimizer: adamw
      weight_decay: 1e-2
      schedule: cosine
      warmup: 0.1
      clip_norm: 1
      optimizer_options: {betas: [0.9, 0.95]}
    """
    study = read(tmp_path, text)
    assert study.name == "study"  # the file's
    relu, agile, own = (one.spec for one in study.arms)
    assert (relu.optimizer, relu.weight_decay, relu.schedule, relu.warmup) == ("adamw", 0.01, "cosine", 0.1)
    assert (relu.clip_norm, relu.optimizer_options) == (1.0, (("betas", (0.9, 0.95)),))
    assert agile == dataclasses.replace(relu, activations=agile.activations, weight_decay=0.1)
    assert own == dataclasses.replace(relu, schedule="linear")
    for wrong, part in (
        ("warmp: 0.1", "training.warmp: unknown key; did you mean 'warmup'"),
        ("lr: 0.1", "training.lr: is tuned, so it cannot be set"),
        ("warmup: 2", "training: warmup must be at least 0 and less than 1, not 2.0"),
        ("optimizer_options: 3", "training.optimizer_options: a mapping was expected, not 3"),
    ):
        with pytest.raises(ArgumentError, match=part):
            read(
                tmp_path,
                text.replace("warmup: 0.1", wrong)
                if "options" not in wrong
                else text.split("  opt")[0] + f"  {wrong}\n",
            )


def test_what_tasks_share_is_written_once(tmp_path):
    text = """
    name: x
    arms: [relu]
    tasks:
      - {name: a, task: digits-mlp, budget: &short {iterations: 30, batch_size: 10}}
      - {name: b, task: paper-mlp, budget: {<<: *short, batch_size: 20}}
    """
    a, b = (task.spec.budget for task in read(tmp_path, text).tasks)
    assert (a.iterations, a.batch_size, b.iterations, b.batch_size) == (30, 10, 30, 20)
    with pytest.raises(ArgumentError, match="line 6: the key 'batch_size' occurs twice"):
        read(tmp_path, text.replace("batch_size: 20", "batch_size: 20, batch_size: 3"))


SPACE = "{space: {lr: 1e-4..0.1, weight_decay: '0, 1e-6..1e-2'}, trials: 4"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (small(protocol="{space: {lr: 1..x}}"), r"protocol.space.lr: 1..x: a number was expected, not 'x'"),
        (small(protocol="{space: {lr: {form: 1}}}"), r"protocol.space.lr.form: unknown key; did you mean 'from'"),
        (small(protocol="{space: {learn: [1]}}"), r"protocol.space.learn: 'learn' cannot be tuned"),
        (small(protocol="{space: 3}"), r"protocol.space: a mapping was expected, not 3"),
        (small(protocol=f"{SPACE}, lr: [0.1]}}"), r"protocol: lr is for tuning without a space"),
        (small(protocol=f"{SPACE}, sampler: sobl}}"), r"protocol: sampler must be 'sobol' or .* did you mean 'sobol'"),
        (small(arms="[{arm: relu, lr: 0.1}]", protocol=SPACE + "}"), r"arms\[0\].lr: is tuned.* \{lr: 0.1\}"),
        (small(arms="[{arm: relu, space: {lr: [a]}}]"), r"arms\[0\].space.lr: a number was expected, not 'a'"),
        (small(arms="[{arm: relu, space: {lr: 0.1}}, gelu]"), r"arm 'gelu' has no search space"),
        (small(arms="[relu, {arm: relu, name: other}]", protocol=SPACE + "}"), r"'other' is the same as 'relu'"),
    ],
)
def test_what_does_not_fit_in_a_search_space_is_said_where_it_is(tmp_path, text, part):
    with pytest.raises(ArgumentError, match=part):
        read(tmp_path, text)


def test_one_arm_in_two_spaces_is_two_arms(tmp_path):
    study = read(
        tmp_path, small(arms="[relu, {arm: relu, name: decayed, space: {weight_decay: 0.1}}]", protocol=SPACE + "}")
    )
    assert study.arms[0].spec == study.arms[1].spec
    assert study.space(study.arms[0]) != study.space(study.arms[1])


def test_a_task_says_which_way_of_its_metric_is_good(tmp_path):
    path = tmp_path / "s.yaml"
    text = "{{arms: [relu, gelu], tasks: [{{task: diabetes-mlp, better: {}}}]}}"
    path.write_text(text.format("lower"))
    assert read_study(path).tasks[0].better == "lower"
    path.write_text(text.format("low"))
    with pytest.raises(ArgumentError, match=r"tasks\[0\].better: better must be 'higher' or 'lower', not 'low'"):
        read_study(path)
