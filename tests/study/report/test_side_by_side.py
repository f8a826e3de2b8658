"""Leaderboard, and several studies in one report."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics

import pytest

from agileact.study.report.document import report_document, side_by_side
from agileact.study.report.page import page
from agileact.study.report.sections import leaderboard
from agileact.study.results.printing import titles
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol
from agileact.study.spec.space import search_space
from tests.study.report.builders import evil_study, made_up, outcome_of, small_study, walk


def tables(document, start):
    return [one for one in walk(document["sections"]) if one["kind"] == "table" and one["id"].startswith(start)]


def test_the_leaderboard_is_sorted_marks_the_best_and_puts_what_diverged_last():
    (digits, diabetes) = tables(report_document(outcome_of(small_study())), "leaders-")
    assert [line[1]["text"] for line in digits["rows"]] == ["agile-relu", "relu", "gelu"]
    assert [line[1]["best"] for line in digits["rows"]] == [True, False, False]
    assert digits["rows"][2][2]["text"] == "diverged"
    losses = [0.92 + 0.01 * math.sin(17 * seed + len("agile-relu")) for seed in range(8)]
    assert diabetes["rows"][0][2]["value"] == pytest.approx(statistics.fmean(losses), abs=1e-4)
    bar = diabetes["rows"][0][3]["bar"]
    assert bar["from"] <= bar["low"] < bar["mean"] < bar["high"] < 0 <= bar["to"]


def test_a_mean_and_its_interval_have_equally_many_decimals():
    assert leaderboard._told(0.3275, 0.31, 0.345) == "0.3275 [0.3100, 0.3450]"
    assert leaderboard._told(-0.02, -0.0874, 0.0473, "+") == "-0.0200 [-0.0874, +0.0473]"
    assert leaderboard._told(1.585, 1.219, 1.95) == "1.585 [1.219, 1.950]"
    assert leaderboard._told(0.5, 0.5, 0.5) == "0.5000 [0.5000, 0.5000]"
    assert leaderboard._told(52345.0, 40000.0, 64690.0) == "52345 [40000, 64690]"
    assert leaderboard._told(2e-9, 1e-9, 3e-9) == "2e-09 [1e-09, 3e-09]"


def test_a_metric_has_a_table_of_its_own_with_its_name():
    study = small_study()
    spec = study.tasks[0].spec
    data = dataclasses.replace(spec.data, options=(*spec.data.options, ("metric", "auc")))
    named = dataclasses.replace(study.tasks[0], spec=dataclasses.replace(spec, data=data))

    def make(spec):
        return dataclasses.replace(made_up(spec), status="finished", selected_test_accuracy=spec.seed % 3 / 10 + 0.5)

    outcome = outcome_of(dataclasses.replace(study, tasks=(named,)), make)
    document = report_document(outcome)
    loss, metric = tables(document, "leaders-")
    assert (loss["columns"][2]["title"], metric["columns"][2]["title"]) == ("test loss", "AUC")
    assert "AUC" in titles(outcome.cells)
    assert "AUC" in [one["title"] for one in tables(document, "outcome")[0]["columns"]]
    assert "ccuracy" not in json.dumps(tables(document, "outcome"))


def test_studies_side_by_side_keep_names_apart_and_colours_together():
    protocol = Protocol(trials=3, lr=(0.001, 0.01), tuning_seeds=(50,), seeds=(0, 1))
    other = small_study(arms=(arm("gelu"), arm("relu"), arm("silu")), protocol=protocol)
    document = side_by_side([outcome_of(small_study()), outcome_of(other)])
    assert document["arms"] == ["relu", "agile-relu", "gelu", "silu"]
    assert document["name"] == "small (1) and small (2)"
    names = [one["id"] for one in walk(document["sections"]) if "id" in one]
    assert len(set(names)) == len(names)
    for block in walk(document["sections"]):
        for one in block.get("series", ()):
            if "arm" in one and one["name"] in document["arms"]:
                assert document["arms"][one["arm"]] == one["name"]
    json.dumps(document, allow_nan=False)
    text = page(side_by_side([outcome_of(evil_study())] * 2))
    assert "<script>window.hit" not in text
    assert len(text.encode()) < 5_000_000


def test_a_metric_of_which_low_is_good_is_ranked_from_below_and_said_to_be():
    """The task says it of any metric; else a name says it that ends as scikit-learn's errors and losses do."""
    study = small_study()

    def make(spec):
        agile = spec.arm.activation("fc").startswith("agile")
        error = 0.3 + 0.1 * (not agile) + 0.01 * (spec.seed % 3)
        return dataclasses.replace(made_up(spec), status="finished", selected_test_accuracy=error)

    def found(metric, better=""):
        spec = study.tasks[1].spec
        data = dataclasses.replace(spec.data, options=(("metric", metric),))
        task = dataclasses.replace(study.tasks[1], spec=dataclasses.replace(spec, data=data), better=better)
        outcome = outcome_of(dataclasses.replace(study, tasks=(task,)), make)
        leaders = tables(report_document(outcome), "leaders-")[1]
        bars = [line[3]["bar"]["higher"] for line in leaders["rows"] if "bar" in line[3]]
        return leaders["rows"][0][1]["text"], leaders["caption"], outcome.comparisons[0], bars

    best, caption, compared, bars = found("mine:absolute_error")
    assert (best, compared.lower, compared.to_dict()["better"]) == ("agile-relu", True, "lower")
    assert "the lowest first, as it is the best" in caption
    assert "Metric mine:absolute_error, of which lower is better: 0.3" in " ".join(compared.beside)
    assert not any(bars)
    best, caption, compared, bars = found("mine:absolute_error", "higher")
    assert (best, compared.lower) == ("relu", False)
    assert "the highest first" in caption
    assert all(bars)
    assert found("mine:score")[0] == "relu"
    assert found("mine:score", "lower")[0] == "agile-relu"


def test_tuning_of_several_numbers_shows_each_of_them():
    space = search_space({"lr": "1e-3..0.1", "weight_decay": "0, 1e-6..1e-2", "schedule": "constant, cosine"})
    own = (arm("relu"), dataclasses.replace(arm("agile-relu"), space=search_space({"activation_lr": "0.1..10"})))
    protocol = Protocol(trials=8, tuning_seeds=(50,), seeds=(0, 1), space=space)
    study = small_study(arms=own, tasks=small_study().tasks[:1], protocol=protocol)
    document = report_document(outcome_of(study))
    shown = [one for one in walk(document["sections"]) if one["kind"] == "chart" and one["id"].startswith("tuning-")]
    charts = {one["x"]: one for one in shown}
    assert list(charts) == ["lr", "weight decay", "schedule", "activation lr, as a factor of lr"]
    assert [len(one["series"]) for one in charts.values()] == [2, 2, 2, 1]  # relu has no activation rate
    for one in (line for chart in charts.values() for line in chart["series"]):
        assert len(one["x"]) == len(one["y"]) == len(one["text"]) == 8
        assert one["y"][one["chosen"]] == min(one["y"])
    ((zero, text),) = charts["weight decay"]["x_ticks"]
    assert (text, min(charts["weight decay"]["series"][0]["x"])) == ("0", pytest.approx(zero))
    assert charts["weight decay"]["log_x"]
    assert {text for _, text in charts["schedule"]["x_ticks"]} == {"constant", "cosine"}
    assert "log_x" not in charts["schedule"]
    (numbers,) = tables(document, "tuning-numbers-")
    assert [one["title"] for one in numbers["columns"]][1:4] == ["lr", "weight_decay", "schedule"]
    assert len(numbers["rows"]) == 16
    json.dumps(document, allow_nan=False)
