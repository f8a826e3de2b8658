"""The forms of weights that arms ask for: their rows at the start and after steps, and networks without such a form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from agileact import ArgumentError
from agileact.nn.rows import directions
from agileact.study.spec.arms import arm
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import ModelSpec, TrialSpec, freeze
from agileact.study.training.loop import Trial
from agileact.study.training.run import run_trial
from agileact.study.training.setup import build_network, build_optimizer
from agileact.study.training.stacked import stackable
from agileact.study.training.threads import one_thread
from tests.study.builders import make_data, make_spec

MLP = ModelSpec("mlp", freeze({"nodes": (6, 5)}))
CNN = ModelSpec("cnn", freeze({"filters": (3, 2), "nodes": (5,)}))


HELD = {
    "agile-relu+standardized": "all",
    "agile-sigmoid+hidden-standardized": "hidden",
    "agile-relu+centred-start": "none",
    "agile-gelu+length-one": "none",
    "agile-tanh+weight-standardized": "all",
}
"""Arms, and which layers they keep at mean 0."""


def trained(name, model=MLP, steps=3, **changes):
    """Return the network of an arm before and after some steps."""
    spec = arm(name, lr=0.05, **changes).spec
    shape = (1, 8, 8) if model is CNN else (8,)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(9, *shape, generator=generator), torch.arange(9) % 3
    network = build_network(model, spec, input_shape=shape, classes=3, seed=0, sample=lambda: x)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = build_optimizer(network, spec)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network, before


def rows(network):
    layers = [module for module in network if isinstance(module, (nn.Linear, nn.Conv2d))]
    return [layer.weight.detach().double().flatten(1) for layer in layers]


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("name", HELD)
def test_rows_are_directions_after_every_step_and_the_last_layer_is_free(name, model):
    network, before = trained(name, model)
    *hidden, last = rows(network)
    for index, weight in enumerate(hidden):
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)).double(), rtol=0, atol=1e-6)
        centred = weight.mean(1).abs().max() < 1e-6
        assert centred == (HELD[name] == "all" or (HELD[name] == "hidden" and index > 0))
    assert (last.norm(dim=1) - 1).abs().min() > 1e-3
    biases = [key for key in before if key.endswith("bias") and "activation" not in key]
    assert biases == ["output.bias"]
    assert any(key.endswith("gain") for key in before) == ("relu" not in name)
    for key, value in network.state_dict().items():
        assert not torch.equal(value, before[key]), key


def test_the_start_of_the_scale_and_what_ablations_keep():
    size = 1 / math.sqrt(0.5 - 0.5 / math.pi)  # 1 / std of relu(xi)
    for name, start, learns in (
        ("agile-relu+standardized", size, True),
        ("agile-relu+standardized+location-only", size, False),
        ("agile-relu+nf", size, False),
        ("agile-relu+standardized+start-one", 1.0, True),
        ("agile-relu+standardized+size-one", 1.0, False),
    ):
        network, before = trained(name)
        scale = before["fc1_activation.scale"]
        torch.testing.assert_close(scale, torch.full_like(scale, start), rtol=1e-5, atol=0)
        assert torch.equal(network.get_parameter("fc1_activation.scale"), scale) != learns, name
    for name in ("agile-gelu+standardized+gain-frozen", "agile-gelu+nf"):
        network, before = trained(name)
        assert torch.equal(network.get_parameter("fc1_activation.gain"), torch.ones(6)), name
        assert network.get_parameter("fc1_activation.location").any(), name


def test_decay_reaches_the_read_out_alone():
    spec = arm("agile-relu+standardized+weight-decay=0.5", optimizer="adamw").spec
    network = build_network(MLP, spec, input_shape=(8,), classes=3, seed=0, sample=lambda: torch.randn(2, 8))
    groups = build_optimizer(network, spec).param_groups  # type: ignore[attr-defined]
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in network.get_submodule("output").parameters()}


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
def test_weight_norm_is_torchs_on_every_layer_but_the_last(model):
    network, before = trained("relu+weight-norm", model)
    gains = [key for key in before if key.endswith("original0")]
    assert len(gains) == len(rows(network)) - 1
    assert "output.weight" in before


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
def test_layer_normalisation_is_of_each_sample(model):
    network, _ = trained("sigmoid+layernorm", model, steps=0)
    norms = [module for module in network if isinstance(module, (nn.LayerNorm, nn.GroupNorm))]
    assert len(norms) == len(rows(network)) - 1
    z = torch.randn(4, 3, 8, 8) if model is CNN else torch.randn(4, 6)
    out = norms[0](z).flatten(1)
    torch.testing.assert_close(out.mean(1), torch.zeros(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(out.var(1, unbiased=False), torch.ones(4), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["agile-gelu+standardized", "agile-relu+length-one", "agile-gelu+nf", "relu+weight-norm", "relu+layernorm"]
)
def test_a_trial_of_each_form_runs_alone_and_is_reproducible(name):
    spec = make_spec(probe_every=0, test_curve=False)
    spec = TrialSpec(spec.task, arm(name, lr=0.01).spec, 0)
    assert TrialSpec.from_json(spec.to_json()) == spec
    assert not stackable(spec)
    one, again = (run_trial(spec, make_data()) for _ in range(2))
    assert one.status == "finished"
    assert one.curve == again.curve
    assert one.selected_test_loss is not None
    assert one.selected_test_loss == again.selected_test_loss


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("agile-relu", {"start": "one"}, "the start 'one' is for standardised weights, not for 'free' ones"),
        ("agile-relu+skip-init", {}, "the start 'skip-init' is for standardised weights, not for 'free' ones"),
        ("agile-relu+standardized+skip-init", {}, "no branch of a residual sum ends in an agile activation"),
        ("relu", {"weights": "standardized"}, "weights 'standardized' are for agile activations, and the arm has none"),
        ("agile-relu+batchnorm", {"weights": "standardized"}, "no layer of the model can be standardised"),
    ],
)
def test_forms_that_a_network_cannot_have(name, changes, words):
    with pytest.raises(ArgumentError, match=words):
        trained(name, **changes)
    with pytest.raises(ArgumentError, match="the start 'calibrated' is for free weights"):
        arm("agile-relu+standardized+calibrated")
    with pytest.raises(ArgumentError, match="'resnet' has no form with layer normalisation"):
        build_network(
            ModelSpec("resnet"),
            arm("relu+layernorm").spec,
            input_shape=(1, 8, 8),
            classes=2,
            seed=0,
            sample=torch.Tensor,
        )


def test_branches_that_start_at_nothing_leave_the_shortcuts_alone():
    model = ModelSpec("residual-plain", freeze({"widths": (4, 8), "blocks": 1}))
    spec = arm("agile-relu+standardized+skip-init").spec
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network = build_network(model, spec, input_shape=(1, 8, 8), classes=3, seed=0, sample=lambda: x)
    scales = {key: value.unique() for key, value in network.state_dict().items() if key.endswith("scale")}
    assert {key for key, value in scales.items() if value.tolist() == [0.0]} == {
        f"stage{n}_block1.unit2.activation.scale" for n in (1, 2)
    }
    parts = dict(network.named_children())
    h = parts["stem"](x)
    torch.testing.assert_close(parts["stage1_block1"](h), h)
    shortcut = network.get_submodule("stage2_block1.shortcut")
    torch.testing.assert_close(parts["stage2_block1"](h), shortcut(h))


def test_an_arm_says_how_far_a_step_turns_its_directions():
    spec = arm("agile-relu+standardized+direction-turn=3", optimizer="adamw", lr=0.01).spec
    network = build_network(MLP, spec, input_shape=(400,), classes=3, seed=0, sample=lambda: torch.randn(2, 400))
    groups = build_optimizer(network, spec).param_groups  # type: ignore[attr-defined]
    rates = [group["lr"] for group in groups if group["name"] == "direction"]
    assert rates == pytest.approx([0.01 * 3 / 20, 0.01])  # rows of 400 numbers, and of 6
    with pytest.raises(
        ArgumentError, match=r"direction_turn is for weights 'standardized' or .* or 'length-one', not 'free'"
    ):
        arm("agile-relu+direction-turn=3")


@pytest.mark.parametrize("name", ["agile-gelu+standardized", "agile-relu+length-one"])
def test_a_trial_notes_how_far_the_last_step_before_an_evaluation_turned_rows(name):
    spec = make_spec(iterations=6, evaluate_every=5, probe_every=0, test_curve=False)
    spec = TrialSpec(spec.task, arm(name, lr=0.01).spec, 0)

    class Watched(Trial):
        def _measure(self, iteration, train_loss):
            weights = {
                key: layer.get_parameter("weight").detach().double() for key, layer in directions(self.model).items()
            }
            rows_at.append({key: weight.flatten(1).clone() for key, weight in weights.items()})
            super()._measure(iteration, train_loss)

    rows_at: list[dict[str, torch.Tensor]] = []
    with one_thread():
        result = Watched(spec, make_data(), None).run()
    assert result.curve.iteration == [0, 5, 6]
    assert list(result.directions) == ["conv1", "conv2", "fc1"]
    for layer, trace in result.directions.items():
        assert len(trace.turn_median) == len(trace.turn_max) == 2
        # Between the evaluations after steps 5 and 6 is one step.
        angles = torch.acos((rows_at[1][layer] * rows_at[2][layer]).sum(1).clamp(max=1.0))
        assert trace.turn_max[1] == pytest.approx(float(angles.max()), rel=1e-3)
        assert trace.turn_median[1] == pytest.approx(float(angles.quantile(0.5)), rel=1e-3)
    assert TrialResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("name", ["agile-gelu", "relu+batchnorm", "agile-gelu+weight-standardized", "relu+weight-norm"])
def test_a_trial_of_free_rows_has_no_directions(name):
    spec = make_spec(probe_every=0, test_curve=False)
    assert run_trial(TrialSpec(spec.task, arm(name, lr=0.01).spec, 0), make_data()).directions == {}
