from __future__ import annotations

import pytest
import torch

import agileact
from agileact import ArgumentError, DataError, baselines
from agileact.study.spec import tasks
from agileact.study.spec.arms import arm, controls, every_arm, modifiers
from agileact.study.spec.tasks import task
from agileact.study.spec.trial import ArmSpec
from agileact.study.training.setup import build_network, build_optimizer


@pytest.mark.parametrize("base", ["relu", "sigmoid"])
def test_every_arm_that_a_full_study_needs_builds_and_takes_a_step(base, monkeypatch):
    monkeypatch.setattr(agileact, "calibrate", lambda model, batches: None, raising=False)
    found = every_arm(base)
    names = [one.name for one in found]
    assert len(set(names)) == len(names)
    assert {base, f"agile-{base}", f"combined-{base}:terms=3", *baselines.names()} <= set(names)
    model = task("paper-cnn").spec.model
    x = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for one in found:
        network = build_network(model, one.spec, input_shape=(1, 28, 28), classes=10, seed=0, sample=lambda: x)
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        steps = build_optimizer(network, one.spec)
        torch.nn.functional.cross_entropy(network(x), torch.arange(6)).backward()
        steps.step()
        assert not torch.equal(before["output.weight"], network.get_parameter("output.weight")), one.name


def test_controls_change_one_thing_each():
    changed = {}
    for control in controls("relu"):
        default = ArmSpec(control.spec.activations)
        fields = [f for f in default.__dataclass_fields__ if getattr(control.spec, f) != getattr(default, f)]
        assert len(fields) == 1, control
        changed[control.name] = fields[0]
    assert changed["relu+bias-lr=2"] == "bias_lr_multiplier"
    assert changed["relu+batchnorm"] == "normalisation"
    assert len({control.spec for control in controls("relu")}) == len(changed)


def test_modifiers_add_up():
    spec = arm("agile-gelu:approximate=tanh+positive+weight-decay=0.1", optimizer="sgd").spec
    assert (spec.scale_sign, spec.weight_decay, spec.optimizer) == ("positive", 0.1, "sgd")
    assert spec.activations == (("*", "agile-gelu:approximate=tanh"),)
    assert "bias-lr=NUMBER" in modifiers()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("agile-relu+froze", "unknown modifier 'froze'; did you mean 'frozen'"),
        ("relu+frozen", "'frozen' is for agile or combined activations"),
        ("agile-relu+widened", "is for plain activations"),
        ("agile-relu+scale-only+location-only", "two modifiers set freeze"),
        ("relu+bias-lr=x", "'x' behind 'bias-lr' is not a number"),
        ("relux", "did you mean 'relu"),
    ],
)
def test_names_that_do_not_fit(name, part):
    with pytest.raises(ArgumentError, match=part):
        arm(name)


def test_tasks_have_data_and_models_that_exist():
    from agileact.study import models
    from agileact.study.data import dataset as data

    for name in tasks.names():
        found = task(name, "somewhere" if tasks.needs(name) else None).spec
        assert found.data.name in data.names()
        assert found.model.name in models.names()
        assert set(dict(found.model.options)) <= set(models.options(found.model.name))
        assert not found.budget.test_curve


def test_tasks_that_do_not_fit():
    with pytest.raises(ArgumentError, match="unknown task 'paper-cn'; did you mean 'paper-cnn'"):
        task("paper-cn")
    with pytest.raises(ArgumentError, match="needs the path of its data's folder"):
        task("cifar-resnet")
    with pytest.raises(ArgumentError, match="takes no path"):
        task("paper-cnn", "x")
    from agileact.study.data import dataset as data

    with pytest.raises(DataError, match="there is no nowhere"):
        data.load(task("idx-mlp", "nowhere").spec.data)
