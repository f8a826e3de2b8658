"""What the README shows works as printed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from agileact.cli import _parser

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


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_the_code_of_a_page_runs_from_its_top_to_its_end(path: Path, tmp_path: Path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL))
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    runpy.run_path(str(script))


def test_the_two_commands_come_first_and_are_targets():
    first = blocks("sh")[0]
    targets = re.findall(r"^make (\w+)", first, flags=re.MULTILINE)
    assert targets == ["run", "test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_agileact_commands_parse():
    commands = [
        line.partition("#")[0].split()[1:]
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("agileact ")
    ]
    assert len(commands) >= 4
    for command in commands:
        assert _parser().parse_args(command).run


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
