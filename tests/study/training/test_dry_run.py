"""What cannot run is said before anything runs, with the arm and the task; and nothing that an arm says is ignored."""

from __future__ import annotations

import importlib

import pytest

from agileact import ArgumentError, cli
from agileact.study.data.dataset import load
from agileact.study.models import build, model_fingerprint
from agileact.study.running.conduct import identified
from agileact.study.spec.arms import Arm, arm
from agileact.study.spec.protocol import Study
from agileact.study.spec.tasks import Task, task
from agileact.study.spec.trial import ArmSpec, Budget, DataSpec, ModelSpec, TaskSpec, freeze
from agileact.study.training.dry_run import check_arms
from agileact.study.training.setup import matched
from tests.study import networks_of_a_user

HERE = networks_of_a_user.__name__


def mixed(name="mixed", **activations):
    return Arm(name, ArmSpec(freeze(activations)))


def check(*arms, tasks=("digits-mlp",)):
    check_arms(*identified(Study("x", (arm("relu"), *arms), tuple(map(task, tasks)))))


def test_what_can_run_passes():
    check(arm("agile-relu+calibrated"), arm("relu+widened"), arm("relu+folded-updates"), mixed(fc="prelu"))
    check(mixed(conv="gelu", fc="relu"), tasks=("digits-mlp", "paper-cnn"))  # the one task has no filters
    check(mixed(**{"*": "relu", "fc1*": "gelu"}))


@pytest.mark.parametrize(
    ("one", "part"),
    [
        (mixed(conv="relu"), "arm 'mixed' on task 'digits-mlp': the model needs an activation for the role 'fc'"),
        (mixed(fc="relu", fcc="gelu"), "arm 'mixed': no task has the role 'fcc', only fc; did you mean 'fc'"),
        (mixed(**{"*": "relu", "conv*": "gelu"}), "arm 'mixed': no task has the role 'conv\\*'"),
        (arm("relu", optimizer="sdg"), "arm 'relu' on .* unknown optimizer 'sdg'; did you mean 'sgd'"),
        (arm("relu+activation-decay=0.1"), "activation_decay is for agile activations, and the arm has none"),
        (arm("relu", scale_sign="positive"), "scale_sign is for agile activations, and the arm has none"),
        (arm("prelu", scale_lr=0.1), "scale_lr is for agile activations, and the arm has none"),
        (arm("relu+folded-updates+bias-lr=2"), "bias_lr_multiplier does not go with folded updates"),
    ],
)
def test_what_cannot_run_is_told_with_its_arm_and_task(one, part):
    study, data = identified(Study("x", (one,), (task("digits-mlp"),)))
    with pytest.raises(ArgumentError, match=part):
        check_arms(study, data)


def test_a_model_and_data_that_do_not_fit():
    def study(data, model):
        spec = TaskSpec(data, model, Budget(10, 20, test_curve=False))
        return identified(Study("x", (arm("relu"),), (Task("t", spec),)))

    with pytest.raises(ArgumentError, match=r"arm 'relu' on task 't': the cnn needs images of shape"):
        check_arms(*study(DataSpec("diabetes", 66), ModelSpec("cnn")))
    with pytest.raises(ArgumentError, match=r"arm 'relu' on task 't' cannot run: RuntimeError: .*scalar type"):
        check_arms(*study(_custom("numbers"), ModelSpec("custom", freeze({"target": f"{HERE}:of_tokens"}))))
    with pytest.raises(ArgumentError, match="arm 'relu' on task 't': the model has no parameter to train"):
        check_arms(*study(_custom("numbers"), ModelSpec("custom", freeze({"target": f"{HERE}:fixed"}))))
    with pytest.raises(ArgumentError, match=r"has weights without a size yet \(0.weight\); name the sizes"):
        study(_custom("numbers"), ModelSpec("custom", freeze({"target": f"{HERE}:sizeless"})))


def _custom(name):
    return DataSpec("custom", options=freeze({"target": f"{HERE}:{name}"}))


def test_a_transformer_is_widened_to_what_its_heads_divide():
    def built(name):
        one = arm(name).spec
        spec = ModelSpec("char-transformer", freeze({"width": 6, "heads": 3}))
        if one.width == "matched":
            spec = matched(spec, one, (8,), 5)
        model = build(spec, one, input_shape=(8,), classes=5, seed=0)
        return dict(spec.options)["width"], sum(parameter.numel() for parameter in model.parameters())

    (width, parameters), (_, agile) = built("relu+widened"), built("agile-relu")
    assert width == 9
    assert parameters >= agile


def test_the_command_says_so_before_the_first_trial(tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text("{name: x, arms: [relu, {name: m, activations: {conv: relu}}], tasks: [digits-mlp]}")
    for action in ("plan", "run"):
        assert cli.main(["study", action, str(path), "--out", str(tmp_path / "o")]) == 1
        assert "arm 'm' on task 'digits-mlp': the model needs" in capsys.readouterr().err
    assert not (tmp_path / "o" / "study.json").exists()


def test_a_module_that_draws_or_seeds_as_it_is_imported_shifts_no_weights(tmp_path, monkeypatch):
    (tmp_path / "draws_first.py").write_text(
        "import numpy as np\nimport torch\nfrom torch import nn\n"
        "torch.manual_seed(3)\nnp.random.seed(3)\nnn.Linear(50, 50)\n"
        "def build():\n    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))\n"
        "    with torch.no_grad():\n        model[2].bias.copy_(torch.from_numpy(np.random.randn(3)))\n"
        "    return model\n"
    )
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    first = model_fingerprint("draws_first:build")  # imports it
    assert model_fingerprint("draws_first:build") == first
    spec = ModelSpec("custom", freeze({"target": "draws_first:build", "fingerprint": first}))
    weights = [build(spec, arm("relu").spec, input_shape=(8,), classes=3, seed=seed).state_dict() for seed in (5, 5, 6)]
    for name in ("0.weight", "2.bias"):  # of torch's stream, and of numpy's
        assert weights[0][name].equal(weights[1][name])
        assert not weights[0][name].equal(weights[2][name])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("odd_validation", r"a sample of the validation part is torch.float32 \(7,\), one of the train part .* \(8,\)"),
        ("sparse", "must hold ordinary tensors, not one of the layout torch.sparse_coo"),
        ("elsewhere", "must hold ordinary tensors, not one on the device 'meta'"),
        ("of_text", "must hold numbers"),
    ],
)
def test_data_that_cannot_be_used_are_named(name, part):
    from agileact import DataError

    with pytest.raises(DataError, match=part):
        load(_custom(name))


def test_data_may_come_out_of_a_graph():
    assert not load(_custom("in_a_graph")).train_x.requires_grad
