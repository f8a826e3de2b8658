"""What the report tells, for whole and for odd studies; the numbers against formulas of their own."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics

import pytest

from agileact.study.report.document import report_document
from agileact.study.report.page import page
from agileact.study.report.sections.tuning import _line
from agileact.study.results.outcome import Outcome
from agileact.study.results.sensitivity import Sensitivity
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol
from agileact.study.spec.result import Curve, DirectionTrace
from tests.study.report.builders import PROTOCOL, big_study, lookup_of, made_up, outcome_of, small_study, walk

SECTIONS = [
    "leaderboard",
    "verdict",
    "table",
    "differences",
    "curves",
    "times",
    "tuning",
    "sensitivity",
    "shapes",
    "parameters",
    "cost",
    "repeat",
]


def blocks(document, kind, start=""):
    return [one for one in walk(document["sections"]) if one["kind"] == kind and one.get("id", "").startswith(start)]


def texts(document):
    found = [one for one in walk(document["sections"]) if one["kind"] in ("paragraph", "claim")]
    return " ".join(one["text"] + " " + one.get("more", "") for one in found)


@pytest.fixture(scope="module")
def small():
    return report_document(outcome_of(small_study()))


def test_the_sections_are_all_there_in_order_and_json_holds_them(small):
    assert [one["id"] for one in small["sections"]] == SECTIONS
    json.dumps(small, allow_nan=False)
    names = [one["id"] for one in walk(small["sections"]) if "id" in one and one["kind"] != "section"]
    assert len(set(names)) == len(names)


def test_the_verdict_comes_first_and_names_what_may_be_claimed(small):
    assert small["summary"].startswith("4 comparisons with relu on 2 tasks: a lower test loss in 2")
    claims = blocks(small, "claim")
    assert [one["decision"] for one in claims[:2]] == ["better", "better"]
    assert "agile-relu has a lower test loss than relu" in claims[0]["text"]
    assert {one["decision"] for one in claims} >= {"unstable"}


def test_differences_are_those_of_the_same_seeds(small):
    (chart,) = blocks(small, "chart", "differences-digits")
    agile = next(one for one in chart["series"] if one["name"] == "agile-relu")
    runs = {
        name: [0.02 + 1 - 0.1 * (name != "relu") + 0.01 * math.sin(17 * seed + len(name)) for seed in range(8)]
        for name in ("relu", "agile-relu")
    }
    expected = [a - b for a, b in zip(runs["agile-relu"], runs["relu"], strict=True)]
    assert agile["points"] == pytest.approx(expected, abs=1e-4)
    assert agile["mean"] == pytest.approx(statistics.fmean(expected), abs=1e-4)
    assert agile["interval"][0] < agile["mean"] < agile["interval"][1] < 0
    lost = next(one for one in chart["series"] if one["name"] == "gelu")
    assert (lost["mean"], lost["interval"], lost["second"]) == (None, None, None)


def test_curves_leave_diverged_runs_out_and_say_so(small):
    (chart,) = blocks(small, "chart", "curves-digits-mlp-validation")
    gelu = chart["table"]["rows"][2]
    assert gelu[-1]["text"] == "7 (1 diverged)"
    assert not blocks(small, "chart", "curves-digits-mlp-test")
    assert "there is no test curve" in texts(small)


def test_time_to_loss_counts_all_runs(small):
    (chart,) = blocks(small, "chart", "times-diabetes-mlp-iterations")
    for one in chart["series"]:
        assert one["y"][0] == 0.0
        assert all(earlier <= later for earlier, later in zip(one["y"], one["y"][1:], strict=False))
        assert one["x"][-1] == 110
    base = next(one for one in chart["series"] if one["arm"] == 0)
    assert base["y"][-1] == 1.0


def test_tuning_shows_every_point_and_the_chosen_one(small):
    (chart,) = blocks(small, "chart", "tuning-digits")
    for one in chart["series"]:
        assert len(one["x"]) == 3
        assert one["x"][one["chosen"]] == 0.01
        assert one["y"][one["chosen"]] == min(one["y"])


def test_shapes_and_parameters_are_those_of_arms_that_have_them(small):
    (choice,) = blocks(small, "choice", "shapes-digits")
    assert [option["text"] for option in choice["options"]] == ["agile-relu"]
    (chart,) = blocks(small, "chart", "shapes-digits")
    assert sum(bool(one.get("start")) for one in chart["series"]) == 1
    assert len(chart["series"]) == 5
    assert "scale a from 0.5 to 2" in chart["label"]
    (scale,) = blocks(small, "chart", "parameters-digits-mlp-agile-relu-scale")
    assert scale["series"][0]["low"][0] == scale["series"][0]["high"][0] == 1.0


def test_directions_are_shown_of_arms_that_have_them(small):
    assert not blocks(small, "chart", "parameters-digits-mlp-agile-relu-turn")
    turns = {"fc1": DirectionTrace([0.1 / n for n in range(1, 12)], [0.2 / n for n in range(1, 12)])}

    def make(spec):
        found = made_up(spec)
        return dataclasses.replace(found, directions=turns) if found.layers else found

    (chart,) = blocks(
        report_document(outcome_of(small_study(), make)), "chart", "parameters-digits-mlp-agile-relu-turn"
    )
    (series,) = chart["series"]
    assert (series["x"][0], series["low"][0], series["high"][0]) == (10, 0.1, 0.2)
    assert "turn of a row, radians a step of agile-relu on digits-mlp over training; at the end: fc1" in chart["label"]
    titles = [column["title"] for column in chart["table"]["columns"]]
    assert titles == ["layer", "first, median", "first, largest", "last, median", "last, largest", "runs"]


def test_results_without_shapes_are_told_in_a_sentence():
    study = small_study()
    document = report_document(outcome_of(study, lambda spec: dataclasses.replace(made_up(spec), shapes={}, layers={})))
    assert "by a version that did not keep them" in texts(document)
    assert "No finished trial has an activation with a learned scale" in texts(document)


def test_every_chart_has_a_sentence_and_most_have_their_numbers(small):
    for chart in blocks(small, "chart"):
        assert chart["label"].endswith(".")
        assert chart["table"] is not None
    for table in blocks(small, "table"):
        assert all(len(row) == len(table["columns"]) for row in table["rows"])


def test_a_study_that_has_not_begun():
    document = report_document(Outcome(small_study(), lambda spec: None))
    assert "Not finished: 0 of at most 66 trials are done" in texts(document)
    assert document["summary"].startswith("Nothing can be compared yet")
    assert not blocks(document, "chart")
    assert [one["id"] for one in document["sections"]] == SECTIONS
    page(document)


def test_a_study_half_way():
    study = small_study()
    lookup = lookup_of(study)
    outcome = Outcome(study, lambda spec: lookup(spec) if spec.seed in (0, 1, 2, 50) else None)
    document = report_document(outcome)
    assert not document["finished"]
    (chart,) = blocks(document, "chart", "differences-digits")
    assert chart["series"][0]["decision"] == "undecided"
    assert document["done"] == 36


def test_one_arm_and_one_seed():
    study = small_study(
        arms=small_study().arms[:1],
        protocol=dataclasses.replace(PROTOCOL, seeds=(0,)),
    )
    document = report_document(outcome_of(study))
    assert document["summary"] == "The study has one arm, relu: there is nothing to compare it with."
    assert blocks(document, "chart", "curves-")
    two = small_study(protocol=dataclasses.replace(PROTOCOL, seeds=(0,)), tasks=study.tasks[:1])
    document = report_document(outcome_of(two))
    (chart,) = blocks(document, "chart", "differences-")
    assert [one["interval"] for one in chart["series"]] == [None, None]
    assert "One seed says nothing about chance" in texts(document)


def test_a_baseline_that_diverged_everywhere():
    def make(spec):
        result = made_up(spec)
        if spec.arm.activation("fc") != "relu":
            return result
        return dataclasses.replace(
            result, status="diverged", curve=Curve([0], [2.0], [math.inf]), selected_test_loss=None, best_test_loss=None
        )

    document = report_document(outcome_of(small_study(), make))
    json.dumps(document, allow_nan=False)
    assert "diabetes-mlp: not defined, as a run of relu diverged" in texts(document)
    assert "Time to the best validation loss of relu: not defined" in blocks(document, "claim")[0]["more"]
    assert {one["decision"] for one in blocks(document, "claim")} == {"unstable"}
    (chart,) = blocks(document, "chart", "tuning-digits")
    assert chart["series"][0]["y"] == [None, None, None]


def test_a_study_of_which_everything_diverged_does_not_say_that_it_goes_on():
    def make(spec):
        return dataclasses.replace(
            made_up(spec),
            status="diverged",
            curve=Curve([0], [2.0], [math.inf]),
            selected_test_loss=None,
            best_test_loss=None,
            shapes={},
            layers={},
        )

    document = report_document(outcome_of(small_study(), make))
    assert texts(document).count("Every final trial that is finished diverged.") == 4
    assert " yet" not in texts(document)
    assert "test loss" in titles(document)


def titles(document):
    (table,) = [one for one in blocks(document, "table") if one["id"] == "outcome"]
    return [column["title"] for column in table["columns"]]


def test_claims_come_with_the_largest_first_behind_the_headline():
    better = {"gelu": 0.1, "agile-relu": 0.3, "silu": -0.2}

    def make(spec):
        name = str(spec.arm.activation("fc"))
        loss = 1.0 + 0.01 * math.sin(17 * spec.seed + len(name)) - better.get(name, 0.0)
        return dataclasses.replace(made_up(spec), status="finished", selected_test_loss=loss)

    names = ("relu", "gelu", "silu", "agile-relu")
    study = small_study(arms=tuple(map(arm, names)), tasks=small_study().tasks[:1])
    document = report_document(outcome_of(study, make))
    first = document["sections"][1]["blocks"][0]
    assert (first["tone"], first["text"]) == ("lead", document["summary"])
    assert [one["text"].split()[0] for one in blocks(document, "claim")] == ["agile-relu", "gelu", "silu"]


def test_the_table_has_no_empty_column_and_counts_no_accuracy_of_a_diverged_run():
    study = small_study(tasks=small_study().tasks[:1])

    def make(spec):
        return dataclasses.replace(made_up(spec), selected_test_accuracy=0.2 if spec.seed == 3 else 0.9)

    assert not {"accuracy, %", "activation lr"} & set(titles(report_document(outcome_of(study))))
    document = report_document(outcome_of(study, make))
    place = titles(document).index("accuracy, %")
    (table,) = [one for one in blocks(document, "table") if one["id"] == "outcome"]
    found = {row[0]["text"]: row[place] for row in table["rows"]}
    # The one of gelu with seed 3 diverged.
    assert found["gelu"] == {"text": "90.00\u00a0±\u00a00.00", "value": 0.9}
    assert found["relu"]["value"] == pytest.approx((7 * 0.9 + 0.2) / 8, abs=1e-4)


def test_the_papers_protocol_is_named_as_what_it_is():
    protocol = Protocol(tune=False, seeds=(0, 1), select="test", test="curve")
    document = report_document(outcome_of(small_study(protocol=protocol)))
    assert "It flatters every arm" in texts(document)
    assert "Learning rates were not tuned" in texts(document)
    assert blocks(document, "chart", "curves-digits-mlp-test")
    # Beside the lowest test loss stands what a choice on validation would have had: here 0.01 more.
    places = [titles(document).index(name) for name in ("test loss", "at iteration", "test loss, chosen on validation")]
    (table,) = [one for one in blocks(document, "table") if one["id"] == "outcome"]
    for row in table["rows"][:2]:
        lowest, at, chosen = (row[place]["value"] for place in places)
        assert (at, chosen) == (2.0, pytest.approx(lowest + 0.01, abs=1e-4))
    steps = next(one for one in blocks(document, "table") if one["id"] == "protocol")
    assert [row[0] for row in steps["rows"]] == ["tune", "seeds", "select", "test", "replicates"]


@pytest.mark.slow
def test_of_many_arms_the_baseline_and_the_best_are_drawn_and_the_page_stays_small():
    long = outcome_of(big_study(), lambda spec: made_up(spec, points=400))
    document = report_document(long)
    assert len(document["arms"]) == 25
    assert len(document["shown"]) == 6
    assert document["shown"][0] == 0
    assert all(document["arms"][number].startswith(("agile", "combined")) for number in document["shown"][1:])
    (chart,) = blocks(document, "chart", "curves-digits-mlp-validation")
    assert len(chart["series"]) == 25
    assert all(len(one["x"]) == 200 and one["x"][-1] == 3990 for one in chart["series"])
    assert "Long curves are drawn with 200 of their points" in texts(document)
    assert len(page(document).encode()) < 5_000_000


def test_the_line_over_rates_of_many_replicates_is_a_mean_over_neighbours():
    # A replicate draws its own rates: here 40, with a loss of 1 plus noise that alternates.
    rates = tuple(10 ** (-4 + 0.05 * place) for place in range(40))
    mean = tuple(1.0 + (-1) ** place * 0.5 for place in range(40))
    one = Sensitivity("relu", "digits", rates, mean, tuple(m - 0.1 for m in mean), tuple(m + 0.1 for m in mean), (), ())
    x, y, low, high = _line(one, 4)
    # Four equal parts of the logarithm, ten rates in each.
    assert x == pytest.approx([10 ** (-4 + 0.05 * (10 * part + 4.5)) for part in range(4)])
    assert y == pytest.approx([1.0] * 4)
    assert (min(low), max(high)) == pytest.approx((0.4, 1.6))
    assert _line(one, None) == _line(one, 40) == (one.rates, one.mean, one.low, one.high)
