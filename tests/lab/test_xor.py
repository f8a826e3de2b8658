"""The live XOR: the same numbers as the study of many starts, taken in any portions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agileact import ArgumentError
from agileact.lab.content.xor import ARMS, LINE, XorRun
from agileact.lab.tabs.xor import losses_figure, read_spec, relief_figure, surfaces_figure
from agileact.paper.xor import XorSpec, run_xor

SOLVED: Any = {"lr": 0.05, "seed": 6}


def test_portions_do_not_change_what_is_learned():
    whole, parts = XorRun(XorSpec(starts=1)), XorRun(XorSpec(starts=1))
    whole.advance(30)
    for portion in (1, 9, 20):
        parts.advance(portion)
    assert whole.losses == parts.losses
    assert whole.taken == parts.taken == 30


def test_it_is_the_training_of_the_study():
    spec = XorSpec(starts=1, epochs=150, **SOLVED)
    outcome, run = run_xor(spec), XorRun(spec)
    run.advance(150)
    for arm, theirs in (("plain", outcome.plain), ("agile", outcome.agile)):
        assert theirs.epochs[0] is not None
        assert run.solved_since(arm) == theirs.epochs[0]
        assert run.losses[arm][-1] == theirs.final_losses[0]
        assert run.surfaces(arm).network == theirs.network


def test_both_start_alike_and_only_the_agile_one_moves_a_and_b():
    run = XorRun(XorSpec(starts=1))
    assert run.surfaces("plain") == run.surfaces("agile")
    run.advance(5)
    plain, agile = (run.surfaces(arm).network for arm in ARMS)
    assert plain.a == (1.0, 1.0)
    assert plain.b == (0.0, 0.0)
    assert agile.a != plain.a
    assert agile.b != plain.b


def test_surfaces_are_the_formula():
    run = XorRun(XorSpec(starts=1, base="tanh"))
    run.advance(20)
    surfaces = run.surfaces("agile")
    n, line = surfaces.network, LINE.numpy()
    for row, column in ((0, 0), (3, 17), (32, 5)):
        x = np.array([line[column], line[row]])
        z = np.asarray(n.w) @ x + np.asarray(n.c)
        h = np.asarray(n.a) * np.tanh(z - np.asarray(n.b))
        for node in (0, 1):
            assert surfaces.planes[node][row][column] == pytest.approx(z[node], rel=1e-12)
            assert surfaces.bent[node][row][column] == pytest.approx(h[node], rel=1e-12)
        assert surfaces.output[row][column] == pytest.approx(float(h @ np.asarray(n.v) + n.d), rel=1e-12)


def test_a_run_says_when_it_is_solved_and_settles():
    run = XorRun(XorSpec(starts=1, **SOLVED))
    run.advance(60)
    early = run.settled
    run.advance(140)
    assert (early, run.settled) == (False, True)
    assert run.sentence().startswith("Epoch 200. Plain: solved after 75 epochs, loss ")
    assert "Agile: solved after 67 epochs, loss " in run.sentence()
    names = [curve["name"] for curve in losses_figure(run)["data"]]
    assert "plain: solved" in names
    assert "agile: solved" in names


def test_a_run_that_diverges_says_so():
    run = XorRun(XorSpec(starts=1, base="identity", optimizer="sgd", lr=10.0))
    run.advance(400)
    assert "Plain: diverged; try a smaller learning rate." in run.sentence()
    figure = surfaces_figure(run.surfaces("plain"), "plain")
    assert figure["data"]
    early = XorRun(XorSpec(starts=1, base="relu", optimizer="sgd", lr=10.0, activation_lr=10.0, seed=7))
    early.advance(50)
    # Long before infinity; and its numbers have no hundred digits in the title above the surface.
    assert "Agile: diverged" in early.sentence()
    titles = [one["text"] for one in surfaces_figure(early.surfaces("agile"), "agile")["layout"]["annotations"]]
    assert max(len(part) for title in titles for part in title.split("<br>")) < 40
    assert not any("−0 to" in title for title in titles)


def test_the_figure_has_output_line_points_and_four_hidden_surfaces():
    run = XorRun(XorSpec(starts=1))
    data = surfaces_figure(run.surfaces("agile"), "agile")["data"]
    assert [one["type"] for one in data] == ["heatmap", "contour", "scatter"] + ["heatmap"] * 4
    assert data[1]["contours"]["start"] == 0.5
    assert all(len(one["z"]) == len(LINE) for one in data if one["type"] == "heatmap")


def test_the_relief_has_the_same_numbers_in_three_dimensions():
    run = XorRun(XorSpec(starts=1))
    run.advance(20)
    surfaces = run.surfaces("agile")
    figure = relief_figure(surfaces, "agile")
    drawn = {one["hovertemplate"][:2]: one for one in figure["data"] if one["type"] == "surface"}
    assert set(drawn) == {"y:", "z₁", "h₁", "z₂", "h₂"}
    for name, values in (("y:", surfaces.output), ("z₁", surfaces.planes[0]), ("h₂", surfaces.bent[1])):
        np.testing.assert_allclose(drawn[name]["z"], values, atol=5e-5)
    assert {one["scene"] for one in figure["data"]} == {"scene", "scene2", "scene3"} <= set(figure["layout"])
    assert drawn["y:"]["contours"]["z"]["start"] == 0.5
    assert figure["layout"]["dragmode"] == "turntable"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("rellu", "adam", 0.1, 0.1, 0), "f must be one of"),
        (("relu", "lion", 0.1, 0.1, 0), "the optimizer must be one of adam, sgd"),
        (("relu", "adam", None, 0.1, 0), "the learning rate of the weights must be a number"),
        (("relu", "adam", 0.0, 0.1, 0), "the learning rate of the weights must be a number"),
        (("relu", "adam", 0.1, -1, 0), "the learning rate of a and b must be a number"),
        (("relu", "adam", 0.1, 0.1, 0.5), "the seed must be a whole number"),
    ],
)
def test_wrong_settings_are_sentences(values, words):
    with pytest.raises(ArgumentError, match=words):
        read_spec(*values)


def test_nothing_touches_the_random_stream():
    state = torch.random.get_rng_state()
    XorRun(XorSpec(starts=1)).advance(2)
    assert torch.equal(state, torch.random.get_rng_state())


def test_losses_within_a_decade_have_ticks_that_differ():
    run = XorRun(read_spec("sigmoid", "adam", 0.05, 0.05, 6))
    run.advance(5)
    assert losses_figure(run)["layout"]["yaxis"]["tickformat"] == ".3~g"
    for arm in run.losses:
        run.losses[arm][-1] = 1e-4
    assert losses_figure(run)["layout"]["yaxis"]["tickformat"] == ".1~e"
