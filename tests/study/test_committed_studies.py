"""The studies of the docs: specs are read, their trials are still those that were run, pages say what was found."""

from __future__ import annotations

import csv
import json
import runpy

import numpy as np
import pytest
import scipy.stats

from agileact.study.commands.yaml_file import read_study
from agileact.study.running.conduct import identified
from agileact.study.running.planner import Point, final_trials, tuning_trials
from tests.commands import ROOT

FOLDER = ROOT / "docs" / "studies"
SPECS = sorted((FOLDER / "specs").glob("*.yaml"))


def rows_of(name: str) -> list[dict[str, str]]:
    with (FOLDER / "results" / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_spec_is_read_and_named_as_its_file(path):
    assert read_study(path).name == path.stem


@pytest.mark.parametrize(
    "path", [path for path in SPECS if not path.stem.endswith("-full")], ids=lambda path: path.stem
)
def test_the_trials_that_were_run_are_still_those_of_the_spec(path):
    # An identity that changes would have a user's finished trials run again.
    study, _ = identified(read_study(path), None)
    rows = rows_of(path.stem)
    assert list(dict.fromkeys(row["arm"] for row in rows)) == [arm.name for arm in study.arms]
    run = {row["trial"] for row in rows}
    for task in study.tasks:
        for arm in study.arms:
            first = (
                tuning_trials(study.protocol, arm, task, Point(study.protocol.lr[0]))
                if study.protocol.tune
                else final_trials(study.protocol, arm, task, None)
            )
            assert {spec.key for spec in first} <= run, (task.name, arm.name)


@pytest.mark.parametrize("name", [path.stem for path in SPECS if path.stem.startswith(("where", "small"))])
def test_the_tables_of_the_page_are_those_of_the_results(name):
    tables = runpy.run_path(str(FOLDER / "tables.py"))
    page = (FOLDER / "where.md").read_text(encoding="utf-8").splitlines()
    document = json.loads((FOLDER / "results" / f"{name}.json").read_text(encoding="utf-8"))
    made = tables["tables"](document)
    if name.startswith("where") and name != "where-start":
        made += tables["own_best"](rows_of(name))
    rows = [line for line in made.splitlines() if line.startswith("|")]
    assert len(rows) > 8
    assert [line for line in rows if line not in page] == []


def test_the_first_table_of_the_page_is_that_of_the_results():
    tables = runpy.run_path(str(FOLDER / "tables.py"))
    documents = [
        json.loads((FOLDER / "results" / f"where-{base}.json").read_text(encoding="utf-8"))
        for base in ("sigmoid", "tanh", "relu")
    ]
    made = tables["agile_against_plain"](documents)
    assert made.count("\n") == 1 + 3 * 4
    assert made in (FOLDER / "where.md").read_text(encoding="utf-8")


def test_the_tables_about_the_recipe_are_those_of_its_results():
    tables = runpy.run_path(str(FOLDER / "tables.py"))
    page = (FOLDER / "recipe.md").read_text(encoding="utf-8")
    for table in ("recipe_summary", "recipe_tried", "recipe_others", "recipe_rates"):
        assert tables[table]() in page, table
    studies = {*tables["RECIPE"], *(study for _, study, *_ in tables["TRIED"])}
    assert {path.stem for path in SPECS if path.stem.startswith("recipe-")} == {f"recipe-{one}" for one in studies}


def test_the_intervals_about_the_recipe_hold_for_all_comparisons_of_the_page():
    tables = runpy.run_path(str(FOLDER / "tables.py"))
    pairs, found = tables["recipe_pairs"](), tables["recipe_comparisons"]()
    level = 1 - 0.05 / len(pairs)
    for key, (own, base) in pairs.items():
        if found[key] is not None:
            differences = np.subtract(own, base)
            low, high = scipy.stats.ttest_1samp(differences, 0).confidence_interval(level)
            assert (found[key].low, found[key].high) == pytest.approx((low, high)), key


def test_losses_of_signed_ranks_get_columns_of_their_own():
    tables = runpy.run_path(str(FOLDER / "tables.py"))
    document = json.loads((FOLDER / "results" / "where-start.json").read_text(encoding="utf-8"))
    document["rows"][0]["seeds"] = "20 (14 did not learn)"
    for one in document["contrasts"]:
        one.update(typical=-0.25, typical_interval=[None, -0.125], signed_rank_p=0.047, seeds_lower=19, seeds_higher=1)
    lines = [line for line in tables["tables"](document).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert "± 0.0815 (14 did not learn) | baseline" in lines[2]
    assert lines[3].endswith("| 19 of 20 | -0.250 [open, -0.125] | 0.047 |")
