"""param_groups: who is in which group, and what a step does."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

import agileact as ag
from agileact import reference
from agileact.nn.rows import laid_out, lengths, row_length


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        ag.AgileReLU(4),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 5),
        ag.CombinedAgile("sigmoid", 5, terms=3),
        nn.Linear(5, 2),
    )


def _named(groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {group["name"]: group for group in groups}


def _all(groups: list[dict[str, Any]]) -> list[Tensor]:
    return [parameter for group in groups for parameter in group["params"]]


def test_groups_of_a_network():
    model = _network()
    groups = ag.param_groups(model, 0.1, activation_lr=0.01, weight_decay=0.05, activation_decay=0.2)
    assert [group["name"] for group in groups] == ["weights", "scale", "location"]
    weights, scale, location = groups
    assert scale["params"] == [model[1].scale, model[5].scale]
    assert location["params"] == [model[1].location, model[5].location]
    assert len(weights["params"]) == 8
    assert (weights["lr"], weights["weight_decay"]) == (0.1, 0.05)
    assert "activation_decay" not in weights
    for group in (scale, location):
        assert (group["lr"], group["weight_decay"], group["activation_decay"]) == (0.01, 0.0, 0.2)
    assert len({id(one) for one in _all(groups)}) == len(list(model.parameters()))


def test_activation_lr_is_lr_unless_given():
    assert {group["lr"] for group in ag.param_groups(_network(), 0.1)} == {0.1}


def test_empty_groups_are_left_out():
    plain = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert [group["name"] for group in ag.param_groups(plain, 0.1)] == ["weights"]
    assert [group["name"] for group in ag.param_groups(ag.AgileReLU(2), 0.1)] == ["scale", "location"]
    assert ag.param_groups(nn.ReLU(), 0.1) == []


def test_frozen_parameters_are_left_out():
    model = _network()
    model[0].requires_grad_(False)
    model[1].location.requires_grad_(False)
    groups = _named(ag.param_groups(model, 0.1))
    assert len(groups["weights"]["params"]) == 6
    assert groups["location"]["params"] == [model[5].location]


def test_shared_modules_and_parameters_are_there_once():
    activation, linear = ag.AgileReLU(3), nn.Linear(3, 3)
    model = nn.Sequential(linear, activation, linear, activation, ag.AgileTanh(3))
    model[4].scale = activation.scale
    groups = _named(ag.param_groups(model, 0.1))
    assert groups["scale"]["params"] == [activation.scale]
    assert len(groups["location"]["params"]) == 2
    assert len(groups["weights"]["params"]) == 2


def test_a_parameter_cannot_be_scale_and_location():
    module = ag.AgileReLU(3)
    module.location = module.scale
    with pytest.raises(ag.ArgumentError, match="both as a scale and as a location"):
        ag.param_groups(module, 0.1)


def test_parametrised_and_pruned_scales_are_still_scales():
    model = nn.Sequential(nn.Linear(3, 3), ag.AgileReLU(3), ag.AgileTanh(3))
    torch.nn.utils.parametrize.register_parametrization(model[1], "scale", nn.Softplus())
    prune.l1_unstructured(model[2], "location", amount=1)
    groups = _named(ag.param_groups(model, 0.1, weight_decay=0.1, activation_decay=0.1))
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [named[id(one)] for one in groups["weights"]["params"]] == ["0.weight", "0.bias"]
    assert {named[id(one)] for one in groups["scale"]["params"]} == {"1.parametrizations.scale.original", "2.scale"}
    assert {named[id(one)] for one in groups["location"]["params"]} == {"1.location", "2.location_orig"}
    with pytest.raises(ag.ArgumentError, match="not parametrised or pruned"):
        ag.decay_activations(torch.optim.SGD(groups.values()), model)


@given(data=st.data())
def test_every_trainable_parameter_is_in_exactly_one_group(data):
    kinds = st.sampled_from(
        [
            lambda: nn.Linear(3, 3),
            lambda: ag.AgileReLU(3),
            lambda: ag.CombinedAgile("tanh", 3),
            lambda: nn.Sequential(nn.Linear(3, 3), ag.AgileSigmoid(3)),
        ]
    )
    modules: list[nn.Module] = []
    for _ in range(data.draw(st.integers(0, 6))):
        if modules and data.draw(st.booleans()):
            modules.append(data.draw(st.sampled_from(modules)))
        else:
            modules.append(data.draw(kinds)())
    model = nn.Sequential(*modules)
    for parameter in model.parameters():
        parameter.requires_grad_(data.draw(st.booleans()))
    grouped = [id(one) for one in _all(ag.param_groups(model, 0.1))]
    assert sorted(grouped) == sorted({id(one) for one in model.parameters() if one.requires_grad})


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_any_optimizer_takes_them(optimizer):
    model = _network()
    before = copy.deepcopy(model.state_dict())
    steps = optimizer(ag.param_groups(model, 0.1, activation_lr=0.0))
    model(torch.randn(3, 1, 6, 6)).square().sum().backward()
    steps.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.endswith(("scale", "location"))


def test_gradient_descent_is_the_equations():
    """Weights and activations move in one pass by (5), (6) and by (15), (16), (23), (24), each with their own rate."""
    torch.manual_seed(1)
    filters, weights = nn.Conv2d(1, 2, 3), nn.Linear(2 * 4 * 4, 3)
    first, second = ag.AgileReLU(2), ag.AgileSigmoid(3)
    model = nn.Sequential(filters, first, nn.Flatten(), weights, second).double()
    x, upstream = torch.randn(5, 1, 6, 6).double(), torch.randn(5, 3).double()

    # By the equations alone.
    z = reference.feature_map(x, filters.weight, filters.bias)
    c = reference.agile_relu(z, torch.ones(()), torch.zeros(()))
    d_first = reference.agile_relu_derivatives(z, torch.ones(()), torch.zeros(()))
    estimate = reference.linear_estimate(c.flatten(1), weights.weight, weights.bias)
    d_second = reference.agile_sigmoid_derivatives(estimate, torch.ones(()), torch.zeros(()))
    node_a, node_b = reference.node_gradients(upstream, d_second.scale, d_second.location)
    to_estimate = upstream * d_second.x
    to_c = (to_estimate @ weights.weight).view_as(c)
    filter_a, filter_b = reference.filter_gradients(to_c, d_first.scale, d_first.location)
    to_z = to_c * d_first.x
    windows = nn.functional.unfold(x, 3)  # (batch, 9, positions)
    to_filters = torch.einsum("nqp,nkp->qk", to_z.flatten(2), windows).view_as(filters.weight)
    lr, activation_lr = 0.05, 0.3
    expected = {
        "0.weight": reference.gradient_step(filters.weight, to_filters, lr),
        "0.bias": reference.gradient_step(filters.bias, to_z.sum((0, 2, 3)), lr),  # type: ignore[arg-type]
        "1.scale": reference.gradient_step(first.scale, filter_a, activation_lr),
        "1.location": reference.gradient_step(first.location, filter_b, activation_lr),
        "3.weight": reference.gradient_step(weights.weight, to_estimate.t() @ c.flatten(1), lr),
        "3.bias": reference.gradient_step(weights.bias, to_estimate.sum(0), lr),
        "4.scale": reference.gradient_step(second.scale, node_a, activation_lr),
        "4.location": reference.gradient_step(second.location, node_b, activation_lr),
    }
    expected = {name: value.detach().clone() for name, value in expected.items()}

    optimizer = torch.optim.SGD(ag.param_groups(model, lr, activation_lr=activation_lr))
    model(x).backward(upstream)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-12, atol=1e-13)
        rate = activation_lr if name.endswith(("scale", "location")) else lr
        gradient = gradients[name]
        assert gradient is not None
        # For the same gradient the step is the same to the bit.
        assert torch.equal(parameter, reference.gradient_step(before[name], gradient, rate))


class TestGroupsOfTheUser:
    def test_keep_their_settings_and_weights(self):
        model = _network()
        own: list[dict[str, Any]] = [
            {"params": model[0:3].parameters(), "lr": 0.5, "momentum": 0.9, "name": "stem"},
            {"params": list(model[3:].parameters()), "weight_decay": 0.3},
        ]
        groups = ag.param_groups(model, 0.1, activation_lr=0.01, weight_decay=0.05, groups=own)
        stem, head, scale, location = groups
        assert (stem["lr"], stem["weight_decay"], stem["momentum"], stem["name"]) == (0.5, 0.05, 0.9, "stem")
        assert (head["lr"], head["weight_decay"]) == (0.1, 0.3)
        assert len(stem["params"]) == 4
        assert len(head["params"]) == 4
        assert (scale["name"], location["name"], scale["lr"]) == ("scale", "location", 0.01)
        assert len(own[1]["params"]) == 6  # the user's own list is left as it was
        torch.optim.SGD(groups)

    @pytest.mark.parametrize("form", ["parameters", "list", "one"])
    def test_may_be_plain_parameters(self, form):
        model = nn.Sequential(nn.Linear(2, 2, bias=False), ag.AgileReLU(2))
        own: Any = {
            "parameters": model.parameters(),
            "list": list(model.parameters()),
            "one": [{"params": model[0].weight}],
        }[form]
        groups = ag.param_groups(model, 0.1, groups=own)
        assert [len(group["params"]) for group in groups] == [1, 1, 1]

    def test_may_have_names(self):
        model = _network()
        groups = ag.param_groups(model, 0.1, groups=list(model.named_parameters()))
        optimizer = torch.optim.AdamW(groups)
        names = [name for group in optimizer.param_groups for name in group["param_names"]]
        assert sorted(names) == sorted(name for name, _ in model.named_parameters())
        assert optimizer.param_groups[1]["param_names"] == ["1.scale", "5.scale"]

    def test_an_emptied_group_is_left_out(self):
        model = nn.Sequential(nn.Linear(2, 2), ag.AgileReLU(2))
        own = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 9.0}]
        assert [group.get("name") for group in ag.param_groups(model, 0.1, groups=own)] == [None, "scale", "location"]

    def test_may_lack_scales_and_locations(self):
        model = nn.Sequential(nn.Linear(2, 2), ag.AgileReLU(2))
        groups = ag.param_groups(model, 0.1, groups=model[0].parameters())
        assert [len(group["params"]) for group in groups] == [2, 1, 1]

    def test_rates_by_layer_reach_the_activations(self):
        """As for a fine-tuning whose learning rate falls from layer to layer; unless activations have their own."""
        model = nn.Sequential(nn.Linear(2, 2), ag.AgileReLU(2), nn.Linear(2, 2), ag.AgileTanh(2), ag.AgileReLU(2))
        own = [
            {"params": model[:2].parameters(), "lr": 0.01, "weight_decay": 0.3},
            {"params": list(model[2:4].parameters()), "lr": 0.1},
            {"params": model[4].parameters()},
        ]
        groups = ag.param_groups(model, 0.5, groups=own, weight_decay=0.2, activation_decay=0.1)
        activation = [group for group in groups if group.get("name") in ("scale", "location")]
        assert [(group["name"], group["lr"]) for group in activation] == [
            ("scale", 0.01), ("scale", 0.1), ("scale", 0.5), ("location", 0.01), ("location", 0.1), ("location", 0.5),
        ]  # fmt: skip
        assert [group["params"] for group in activation[:3]] == [[model[1].scale], [model[3].scale], [model[4].scale]]
        assert {(group["weight_decay"], group["activation_decay"]) for group in activation} == {(0.0, 0.1)}
        ag.decay_activations(torch.optim.AdamW(groups), model)
        own = [{"params": model.parameters(), "lr": 0.01}]
        groups = ag.param_groups(model, 0.5, groups=own, activation_lr=0.7)
        assert [group["lr"] for group in groups] == [0.01, 0.7, 0.7]

    def test_a_model_with_shared_modules_tied_weights_and_wrapped_modules(self):
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embedding = nn.Embedding(9, 4)
                self.f = ag.AgileGELU(4, dim=-1)
                self.blocks = nn.ModuleList(nn.ModuleDict({"mix": nn.Linear(4, 4), "f": self.f}) for _ in range(3))
                self.wrapped: Any = ag.AgileWrapped(nn.PReLU(), 4, dim=-1)
                self.head = nn.Linear(4, 9, bias=False)
                self.head.weight = self.embedding.weight
                self.wrapped.location = self.f.location  # tied

        model = Model()
        head = [model.head.weight, model.wrapped.scale, *model.wrapped.function.parameters()]
        blocks = {"params": model.blocks.parameters(), "weight_decay": 0.7}
        forms: list[Any] = [None, model.parameters(), [blocks, {"params": head}]]
        for own in forms:
            groups = ag.param_groups(model, 0.1, weight_decay=0.5, groups=own)
            assert sorted(map(id, _all(groups))) == sorted(map(id, model.parameters()))
            activation = {id(one) for group in groups if "activation_decay" in group for one in group["params"]}
            assert activation == {id(model.f.scale), id(model.f.location), id(model.wrapped.scale)}
            for group in groups:
                assert ("activation_decay" in group) == (group["weight_decay"] == 0.0)
            torch.optim.AdamW(groups)

    @pytest.mark.parametrize(
        ("own", "message"),
        [
            (lambda m: [{"params": [*m.parameters()]}, {"params": [m[1].scale]}], "more than once: 1.scale"),
            (lambda m: [{"params": [m[0].weight]}], "lacks trainable parameters of model: 0.bias"),
            (lambda m: [m[0].weight, m[0].bias, m[0].bias], "more than once: 0.bias"),
            (lambda m: [*m.parameters(), nn.Linear(1, 7).weight], r"not the model's, of shape \(7, 1\)"),
            (lambda m: [{"lr": 0.1}], "a group must have 'params'; this one has 'lr'"),
            (lambda m: ["0.weight"], "must hold parameters, not str"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, own, message):
        model = nn.Sequential(nn.Linear(2, 2), ag.AgileReLU(2))
        with pytest.raises((ag.ArgumentError, ag.ArgumentTypeError), match=message):
            ag.param_groups(model, 0.1, groups=own(model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -0.1}, "lr must be at least 0 and finite, not -0.1"),
        ({"lr": 0.1, "activation_lr": float("nan")}, "activation_lr must be at least 0"),
        ({"lr": 0.1, "weight_decay": -1}, "weight_decay must be"),
        ({"lr": 0.1, "activation_decay": float("inf")}, "activation_decay must be"),
        ({"lr": "0.1"}, "lr must be a number, not '0.1'"),
    ],
)
def test_rates_that_do_not_fit_are_refused(options, message):
    with pytest.raises((ag.ArgumentError, ag.ArgumentTypeError), match=message):
        ag.param_groups(nn.Linear(1, 1), **options)


def test_a_model_must_be_a_module():
    with pytest.raises(ag.ArgumentTypeError, match=r"must be a torch\.nn\.Module, not list"):
        ag.param_groups([nn.Linear(1, 1)], 0.1)  # type: ignore[arg-type]


def test_a_direction_turns_by_so_many_rates_at_most():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(400, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    x = torch.randn(8, 400)
    agile, _ = ag.convert(model, example_inputs=x, weights="standardized")
    groups = ag.param_groups(agile, 0.01, direction_turn=3)
    rates = {p: group["lr"] for group in groups for p in group["params"]}
    assert rates[agile.get_parameter("0.weight")] == pytest.approx(0.01 * 3 / 20)
    assert rates[agile.get_parameter("2.weight")] == 0.01  # a row of 6 turns by less than 3 rates as it is
    assert rates[agile.get_parameter("1.scale")] == rates[agile.get_parameter("4.weight")] == 0.01
    optimizer = torch.optim.Adam(groups)
    ag.standardize_weights(optimizer, agile)
    before = agile.get_parameter("0.weight").detach().clone()
    agile(x).square().mean().backward()
    optimizer.step()
    turned = torch.acos((before * agile.get_parameter("0.weight").detach()).sum(1).clamp(max=1))
    assert 0.01 < float(turned.max()) < 0.03 * 1.01


@pytest.mark.parametrize(
    ("layer", "numbers"),
    [
        (nn.Linear(7, 3), 7),
        (nn.Conv2d(4, 6, 3, groups=2), 2 * 9),
        (nn.ConvTranspose1d(4, 6, 5, groups=2), 2 * 5),
    ],
)
def test_a_row_is_as_long_as_its_view_says(layer, numbers):
    view, axes = laid_out(layer, layer.weight)
    assert row_length(layer) == numbers == math.prod(view.shape[axis] for axis in axes)


@pytest.mark.parametrize(
    "layer", [nn.Linear(7, 3), nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose1d(4, 6, 5, groups=2)]
)
def test_lengths_are_those_of_the_rows(layer):
    weight = layer.weight.detach().half()
    if isinstance(layer, nn.ConvTranspose1d):  # output 4 is the second of group 1, which has inputs 2 and 3
        rows = [weight[2 * (unit // 3) : 2 * (unit // 3) + 2, unit % 3] for unit in range(6)]
    else:
        rows = list(weight)
    found = lengths(layer, weight)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([math.sqrt(sum(x * x for x in row.flatten().tolist())) for row in rows])


def test_a_turn_below_zero_is_refused():
    with pytest.raises(ag.ArgumentError, match="direction_turn must be at least 0 and finite, not -1"):
        ag.param_groups(_network(), 0.1, direction_turn=-1)
