"""What the README shows works as printed."""

from __future__ import annotations

import json
import re
import runpy
import statistics
from pathlib import Path
from typing import Any

import pytest

from agileact.cli import _parser
from tests.commands import commands

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str, tmp_path: Path):
    # From a file, as users run it: convert reads the source of methods.
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    assert "loss" in runpy.run_path(str(script))


def test_the_install_line_comes_first_and_then_two_commands_that_are_targets():
    install, first = blocks("sh")[:2]
    assert install.startswith("pip install agileact")
    targets = re.findall(r"^make (\w+)", first, flags=re.MULTILINE)
    assert targets == ["run", "test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_it_is_read_in_three_minutes():
    assert len(README.split()) <= 700


def test_agileact_commands_parse():
    found = commands(ROOT / "README.md")
    assert len(found) >= 3
    for command in found:
        assert _parser().parse_args(command).run


def test_the_one_picture_is_what_the_script_draws(tmp_path: Path):
    # Texts, not coordinates, whose last digits differ between machines. `python docs/draw.py` draws it anew.
    draw = runpy.run_path(str(ROOT / "docs" / "draw.py"))
    assert "(docs/images/agile-activation.svg)" in README
    (drawn,) = draw["draw"](["agile-activation"], tmp_path)
    new, committed = (
        re.findall("<!-- .* -->|<path", path.read_text(encoding="utf-8"))
        for path in (drawn, ROOT / "docs" / "images" / drawn.name)
    )
    assert "<!-- a·f(x − b) -->" in new
    assert new == committed


def test_measured_numbers_are_those_of_the_committed_results():
    def result(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        return found

    def numbers(row: str) -> list[float]:
        (found,) = re.findall(rf"^\| {re.escape(row)}[^|]* \| ([^|]*) \|", README, flags=re.MULTILINE)
        return [float(number) for number in re.findall(r"\d+(?:\.\d+)?(?!\))", found)]

    for row, name in (("training, agile over plain", "op"), ("on AVX2", "op-avx2")):
        rows = [one for one in result(name)["rows"] if (one["mode"], one["dtype"]) == ("training", "float32")]
        means = [
            statistics.geometric_mean(one["ratio"] for one in rows if one["base"] == base)
            for base in ("relu", "sigmoid", "tanh", "silu", "gelu")
        ]
        assert numbers(row) == [round(mean, 2) for mean in means]
    step = {
        (row["model"], row["threads"]): row["ratio"] for row in result("step")["rows"] if row["baseline"] == "plain"
    }
    saved = {row["model"]: row["ratio"] for row in result("step")["saved_bytes"]}
    assert numbers("training step of the paper's network") == [round(step["paper", n], 2) for n in (1, 2)]
    assert numbers("training step of a ResNet-18") == [round(step["resnet18", n], 2) for n in (1, 2)]
    assert numbers("memory kept for backward") == [round(saved[name], 2) for name in ("resnet18", "paper")]
    rows = result("models")["rows"]
    assert f"convert on {len(rows)} architectures" in README
    assert numbers("convert on") == [max(row["float32"]["convert_difference"] for row in rows)]
    assert numbers("fold on the same")[0] * 1e-12 >= max(row["float64"]["fold_relative"] for row in rows)
    assert numbers("trials a minute") == [round(result("study")["speedup"], 1)]


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
