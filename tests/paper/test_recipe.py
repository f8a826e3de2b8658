from __future__ import annotations

import dataclasses

import pytest

from agileact import ArgumentError
from agileact.paper.recipe import PAPER_TABLE, PRESETS, Recipe, preset


def test_the_twelve_combinations_stand_in_the_papers_order():
    # Table 1 of the paper as restated: number, layers, loss, iterations.
    assert [(r.n, r.conv, r.fc, r.loss, r.iterations) for r in PAPER_TABLE if r.n in (1, 3, 6, 7, 11, 12)] == [
        (1, "sigmoid", "relu", 0.18850, 5030),
        (3, "sigmoid", "agile-sigmoid", 0.14456, 9908),
        (6, "agile-sigmoid", "agile-sigmoid", 0.15600, 7808),
        (7, "relu", "relu", 0.18127, 1187),
        (11, "agile-relu", "agile-relu", 0.18261, 809),
        (12, "agile-relu", "agile-sigmoid", 0.15027, 3261),
    ]


def test_one_seed_is_twelve_networks_and_the_two_of_figure_11():
    trials = Recipe().trials("f")
    assert len(trials) == 14
    assert len({t.key for t in trials}) == 14
    cnn = [t for t in trials if t.task.model.name == "cnn"]
    assert [(t.arm.activation("conv"), t.arm.activation("fc")) for t in cnn] == [(r.conv, r.fc) for r in PAPER_TABLE]
    assert {t.task.data.fingerprint for t in trials} == {"f"}
    assert [t.arm.activation("fc") for t in trials if t.task.model.name == "mlp"] == ["sigmoid", "agile-sigmoid"]


def test_trials_come_seed_after_seed():
    assert [t.seed for t in Recipe(seeds=(3, 1)).trials()] == [3] * 14 + [1] * 14


def test_full_is_what_the_paper_asks_for():
    full = PRESETS["full"]
    assert (len(full.seeds), full.iterations, full.batch_size) == (10, 10_000, 100)
    assert (full.filters, full.nodes) == ((16, 8, 4), (30,))


def test_changes_apply_and_wrong_ones_are_refused():
    recipe = preset("smoke", lr=0.1, filters=(2,))
    assert recipe == dataclasses.replace(PRESETS["smoke"], lr=0.1, filters=(2,))
    with pytest.raises(ArgumentError, match="did you mean 'smoke'"):
        preset("smok")
    with pytest.raises(ArgumentError, match="at least one seed"):
        preset("quick", seeds=())
    with pytest.raises(ArgumentError, match="did you mean 'agile-tanh'"):
        preset("quick", conv=("agile-tnah",))
