"""Activations of a user's own as arms: in networks of ours and of theirs, with their code in the trial's identity."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest
import torch
from torch import nn

from agileact import ArgumentError, cli
from agileact.nn import Agile
from agileact.study import models
from agileact.study.commands.yaml_file import read_study
from agileact.study.models import arm_fingerprint
from agileact.study.results.source import stored
from agileact.study.running.conduct import identified, unidentified
from agileact.study.spec.activation_names import parse_activation
from agileact.study.spec.arms import arm, has_trainable_activations
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.tasks import Task, task
from agileact.study.spec.trial import ArmSpec, ModelSpec, freeze
from agileact.study.spec.user_code import UserCode
from agileact.study.spec.user_targets import UserActivation, target_of
from agileact.study.training.dry_run import check_arms
from agileact.study.training.setup import build_optimizer
from agileact.study.training.stacked import alone_for_its_activation, stacks
from tests.study import activations_of_a_user as mine

HERE = mine.__name__
X = torch.linspace(-2, 2, 24, dtype=torch.float64).view(4, 6)


def made(text, channels=6, dim=1):
    return parse_activation(f"{HERE}:{text}").build(channels, dim).double()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OneSlope", torch.where(X > 0, X, 0.1 * X)),
        ("OneSlope:slope=0.5", torch.where(X > 0, X, 0.5 * X)),
        ("make_alone", torch.where(X > 0, X, 0.3 * X)),
        ("make:start=0", torch.where(X > 0, X, 0.0 * X)),
        ("Slope:start=0", torch.where(X > 0, X, 0.0 * X)),
        ("cubed", X * X * X),
        ("cubed:factor=2", 2 * X * X * X),
        ("READY", torch.log1p(torch.exp(X))),
        ("AlongAxis", torch.tanh(X)),
    ],
)
def test_a_class_what_makes_one_a_function_and_a_module_are_activations(text, expected):
    torch.testing.assert_close(made(text)(X), expected, rtol=1e-6, atol=1e-7)


def test_channels_and_axis_are_given_to_what_asks_for_them():
    assert made("Slope", 6).function.slope.shape == (6,)
    assert made("make", 4).function.slope.shape == (4,)
    assert (made("AlongAxis", 5, -1).function.size, made("AlongAxis", 5, -1).function.axis) == (5, -1)
    needs = {name: parse_activation(f"{HERE}:{name}").needs_channels for name in ("Slope", "make", "OneSlope", "cubed")}
    assert needs == {"Slope": True, "make": True, "OneSlope": False, "cubed": False}
    assert parse_activation("torch.nn:PReLU").build(7, 1)(torch.zeros(2, 7)).shape == (2, 7)
    assert made("READY").function is not made("READY").function


def test_who_learns():
    learning = [name for name in ("Slope", "make", "OneSlope", "cubed", "READY") if trains(f"{HERE}:{name}")]
    assert learning == ["Slope", "make", "OneSlope"]
    assert trains("torch.nn:PReLU")
    assert not trains("torch:tanh")


def trains(text):
    return has_trainable_activations(arm(text).spec)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (f"{HERE}:Slop", r"module '.*' has no function 'Slop'; did you mean 'Slope'"),
        ("no_such_module:Act", "there is no module 'no_such_module'"),
        (f"{HERE}:OneSlope:slop=1", r"cannot be made with slop=1: TypeError"),
        (f"{HERE}:cubed:facto=1", "takes no facto, only x, factor"),
        (f"{HERE}:READY:beta=1", "is a module already and takes no options"),
        (f"{HERE}:broken", r"cannot be made with no arguments: RuntimeError: not today"),
        (f"{HERE}:number", "made a int, which is no module or function"),
        (f"{HERE}:Slope+frozen", "'frozen' is for agile or combined activations"),
        (f"{HERE}:Slope+folded-updates", "'folded-updates' is for plain activations"),
    ],
)
def test_what_is_no_activation_is_refused_in_one_line(text, part):
    with pytest.raises(ArgumentError, match=part) as caught:
        arm(text)
    assert "\n" not in str(caught.value)


def test_names_of_this_package_are_not_taken_for_the_users():
    for text in ("elu:alpha=0.5", "combined-relu:terms=3", "relu", "snake:frequency=5", ":x", "a:", "agile-relu"):
        assert target_of(text) == ""
    assert target_of("a.b_c:D") == target_of("a.b_c:D:x=1:y=2") == "a.b_c:D"


def spec_of(model, **options):
    return ModelSpec(model, freeze(options))


@pytest.mark.parametrize(
    ("spec", "shape", "places"),
    [
        (spec_of("mlp", nodes=(7, 5)), (8,), 2),
        (spec_of("cnn", filters=(3, 2), nodes=(5,)), (1, 8, 8), 3),
        (spec_of("deep-mlp", depth=2, width=6), (8,), 2),
        (spec_of("resnet", widths=(4,)), (3, 8, 8), None),
        (spec_of("custom", target=f"{HERE}:network"), (8,), 2),
    ],
)
@pytest.mark.parametrize("name", ["Slope", "cubed"])
def test_networks_of_ours_and_of_the_users_take_them(spec, shape, places, name):
    def built(seed: int = 0) -> Any:
        return models.build(spec, arm(f"{HERE}:{name}").spec, input_shape=shape, classes=3, seed=seed)

    state = torch.get_rng_state()
    model, again, other = built(), built(), built(1)
    assert torch.equal(torch.get_rng_state(), state)
    found = [module for module in model.modules() if isinstance(module, UserActivation)]
    assert found
    assert places in (None, len(found))
    assert not any(isinstance(module, (Agile, nn.ReLU, nn.Tanh)) for module in model.modules())
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.eval()(x), again.eval()(x), rtol=0, atol=0)
    assert not torch.equal(model(x), other.eval()(x))
    # Weights are those of every other arm.
    plain = models.build(spec, arm("relu").spec, input_shape=shape, classes=3, seed=0).state_dict()
    same = [key for key, value in plain.items() if key in model.state_dict()]
    assert [key for key in same if not torch.equal(plain[key], model.state_dict()[key])] == []
    if name == "Slope":
        functions: list[Any] = [module.function for module in found]
        slopes = [function.slope for function in functions]
        assert len({tuple(one.tolist()) for one in slopes}) == len(slopes)
        assert not torch.equal(slopes[0], next(m for m in other.modules() if isinstance(m, mine.Slope)).slope)


@pytest.mark.parametrize(
    "name", [f"{HERE}:Slope", f"{HERE}:make", f"{HERE}:AlongAxis", f"{HERE}:cubed", "torch.nn:PReLU"]
)
def test_the_transformer_takes_them_with_its_channels_last(name):
    spec = spec_of("char-transformer", width=8, depth=2)
    tokens = torch.randint(0, 7, (2, 5), generator=torch.Generator().manual_seed(0))
    model = models.build(spec, arm(name).spec, input_shape=(5,), classes=7, seed=0)
    found = [module for module in model.modules() if isinstance(module, UserActivation)]
    assert len(found) == 2
    assert model(tokens).shape == (2, 5, 7)
    model(tokens).sum().backward()
    learned = [parameter for module in found for parameter in module.parameters()]
    assert [parameter.shape for parameter in learned] == [(32,)] * (0 if name.endswith(("Axis", "cubed")) else 2)
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in learned)


@pytest.mark.parametrize("shape", [(3, 6), (2, 3, 6), (2, 1, 3, 6), (0, 3, 6), (6, 6, 6), (2, 6, 6)])
@pytest.mark.parametrize("dim", [-1, "last"])
def test_channels_are_the_last_axis_whichever_way_the_module_counts_them(shape, dim):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dim = len(shape) - 1 if dim == "last" else dim
    slope = torch.linspace(0.1, 0.6, 6, dtype=torch.float64)
    for module in (made("Slope", 6, dim), made("TrailingSlope", 6, dim)):
        with torch.no_grad():
            module.function.slope.copy_(slope)
        for given in (x, x.transpose(0, -2)):
            torch.testing.assert_close(module(given), torch.where(given > 0, given, slope * given), rtol=0, atol=0)


def test_the_users_network_takes_them_with_its_channels_last():
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    for name in ("Slope", "TrailingSlope"):
        spec = spec_of("custom", target=f"{HERE}:Sequences")
        model = models.build(spec, arm(f"{HERE}:{name}").spec, input_shape=(5, 4), classes=3, seed=0)
        (found,) = [module for module in model.modules() if isinstance(module, UserActivation)]
        torch.nn.init.constant_(found.get_parameter("function.slope"), 0.2)
        hidden = model.get_submodule("first")(x)
        expected = model.get_submodule("second")(torch.where(hidden > 0, hidden, 0.2 * hidden)).mean(1)
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)


def test_a_network_that_holds_the_users_module_keeps_it_as_original():
    spec = spec_of("custom", target=f"{HERE}:own_network")
    model: Any = models.build(spec, arm("original").spec, input_shape=(8,), classes=3, seed=0)
    assert isinstance(model[1], mine.OneSlope)


def test_what_it_learns_has_the_activation_rate_and_no_decay():
    spec = ArmSpec(freeze({"*": f"{HERE}:Slope"}), lr=0.01, activation_lr=0.03, weight_decay=0.1)
    model = models.build(spec_of("mlp", nodes=(7,)), spec, input_shape=(8,), classes=3, seed=0)
    steps: Any = build_optimizer(model, spec)
    (group,) = [one for one in steps.param_groups if one["name"] == "activations"]
    assert (group["lr"], group["weight_decay"]) == (0.03, 0.0)
    assert [parameter.shape for parameter in group["params"]] == [(7,)]


def test_one_that_changes_the_shape_is_named_before_anything_is_run():
    study, data = identified(Study("s", (arm(f"{HERE}:Gated"),), (task("digits-mlp"),)))
    with pytest.raises(ArgumentError, match=r"Gated' made \(4, 15\) of \(4, 30\); it must keep the shape"):
        check_arms(study, data)


def test_its_code_is_part_of_the_trials_identity(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = "import torch\n\ndef act(x):\n    return {} * torch.tanh(x)\n"
    found = []
    for text in (source.format("1.0"), source.format("1.0") + "# a comment\n", source.format("2.0")):
        sys.modules.pop("own_act", None)
        (tmp_path / "own_act.py").write_text(text)
        sys.path_importer_cache.clear()
        found.append(arm_fingerprint(arm("own_act:act").spec.activations))
    assert found[0] == found[1] != found[2]
    study, _ = identified(Study("s", (arm("own_act:act"), arm("relu")), (task("digits-mlp"),)))
    assert [bool(one.spec.code) for one in study.arms] == [True, False]
    assert '"code"' not in task_trial(study, 1).to_json()
    assert identified(unidentified(study))[0] == study
    assert "own_act" in [module.name for module in UserCode.of(study).modules]
    planned = dataclasses.replace(study.arms[0].spec, code=found[0])
    with pytest.raises(ArgumentError, match="an activation of yours is not the one that this study was planned with"):
        models.build(study.tasks[0].spec.model, planned, input_shape=(64,), classes=10, seed=0)


def task_trial(study, number):
    from agileact.study.running.planner import plan

    return next(
        spec
        for spec in plan(study, lambda spec: None).next
        if spec.arm.activations == study.arms[number].spec.activations
    )


@pytest.mark.parametrize(
    ("name", "together"),
    [
        *((f"{HERE}:{one}", True) for one in ("Slope", "OneSlope", "cubed", "READY", "AlongAxis", "Scaled")),
        ("torch.nn:PReLU", True),
        *((f"{HERE}:{one}", False) for one in ("Noisy", "Chosen", "Drawn", "Remembers")),
        ("torch.nn:Dropout", False),
    ],
)
def test_it_runs_in_a_stack_if_it_computes_there_what_it_computes_alone(name, together):
    specs = [task_trial(Study("s", (arm(name),), (task("digits-mlp"),)), 0)]
    specs += [dataclasses.replace(specs[0], seed=5)]
    state = torch.get_rng_state()
    assert [len(group) for group in stacks(specs)] == ([2] if together else [1, 1])
    assert torch.equal(torch.get_rng_state(), state)
    assert alone_for_its_activation(specs[0].task, specs[0].arm) == (not together)


@pytest.mark.usefixtures("_clean_registry")
def test_a_base_that_the_models_own_module_registers_is_known(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_base.py").write_text(
        "import agileact as ag, torch\nfrom torch import nn\n"
        "ag.register_base('own_base_of_a_model', lambda x: x * torch.sigmoid(2 * x))\n"
        "def build():\n    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))\n"
    )
    text = (
        "arms: [original, own_base_of_a_model, agile-own_base_of_a_model]\ntasks:\n  - name: mine\n"
        f"    data: {{name: custom, target: '{HERE}:load'}}\n    model: {{name: custom, target: 'own_base:build'}}\n"
        "    budget: {iterations: 3, batch_size: 10}\n"
    )
    (tmp_path / "s.yaml").write_text(text)
    study, data = identified(read_study(tmp_path / "s.yaml"))
    check_arms(study, data)


@pytest.mark.slow
def test_a_comparison_of_the_users_activation_runs_to_its_end(tmp_path, monkeypatch, capsys):
    (tmp_path / "mymod.py").write_text(
        "import agileact as ag, torch\nfrom torch import nn\n"
        "ag.register_base('ownbase', lambda x: x * torch.sigmoid(2 * x))\n"
        "class MyAct(nn.Module):\n    def __init__(self, channels):\n        super().__init__()\n"
        "        self.a = nn.Parameter(torch.ones(channels))\n"
        "    def forward(self, x):\n        return torch.tanh(self.a * x)\n"
        f"from {HERE} import network, load\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = "compare --model mymod:network --data mymod:load --arms original,mymod:MyAct,agile-ownbase"
    monkeypatch.setattr("agileact.study.commands.compare._MOST_REPLICATES", 0)
    monkeypatch.setattr("agileact.study.commands.compare._MOST_TUNING", 4)
    monkeypatch.setattr("agileact.study.commands.compare._MOST_SEEDS", 7)
    assert (
        cli.main([*arguments.split(), "--budget", "1h", "--iterations", "6", "--batch-size", "20", "--jobs", "1"]) == 0
    )
    assert "mymod:MyAct" in capsys.readouterr().out
    outcome = stored(tmp_path / "runs" / "compare").read()
    assert outcome.current.finished
    assert outcome.around.code
    assert (tmp_path / "runs" / "compare" / "code" / outcome.around.code / "mymod.py").is_file()


def test_a_study_is_taken_up_from_its_folder_with_the_same_activation_alone(tmp_path, monkeypatch):
    study, _ = identified(Study("s", (arm(f"{HERE}:cubed"),), (Task("d", task("digits-mlp").spec),), Protocol()))
    changed = dataclasses.replace(study.arms[0].spec, code="0" * 16)
    assert identified(unidentified(study))[0].arms[0].spec != changed
