"""One step: the three losses against a network of plain PyTorch that takes the halves one after the other."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from agileact import ArgumentError
from agileact.lab.content.step import FORMS, NETWORKS, Moment, StepRun, StepSpec
from agileact.lab.tabs.step import last_figure, losses_figure, read_spec, shares_figure

SGD: Any = {"optimizer": "sgd", "lr": 0.3, "activation_lr": 0.7, "batch": 16}


def test_the_three_losses_are_those_of_the_halves():
    run = StepRun(StepSpec(**SGD))
    twin = copy.deepcopy(run.model)
    seen = []
    handle = run.model.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().clone()))
    moment = run.step()
    handle.remove()
    x = seen[0]
    rows = [int((run.data.train_x == one).flatten(1).all(1).nonzero()[0]) for one in x]
    y = run.data.train_y[rows]
    # Plain gradient descent, by hand: first everything but a and b, then a and b, by the gradients of the start.
    loss = cross_entropy(twin(x), y)
    names, parameters = zip(*twin.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    assert moment.before == pytest.approx(float(loss.detach()), rel=1e-6)
    with torch.no_grad():
        for half, expected in ((False, moment.after_weights), (True, moment.after_activations)):
            for name, parameter, gradient in zip(names, parameters, gradients, strict=True):
                if name.rpartition(".")[2] in ("scale", "location") and half:
                    parameter -= 0.7 * gradient
                elif name.rpartition(".")[2] not in ("scale", "location") and not half:
                    parameter -= 0.3 * gradient
            assert expected == pytest.approx(float(cross_entropy(twin(x), y)), rel=1e-5)
    assert moment.after_activations != moment.after_weights


def test_a_plain_network_has_two_levels():
    run = StepRun(StepSpec(form="plain"))
    moment = run.step()
    assert moment.after_weights == moment.after_activations
    assert "nothing to move" in run.sentence()
    assert len([one for one in last_figure(run.moments, plain=True)["data"] if one["type"] == "bar"]) == 1


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("form", FORMS)
def test_every_network_learns_in_every_form(network, form):
    run = StepRun(StepSpec(base="tanh", form=form, network=network, lr=0.02, activation_lr=0.02))
    for _ in range(25):
        run.step()
    first, last = ([m.before for m in run.moments[part]] for part in (slice(0, 5), slice(-5, None)))
    assert sum(last) < sum(first)


def test_all_forms_start_from_the_same_loss_and_see_the_same_batches():
    runs = [StepRun(StepSpec(form=form)) for form in FORMS]
    assert len({run.step().before for run in runs}) == 1


def test_the_same_settings_give_the_same_steps():
    first, second = (StepRun(StepSpec(seed=5)) for _ in range(2))
    assert [first.step() for _ in range(3)] == [second.step() for _ in range(3)]


def test_shares_are_relative_changes():
    moment = Moment(2.0, 1.5, 1.2)
    assert moment.by_weights == pytest.approx(-0.25)
    assert moment.by_activations == pytest.approx(-0.2)
    data = shares_figure([moment, moment], plain=False)["data"]
    assert data[0]["y"] == pytest.approx([-25, -25])
    assert data[1]["y"] == pytest.approx([-20, -20])
    bars = [one for one in last_figure([moment], plain=False)["data"] if one["type"] == "bar"]
    assert [(one["base"], one["y"]) for one in bars] == [([2.0], [-0.5]), ([1.5], [pytest.approx(-0.3)])]
    assert [one["y"] for one in losses_figure([moment])["data"]] == [[2.0], [1.2]]


def test_a_run_that_diverges_ends_with_a_sentence():
    run = StepRun(StepSpec(base="identity", network="cnn", optimizer="momentum", lr=10.0, activation_lr=10.0))
    for _ in range(200):
        if run.ended:
            break
        run.step()
    assert run.diverged
    assert "diverged" in run.sentence()
    for figure in (last_figure(run.moments, plain=False), shares_figure(run.moments, plain=False)):
        heights = [y for one in figure["data"] for y in one["y"]]
        assert all(y is None or math.isfinite(y) for y in heights)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, "rellu", "f must be one of"),
        (1, "wild", "the form must be one of"),
        (2, "gpt", "the network must be one of"),
        (3, "lion", "the optimizer must be one of"),
        (4, 0, "the learning rate of the weights"),
        (5, 11, "the learning rate of a and b"),
        (6, 0, "the batch must be a whole number from 1 to 512"),
        (7, None, "the seed must be"),
    ],
)
def test_wrong_settings_are_sentences(place, value, words):
    given = ["relu", "agile", "mlp", "adam", 0.01, 0.01, 32, 0]
    given[place] = value
    with pytest.raises(ArgumentError, match=words):
        read_spec(*given)
