"""What the README shows works as printed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

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


def test_the_two_commands_come_first_and_are_targets():
    first = blocks("sh")[0]
    targets = re.findall(r"^make (\w+)", first, flags=re.MULTILINE)
    assert targets == ["run", "test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_agileact_commands_parse():
    found = commands(ROOT / "README.md")
    assert len(found) >= 4
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


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
