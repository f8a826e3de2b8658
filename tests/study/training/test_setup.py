"""What an arm asks for is what its network and optimizer do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from agileact import ArgumentError
from agileact.nn import Agile, CombinedAgile
from agileact.study import models
from agileact.study.spec.arms import has_trainable_activations
from agileact.study.spec.trial import ArmSpec, ModelSpec, TrialSpec, freeze
from agileact.study.training import setup as training
from agileact.study.training.run import run_trial
from agileact.study.training.setup import build_network, build_optimizer
from tests.study.builders import make_data, make_spec

MLP = ModelSpec("mlp", freeze({"nodes": (6, 5)}))
CNN = ModelSpec("cnn", freeze({"filters": (3, 2), "nodes": (5,)}))


def network(activation="agile-relu", model=MLP, **options):
    arm = ArmSpec(freeze({"*": activation}), **options)
    shape = (1, 8, 8) if model is CNN else (8,)
    return build_network(model, arm, input_shape=shape, classes=3, seed=0, sample=lambda: torch.ones(2, *shape)), arm


def trained(steps=3, lr=0.1, **options):
    model, arm = network(lr=lr, optimizer="sgd", **options)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, arm)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        x, y = torch.randn(9, 8, generator=generator), torch.randint(0, 3, (9,), generator=generator)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, {name: p.detach() - before[name] for name, p in model.named_parameters()}


@pytest.mark.parametrize("frozen", [("scale",), ("location",), ("location", "scale")])
def test_what_is_frozen_stays_and_the_rest_moves(frozen):
    _, moved = trained(freeze=frozen)
    for name, change in moved.items():
        assert bool(change.any()) != name.endswith(frozen), name


def test_learning_rates_reach_their_parameters():
    _, one = trained(steps=1, scale_lr=0.2, location_lr=0.3)
    _, other = trained(steps=1, activation_lr=0.1)
    for name, change in one.items():
        factor = 2.0 if name.endswith("scale") else 3.0 if name.endswith("location") else 1.0
        torch.testing.assert_close(change, factor * other[name], rtol=1e-4, atol=1e-6)


def test_the_bias_multiplier_is_for_biases_of_layers_alone():
    _, one = trained(steps=1, activation="relu")
    _, other = trained(steps=1, activation="relu", bias_lr_multiplier=4.0)
    for name, change in other.items():
        factor = 4.0 if name.endswith("bias") else 1.0
        torch.testing.assert_close(change, factor * one[name], rtol=1e-4, atol=1e-6)
    model, arm = network("relu", CNN, bias_lr_multiplier=4.0, normalisation="batch")
    groups = {group["name"]: group["params"] for group in build_optimizer(model, arm).param_groups}  # type: ignore[attr-defined]
    assert len(groups["biases"]) == 4
    assert len(groups["weights"]) == 4 + 2 * 3


def test_baselines_have_the_activation_learning_rate_and_no_decay():
    model, arm = network("prelu", lr=0.1, activation_lr=0.01, weight_decay=0.5)
    groups = {group["name"]: group for group in build_optimizer(model, arm).param_groups}  # type: ignore[attr-defined]
    assert [(g["lr"], g["weight_decay"], len(g["params"])) for g in groups.values()] == [(0.1, 0.5, 6), (0.01, 0.0, 2)]
    assert set(groups) == {"weights", "activations"}


def scales(model):
    return [module.scale.detach() for module in model.modules() if isinstance(module, Agile)]


def test_decay_pulls_scales_to_one_and_the_sign_stays_positive():
    model, _ = trained(steps=60, lr=0.5, activation_decay=1.9, activation_lr=0.5)
    free, _ = trained(steps=60, lr=0.5, activation_lr=0.5)
    distance = [max(float((scale - 1).abs().max()) for scale in scales(net)) for net in (model, free)]
    assert distance[0] < 0.5 * distance[1]
    kept, _ = trained(steps=40, lr=0.5, activation_lr=10.0, activation="agile-tanh", scale_sign="positive")
    wild, _ = trained(steps=40, lr=0.5, activation_lr=10.0, activation="agile-tanh")
    least = [min(float(scale.min()) for scale in scales(net)) for net in (kept, wild)]
    assert least[0] >= 1e-3 * (1 - 1e-6)
    assert least[1] < 0


def test_matched_width_has_just_more_parameters_than_the_agile_form():
    def count(**options):
        model, _ = network(model=CNN, **options)
        return sum(p.numel() for p in model.parameters())

    plain, agile, wide = count(activation="relu"), count(), count(activation="relu", width="matched")
    assert plain < agile <= wide
    # The cheapest unit to add is one of the dense layer: 8 inputs, a bias and three outputs.
    assert wide - agile < 8 + 1 + 3
    with pytest.raises(ArgumentError, match="only a plain activation has an agile form"):
        network("agile-relu", width="matched")


def test_batch_normalisation_stands_before_each_activation():
    model, _ = network("relu", CNN, normalisation="batch")
    kinds = [type(m).__name__ for m in model]
    assert kinds[:4] == ["Conv2d", "BatchNorm2d", "PlainActivation", "MaxPool2d"]
    assert "BatchNorm1d" in kinds
    plain, _ = network("relu", CNN)
    assert torch.equal(plain.get_parameter("conv2.weight"), model.get_parameter("conv2.weight"))
    with pytest.raises(ArgumentError, match="has no form with batch normalisation"):
        network("relu", ModelSpec("plain-only"), normalisation="batch")


@pytest.fixture(autouse=True)
def _plain_model(monkeypatch):
    from agileact.study.models import registry as _registry

    def build(arm, input_shape, classes, seed):
        return nn.Linear(8, classes)

    monkeypatch.setitem(_registry._BUILDERS, "plain-only", build)


@pytest.fixture
def calibrated(monkeypatch):
    """A calibration that is easy to predict: every scale 2, every location 1; records what it was given."""
    seen = []

    def calibrate(model, batches):
        seen.extend(batches)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, Agile):
                    module.scale.fill_(2.0)
                    module.location.fill_(1.0)

    monkeypatch.setattr(training, "calibrate", calibrate)
    return seen


def test_a_calibrated_start_and_its_folded_twin_compute_the_same(calibrated):
    agile, _ = network("agile-sigmoid", CNN, start="calibrated")
    plain, _ = network("sigmoid", CNN, start="folded")
    assert len(calibrated) == 2
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain(x), agile(x))
    start, _ = network("sigmoid", CNN)
    assert not torch.allclose(plain(x), start(x))
    with pytest.raises(ArgumentError, match="try start 'folded'"):
        network("relu", start="calibrated")


def test_a_trial_calibrates_on_training_data_without_shifting_the_batches(calibrated):
    data = make_data()
    spec = make_spec(fc="agile-relu", conv="relu")
    arm = ArmSpec(spec.arm.activations, lr=0.01, start="calibrated")
    run_trial(TrialSpec(spec.task, arm, 0), data)
    rows = {tuple(row.flatten().tolist()) for row in data.train_x}
    assert all(tuple(row.flatten().tolist()) in rows for row in calibrated[0])


@pytest.mark.parametrize("name", ["combined-relu:terms=3", "pau", "apl:hinges=3", "snake:frequency=5", "aglu"])
def test_every_kind_of_activation_trains(name):
    model, moved = trained(activation=name)
    learned = [change for key, change in moved.items() if "activation" in key]
    assert any(bool(change.any()) for change in learned)
    if name.startswith("combined"):
        assert next(m.terms for m in model.modules() if isinstance(m, CombinedAgile)) == 3


@pytest.mark.parametrize("updates", ["folded", "folded-reset"])
def test_folded_updates_run_as_a_trial(updates):
    spec = make_spec(conv="relu", fc="sigmoid", iterations=10, probe_every=0)
    arm = ArmSpec(spec.arm.activations, optimizer="sgd", lr=0.5, activation_lr=0.5, updates=updates)
    folded = run_trial(TrialSpec(spec.task, arm, 0), make_data())
    agile = make_spec(conv="agile-relu", fc="agile-sigmoid", iterations=10, probe_every=0)
    arm = ArmSpec(agile.arm.activations, optimizer="sgd", lr=0.5, activation_lr=0.5)
    expected = run_trial(TrialSpec(agile.task, arm, 0), make_data())
    close = folded.curve.validation_loss == pytest.approx(expected.curve.validation_loss, rel=1e-4)
    assert close == (updates == "folded"), (folded.curve.validation_loss, expected.curve.validation_loss)
    assert folded.layers == {}


def test_patterns_go_before_roles_and_the_star_behind():
    arm = ArmSpec(freeze({"fc1*": "gelu", "fc": "agile-relu", "*": "tanh"}))
    model = models.build(CNN, arm, input_shape=(1, 8, 8), classes=2, seed=0)
    shown = {name: repr(module) for name, module in model.named_modules() if name.endswith("activation")}
    assert shown["conv1_activation"] == "PlainActivation(tanh)"
    assert shown["fc1_activation"].startswith("PlainActivation(gelu")
    with pytest.raises(ArgumentError, match="several patterns fit the activation 'fc1_activation'"):
        ArmSpec(freeze({"fc1*": "gelu", "fc?_*": "relu"})).activation("fc", "fc1_activation")


def test_who_has_something_to_tune():
    def trainable(name, **options):
        return has_trainable_activations(ArmSpec(freeze({"fc": name}), **options))

    assert [trainable(n) for n in ("relu", "agile-relu", "prelu", "combined-relu")] == [False, True, True, True]
    assert trainable("relu", updates="folded")
    assert trainable("agile-relu", freeze=("scale",))
    assert not trainable("agile-relu", freeze=("scale", "location"))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (
            {"freeze": ("scales",)},
            "an entry of freeze must be 'scale' or 'location' or 'gain', not 'scales'; did you mean 'scale'",
        ),
        ({"freeze": ("scale", "scale")}, "twice"),
        ({"start": "calibrate"}, "did you mean 'calibrated'"),
        ({"scale_sign": "negative"}, "'free' or 'positive'"),
        ({"bias_lr_multiplier": -1.0}, "bias_lr_multiplier must be at least 0"),
        ({"scale_lr": -1.0}, "scale learning rate"),
        ({"activation": "relu", "freeze": ("scale",)}, "no agile activation"),
    ],
)
def test_what_does_not_fit_is_refused(options, part):
    with pytest.raises(ArgumentError, match=part):
        network(**options)


def test_later_fields_leave_old_identities_as_they_were():
    assert make_spec().key == "175d069547ea4692"  # as it was before there were later fields
    spec = make_spec()
    arm = ArmSpec(spec.arm.activations, lr=0.01, freeze=("scale", "location"), start="calibrated")
    other = TrialSpec(spec.task, arm, 0)
    assert other.key != spec.key
    again = TrialSpec.from_json(other.to_json())
    assert again == other
    assert again.arm.freeze == ("location", "scale")
