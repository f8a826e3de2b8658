"""The studies of the docs: specs are read, their trials are still those that were run, pages say what was found."""

from __future__ import annotations

import csv
import gzip
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from agileact.study.commands.yaml_file import read_study
from agileact.study.running.conduct import identified
from agileact.study.running.planner import plan
from tests.commands import ROOT

FOLDER = ROOT / "docs" / "studies"
SPECS = sorted([*(FOLDER / "specs").glob("*.yaml"), *(FOLDER / "archive" / "specs").glob("*.yaml")])


def identity(path: Path) -> str:
    return f"{path.parts[-3]}-{path.stem}"


def results(path: Path) -> Path:
    """Return where the trials of a spec are: those about the recipe, which are many, are compressed."""
    end = ".csv.gz" if path.stem.startswith("recipe-") else ".csv"
    return path.parent.parent / "results" / f"{path.stem}{end}"


def rows_of(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("path", SPECS, ids=identity)
def test_every_spec_is_read_and_named_as_its_file(path):
    assert read_study(path).name == path.stem


@pytest.mark.parametrize("path", [path for path in SPECS if not path.stem.endswith("-full")], ids=identity)
def test_the_trials_that_were_run_are_still_those_of_the_spec(path):
    # An identity that changes would have a user's finished trials run again.
    study, _ = identified(read_study(path), None)
    rows = rows_of(results(path))
    assert list(dict.fromkeys(row["arm"] for row in rows)) == [arm.name for arm in study.arms]
    run = {row["trial"] for row in rows}
    first = plan(study, lambda spec: None)
    assert {spec.key for spec in first.tuning or first.final} <= run
    # Every arm was tested on every task.
    assert {(row["task"], row["arm"]) for row in rows if row["phase"] == "final"} == {
        (task.name, arm.name) for task in study.tasks for arm in study.arms
    }


@pytest.mark.parametrize(
    ("page", "agile", "detailed"),
    [
        ("where", ["where-sigmoid", "where-tanh", "where-relu"], ["where-sigmoid", "where-tanh", "where-relu"]),
        ("where", [], ["where-start"]),
        ("paper-arms", ["paper-arms-sigmoid", "paper-arms-relu"], ["paper-arms-sigmoid", "paper-arms-relu"]),
        ("every-arm", [], ["every-arm"]),
    ],
)
def test_the_tables_of_a_page_are_those_of_its_results(page, agile, detailed):
    tables = runpy.run_path(str(FOLDER / "tables.py"))
    text = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
    read = {
        name: json.loads((FOLDER / "results" / f"{name}.json").read_text(encoding="utf-8")) for name in agile + detailed
    }
    if agile:
        made = tables["agile_against_plain"]([read[name] for name in agile])
        assert made.count("\n") == 1 + sum(len({row["task"] for row in read[name]["rows"]}) for name in agile)
        assert made in text
    for name in detailed:
        assert tables["details"](read[name]) in text


def test_the_table_of_untuned_networks_is_that_of_the_trials():
    tables = runpy.run_path(str(FOLDER / "tables.py"))
    trials = {base: rows_of(FOLDER / "results" / f"where-{base}.csv") for base in ("sigmoid", "tanh", "relu")}
    made = tables["untuned"](trials)
    assert made in (FOLDER / "where.md").read_text(encoding="utf-8")
    # The same by hand for one network: a mean over replicates of means over their points.
    losses = [
        float(row["validation_loss"])
        for row in trials["relu"]
        if (row["task"], row["arm"], row["phase"]) == ("one-layer", "agile-relu", "tuning")
    ]
    line = next(line for line in made.splitlines() if line.startswith("| relu, one-layer |"))
    assert f"| {sum(losses) / len(losses):.4f} |" in line


def test_an_agile_arm_is_compared_with_its_own_plain_twin_alone():
    rows = [
        {"task": "t", "arm": arm, "test loss": "0.1", "seeds": "2"}
        for arm in ("sigmoid / relu", "agile-sigmoid / relu", "relu / relu", "agile-relu / relu")
    ]
    one = {"task": "t", "decision": "better", "mean": -0.25, "student": [-0.5, -0.125], "differences": [-0.25, -0.25]}
    contrasts = [{**one, "arm": row["arm"], "seeds_lower": 2} for row in rows[1:]]
    rows[1]["seeds"] = "2 (1 did not learn)"
    tables = runpy.run_path(str(FOLDER / "tables.py"))
    assert tables["agile_against_plain"]([{"rows": rows, "contrasts": contrasts}]).splitlines()[2:] == [
        "| sigmoid / relu | 0.1 | 0.1 (1 did not learn) | -0.250 [-0.500, -0.125] | **lower** | 2 of 2 |"
    ]


def test_the_tables_about_the_recipe_are_those_of_its_results():
    tables = runpy.run_path(str(FOLDER / "tables.py"))
    page = (FOLDER / "recipe.md").read_text(encoding="utf-8")
    for table in tables["RECIPE_TABLES"]:
        assert table() in page, table.__name__
    studies = {f"recipe-{name}" for name in (*tables["SEARCHED"], *tables["RATES"])}
    assert {path.stem for path in SPECS if path.stem.startswith("recipe-")} == studies
    assert all(f"specs/{study}.yaml" in page for study in studies)
    assert f"all {len(tables['recipe_pairs']())} comparisons" in page


def test_arms_of_two_studies_are_compared_in_the_same_replicates():
    # The replicate's number says split, rates and seeds: what two studies have in common must be the same there.
    shared: dict[tuple[str, int], Any] = {}
    for path in SPECS:
        if path.stem.startswith("recipe-") and "rates" not in path.stem:
            study = read_study(path)
            for number in range(study.protocol.replicates):
                one = study.replicate(number)
                for task in one.tasks:
                    key = (task.name, number)
                    assert shared.setdefault(key, (task.spec, one.protocol.seeds)) == (task.spec, one.protocol.seeds)


def test_the_range_of_rates_near_the_best_is_that_of_the_mean_curve():
    near = runpy.run_path(str(FOLDER / "tables.py"))["near_its_best"]
    # |log rate| + 1 from two replicates whose rates are not the same: 1.1 is reached a tenth of a decade off.
    one, other = ([(10.0**x, 1 + abs(x)) for x in at] for at in ([-1.2, -0.4, 0, 0.7, 1.5], [-1.5, -0.2, 0, 0.3, 1.1]))
    assert near([one, other]) == (pytest.approx(0.2, abs=0.01), False)
    # A rate that diverges is not near, nor what a line from it would pass.
    assert near([[(1.0, 1.0), (10.0, 1.0), (100.0, float("inf"))]]) == (pytest.approx(1.0, abs=0.01), True)


def test_the_intervals_about_the_recipe_hold_for_all_comparisons_of_the_page():
    tables = runpy.run_path(str(FOLDER / "tables.py"))
    pairs, found = tables["recipe_pairs"](), tables["recipe_comparisons"]()
    level = 1 - 0.05 / len(pairs)
    for key, (own, base) in pairs.items():
        if found[key] is not None:
            differences = np.subtract(own, base)
            low, high = scipy.stats.ttest_1samp(differences, 0).confidence_interval(level)
            assert (found[key].low, found[key].high) == pytest.approx((low, high)), key
