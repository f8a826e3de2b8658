from __future__ import annotations

import dataclasses
import json

import pytest

from agileact._common.terminal import format_json
from agileact.paper import table
from agileact.paper.recipe import PAPER_TABLE, Recipe
from agileact.paper.run import results_document, table_document
from agileact.paper.table import comparisons, sentences
from agileact.study.spec.trial import ModelSpec
from tests.paper.synthetic import result


def trial(seed, conv, fc, loss, iteration=100, **changes):
    made = result(seed, conv, fc, iterations=400, every=100)
    fields = {"best_test_loss": loss, "best_iteration": iteration, "selected_test_loss": loss + 0.01, **changes}
    return dataclasses.replace(made, **fields)


def like_the_paper(seeds=3, noise=0.0, sign=1.0):
    """Results whose lowest losses are the paper's (or their mirror image), with a little noise that seeds share."""
    return [
        trial(seed, row.conv, row.fc, 0.3 + sign * (row.loss - 0.3) + noise * seed, row.iterations)
        for seed in range(seeds)
        for row in PAPER_TABLE
    ]


def test_rows_hold_mean_and_spread_over_seeds():
    results = [trial(0, "relu", "relu", 0.2), trial(1, "relu", "relu", 0.4), trial(0, None, "sigmoid", 9.0)]
    (row,) = table.rows(results)
    assert row.paper is not None
    assert row.paper.n == 7
    assert row.lowest_test_loss is not None
    assert row.lowest_test_loss.mean == pytest.approx(0.3)
    assert row.lowest_test_loss.deviation == pytest.approx(0.2 / 2**0.5)
    assert row.seeds == (0, 1)
    cells = dict(zip(table.HEADER, table.cells(row), strict=True))
    assert cells["paper: loss"] == "0.18127"
    assert cells["paper: iterations"] == "1187"
    assert cells["lowest test loss"] == "0.3000 ± 0.1414"
    assert cells["chosen on validation: test loss"] == "0.3100 ± 0.1414"


def test_a_combination_that_the_paper_does_not_have_stands_without_its_numbers():
    (row,) = table.rows([trial(0, "agile-gelu", "relu", 0.2)])
    assert table.cells(row)[:5] == ("–", "agile-gelu", "relu", "–", "–")


def test_diverged_trials_are_counted_and_leave_no_false_number():
    nothing = {"best_test_loss": None, "best_iteration": None, "selected_test_loss": None}
    results = [
        trial(0, "relu", "relu", 0.2),
        trial(1, "relu", "relu", 0.0, status="diverged", selected_test_accuracy=None, **nothing),
    ]
    (row,) = table.rows(results)
    assert row.diverged == 1
    assert table.cells(row)[-1] == "2 (1 diverged)"
    assert table.cells(row)[5] == "0.2000"
    assert "diverged" in " ".join(sentences(results * 1, table.rows([*results, trial(0, "relu", "agile-relu", 0.1)])))


def test_our_own_numbers_as_the_papers_agree_in_every_comparison():
    results = like_the_paper(noise=0.001)
    said = sentences(results, table.rows(results))
    assert "66 of 66 pairs" in said[0]
    assert "+1.00" in said[0]
    # The paper's iterations have one tie (1187, twice), which counts as not the same order.
    assert "65 of 66 pairs" in said[1]
    assert "paper sigmoid - agile-sigmoid, here sigmoid - agile-sigmoid" in said[2]
    assert "paper agile-relu - agile-relu, here agile-relu - agile-relu" in said[3]
    assert "By lowest test loss: 10 agrees." in said


def test_the_mirror_image_contradicts_in_every_comparison():
    results = like_the_paper(noise=0.001, sign=-1.0)
    said = sentences(results, table.rows(results))
    assert "0 of 66 pairs" in said[0]
    assert "By lowest test loss: 10 contradicts." in said


def test_noise_larger_than_the_difference_is_undecided():
    results = [
        trial(seed, conv, "relu", 0.2 + shift)
        for conv, shifts in (("relu", (0.0, 0.1, -0.1)), ("agile-relu", (0.1, -0.1, 0.05)))
        for seed, shift in enumerate(shifts)
    ]
    (found,) = comparisons(results, lambda t: t.best_test_loss)
    assert found.verdict == "undecided"


def test_one_seed_gets_no_verdict():
    results = like_the_paper(seeds=1)
    said = sentences(results, table.rows(results))
    assert any("one seed, so no interval and no conclusion" in s for s in said)
    assert "By lowest test loss: 10 same direction, one seed." in said
    assert not any("agrees" in s or "contradicts" in s for s in said)


def test_a_difference_below_the_printed_digits_is_none():
    # What --preset smoke gives: sixty steps, and losses that differ in the sixth decimal alone.
    results = [trial(seed, row.conv, row.fc, 2.3 + row.loss * 1e-6) for row in PAPER_TABLE for seed in range(2)]
    said = sentences(results, table.rows(results))
    assert "0 of 66 pairs" in said[0]
    assert "here 12 share it" in said[2]
    assert "By lowest test loss: 10 no difference in the printed digits." in said


def test_only_seeds_that_both_have_are_compared():
    results = [trial(s, "relu", "relu", 0.2 + s) for s in (0, 1, 2)]
    results += [trial(s, "agile-relu", "relu", 0.1 + s) for s in (1, 2, 5)]
    (found,) = comparisons(results, lambda t: t.best_test_loss)
    assert found.difference.pairs == 2
    assert found.difference.mean == pytest.approx(-0.1)


def test_a_choice_on_validation_that_turns_a_verdict_is_told():
    results = like_the_paper(noise=0.001)
    turned = [
        dataclasses.replace(t, selected_test_loss=0.9) if table.combination(t) == ("agile-relu", "relu") else t
        for t in results
    ]
    same, other = (sentences(r, table.rows(r)) for r in (results, turned))
    assert any("no verdict changes" in s for s in same)
    at = next(i for i, s in enumerate(other) if "the verdict changes in:" in s)
    assert other[at + 1].startswith("- agile-relu - relu against relu - relu")
    assert other[at + 1].endswith("contradicts.")


def test_a_shared_first_place_has_no_winner():
    results = [trial(0, r.conv, r.fc, r.loss, 100) for r in PAPER_TABLE]
    said = sentences(results, table.rows(results))
    assert "here 12 share it" in said[3]
    assert "no rank correlation" in said[1]


def test_curves_that_still_fall_are_named():
    results = [trial(0, r.conv, r.fc, r.loss, 400 if r.n == 3 else 100) for r in PAPER_TABLE]
    said = sentences(results, table.rows(results))
    assert any("Still falling" in s and "sigmoid - agile-sigmoid." in s for s in said)


def test_another_network_than_the_papers_is_named():
    results = like_the_paper()
    assert not any("not the paper's network" in s for s in sentences(results, table.rows(results)))
    changed = []
    for t in results:
        task = dataclasses.replace(t.spec.task, model=ModelSpec("cnn", (("filters", (2, 2)), ("nodes", ()))))
        changed.append(dataclasses.replace(t, spec=dataclasses.replace(t.spec, task=task)))
    said = sentences(changed, table.rows(changed))
    assert any("filters 2, 2, nodes none, batch 100" in s for s in said)


def test_too_few_combinations_give_no_order():
    results = [trial(0, "relu", "relu", 0.2)]
    assert sentences(results, table.rows(results)) == [
        "Fewer than two of the paper's combinations were run; there is no order to compare."
    ]


def test_the_document_is_plain_json_also_with_numbers_that_are_not_finite():
    results = [trial(0, "relu", "relu", 0.2), trial(0, "relu", "agile-relu", float("nan"), status="diverged")]
    document = results_document(results, Recipe(), description="d", fingerprint="f", reading=["r"])
    again = json.loads(format_json(document))
    assert [row["best_test_loss"] for row in again["rows"]] == [0.2, None]
    assert again["dataset"] == "mnist5k-split"
    assert again["recipe"]["filters"] == [16, 8, 4]


def test_the_tables_file_says_what_was_run_on_what():
    results = like_the_paper()
    rows = table.rows(results)
    text = table_document(
        rows, Recipe(seeds=(0, 1, 2)), description="the digits", reading=sentences(results, rows), command="agileact x"
    )
    for part in (
        "the digits",
        "3 seed(s), 2000 iterations",
        "`agileact x`",
        "torch",
        "our reading",
        "| 12 | agile-relu |",
    ):
        assert part in text
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("- "))
    assert lines[first - 1] == ""
