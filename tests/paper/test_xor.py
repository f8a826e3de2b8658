"""XOR: the batched network against formulas of its own, the pairing, the statistics, the errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from agileact import AgileactError
from agileact.nn import Agile
from agileact.paper.xor import (
    POINTS,
    TARGETS,
    XorArm,
    XorOutcome,
    XorSpec,
    forward,
    initial_weights,
    losses,
    run_xor,
    solved,
)

FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sigmoid": (lambda t: 1 / (1 + np.exp(-t)), lambda t: np.exp(-t) / (1 + np.exp(-t)) ** 2),
    "relu": (lambda t: np.maximum(t, 0), lambda t: (t >= 0).astype(float)),
    "tanh": (np.tanh, lambda t: 1 - np.tanh(t) ** 2),
}
X = np.asarray(POINTS)
T = np.asarray(TARGETS)


def weights(starts=4, seed=3):
    """Return initial weights with sizes and positions that are not 1 and 0."""
    found = initial_weights(XorSpec(starts=starts, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    found["a"] = 1 + 0.5 * torch.randn(starts, 2, generator=generator, dtype=torch.float64)
    found["b"] = 0.5 * torch.randn(starts, 2, generator=generator, dtype=torch.float64)
    return found


@pytest.mark.parametrize("base", FUNCTIONS)
def test_forward_is_the_formula(base):
    given = weights()
    outputs = forward(given, torch.tensor(POINTS, dtype=torch.float64), base)
    f, _ = FUNCTIONS[base]
    for start in range(4):
        n = {name: value[start].numpy() for name, value in given.items()}
        for index, (x, y) in enumerate(POINTS):
            h = [n["a"][m] * f(n["w"][m, 0] * x + n["w"][m, 1] * y + n["c"][m] - n["b"][m]) for m in (0, 1)]
            expected = n["v"][0] * h[0] + n["v"][1] * h[1] + n["d"]
            assert float(outputs[start, index]) == pytest.approx(float(expected), rel=1e-13, abs=1e-14)


@pytest.mark.parametrize("base", FUNCTIONS)
def test_gradients_are_those_derived_by_hand(base):
    given = {name: value.requires_grad_() for name, value in weights().items()}
    outputs = forward(given, torch.tensor(POINTS, dtype=torch.float64), base)
    losses(outputs, torch.tensor(TARGETS, dtype=torch.float64), "mse").sum().backward()
    f, slope = FUNCTIONS[base]
    for start in range(4):
        n = {name: value.detach()[start].numpy() for name, value in given.items()}
        t = X @ n["w"].T + n["c"] - n["b"]
        error = 2 * (n["a"] * f(t) @ n["v"] + n["d"] - T) / 4
        into_plane = error[:, None] * n["v"] * n["a"] * slope(t)  # (18)
        expected = {
            "a": (error[:, None] * n["v"] * f(t)).sum(0),  # (19), (21)
            "b": -into_plane.sum(0),  # (20), (22)
            "w": into_plane.T @ X,
            "c": into_plane.sum(0),
            "v": (error[:, None] * n["a"] * f(t)).sum(0),
            "d": error.sum(),
        }
        for name, value in expected.items():
            gradient = given[name].grad
            assert gradient is not None
            np.testing.assert_allclose(gradient[start].numpy(), value, rtol=1e-11, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("loss", ["mse", "logits"])
@pytest.mark.parametrize(("optimizer", "kind"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_a_start_trains_as_a_network_of_modules_would_alone(optimizer, kind, loss):
    spec = XorSpec(starts=6, epochs=40, optimizer=optimizer, lr=0.1, activation_lr=0.05, loss=loss)
    start = 4
    first = {name: value[start] for name, value in initial_weights(spec).items()}
    hidden, activation, output = torch.nn.Linear(2, 2), Agile("sigmoid", 2), torch.nn.Linear(2, 1)
    network = torch.nn.Sequential(hidden, activation, output).double()
    with torch.no_grad():
        hidden.weight.copy_(first["w"])
        hidden.bias.copy_(first["c"])
        output.weight.copy_(first["v"])
        output.bias.copy_(first["d"])
    outer = [*hidden.parameters(), *output.parameters()]
    moves = kind([{"params": outer, "lr": 0.1}, {"params": list(activation.parameters()), "lr": 0.05}])
    measure = torch.nn.MSELoss() if loss == "mse" else torch.nn.BCEWithLogitsLoss()
    x, t = torch.tensor(POINTS).double(), torch.tensor(TARGETS).double()[:, None]
    for _ in range(40):
        moves.zero_grad()
        measure(network(x), t).backward()
        moves.step()
    alone = float(measure(network(x), t).detach())
    assert run_xor(spec).agile.final_losses[start] == pytest.approx(alone, rel=1e-9)


def test_both_networks_start_alike_and_do_not_depend_on_the_number_of_starts():
    few, many = (run_xor(XorSpec(starts=starts, epochs=30, lr=0.1)) for starts in (3, 11))
    for arm in ("plain", "agile"):
        assert getattr(few, arm).final_losses == pytest.approx(getattr(many, arm).final_losses[:3], rel=1e-12)
    still = run_xor(XorSpec(starts=5, epochs=30, lr=0.1, activation_lr=0.0))
    assert still.agile.final_losses == still.plain.final_losses
    moving = run_xor(XorSpec(starts=5, epochs=30, lr=0.1))
    assert moving.plain.final_losses == still.plain.final_losses
    assert moving.agile.final_losses != still.plain.final_losses
    assert moving == run_xor(XorSpec(starts=5, epochs=30, lr=0.1))


def test_solved_needs_all_four_points_beyond_the_margin():
    outputs = torch.tensor([[0.1, 0.9, 0.9, 0.1], [0.1, 0.9, 0.9, 0.45], [0.1, 0.9, 0.1, 0.1], [math.nan] * 4])
    targets = torch.tensor(TARGETS)
    assert solved(outputs, targets, "mse", 0.1).tolist() == [True, False, False, False]
    assert solved(outputs, targets, "mse", 0.01).tolist() == [True, True, False, False]
    assert solved(torch.tensor([[-3.0, 3.0, 3.0, -3.0]]), targets, "logits", 0.4).tolist() == [True]


def test_a_run_solves_and_returns_the_network_that_did():
    outcome = run_xor(XorSpec(starts=12, epochs=600, lr=0.1))
    arm = outcome.agile
    assert arm.solved > 6
    assert arm.name == "agile sigmoid"
    network = arm.network
    assert network is not None
    assert network.start == next(i for i, epoch in enumerate(arm.epochs) if epoch is not None)
    y = network.output(torch.tensor(POINTS, dtype=torch.float64)).numpy()
    assert ((y > network.threshold) == T.astype(bool)).all()
    z = network.planes(torch.tensor(POINTS, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(z, X @ np.asarray(network.w).T + np.asarray(network.c))
    assert float(((y - T) ** 2).mean()) == pytest.approx(arm.final_losses[network.start], rel=1e-9)
    plain = outcome.plain.network
    assert plain is not None
    assert plain.a == (1.0, 1.0)
    assert plain.b == (0.0, 0.0)


@pytest.mark.parametrize("base", ["relu", "tanh"])
def test_other_bases_run(base):
    assert run_xor(XorSpec(base=base, starts=2, epochs=3)).agile.starts == 2


def test_a_diverged_start_is_unsolved_and_fits_into_json():
    outcome = run_xor(XorSpec(base="relu", starts=20, epochs=60, lr=1e3, optimizer="sgd"))
    assert not all(math.isfinite(loss) for loss in outcome.plain.final_losses)
    text = json.dumps(outcome.to_dict(), allow_nan=False)
    assert json.loads(text)["plain"]["starts"] == 20
    assert "of 20" in outcome.rows()[0][1]


def outcome_of(plain, agile):
    """Return an outcome with these epochs and no training behind it."""
    arms = [XorArm(name, tuple(epochs), (0.0,) * len(epochs), None) for name, epochs in plain_and(plain, agile)]
    options = {"epochs": 9, "optimizer": "adam", "lr": 0.1, "activation_lr": None, "loss": "mse"}
    return XorOutcome({**options, "margin": 0.1, "seed": 0}, *arms)


def plain_and(plain, agile):
    return (("sigmoid", plain), ("agile sigmoid", agile))


def test_pairs_and_mcnemar():
    outcome = outcome_of([5] * 4 + [None] * 8 + [7] * 2 + [None], [3] * 4 + [9] * 8 + [None] * 2 + [None])
    assert outcome.pairs == {"both": 4, "only_plain": 2, "only_agile": 8, "neither": 1}
    # 2 * (C(10,0) + C(10,1) + C(10,2)) / 2**10
    assert outcome.p_value == pytest.approx(2 * 56 / 1024)
    assert outcome.epochs_saved == (2.0, 2.0, 2.0)
    assert outcome.agile.epochs_quartiles == (3.0, 9.0, 9.0)
    text = " ".join(outcome.sentences())
    assert "do not show" in text
    assert "2 epochs fewer" in text


def test_the_verdict_says_who_won_only_where_the_pairs_show_it():
    assert "agile sigmoid solves XOR more often than sigmoid" in outcome_of([None] * 9, [1] * 9).sentences()[1]
    assert "sigmoid solves XOR more often than agile sigmoid" in outcome_of([1] * 9, [None] * 9).sentences()[1]
    none = outcome_of([None] * 3, [None] * 3)
    assert none.p_value == 1.0
    assert none.epochs_saved is None
    assert none.rows()[0][1] == "0 of 3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"starts": 0}, "starts must be a whole number of at least 1, not 0"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"seed": -1}, "seed must be"),
        ({"starts": True}, "starts must be"),
        ({"lr": 0.0}, "lr must be"),
        ({"lr": math.nan}, "lr must be"),
        ({"activation_lr": -1.0}, "activation_lr must be"),
        ({"optimizer": "lion"}, "optimizer must be one of"),
        ({"loss": "hinge"}, "loss must be one of"),
        ({"margin": 0.5}, "margin must be"),
        ({"base": "sigmoyd"}, "sigmoyd"),
    ],
)
def test_a_bad_spec_says_what_would_work(options, message):
    with pytest.raises(AgileactError, match=message) as caught:
        XorSpec(**options)
    assert isinstance(caught.value, ValueError)
