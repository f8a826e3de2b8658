"""The blocks of README and docs: what is Python, what is YAML, what calls agileact."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))

_BLOCK = re.compile(r"^([ ]*)```(\S*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def name(path: Path) -> str:
    """Return a page's name for a test's id."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in these languages; "" is a block without one."""
    found = _BLOCK.findall(path.read_text(encoding="utf-8"))
    return [body for _, language, body in found if language in languages]


def commands(path: Path) -> list[list[str]]:
    """Return the arguments of each call of agileact in the shell blocks of a page."""
    found = []
    for block in blocks(path, "", "sh", "bash", "shell", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0].rpartition("/")[2] == "agileact":
                found.append(words[1:])
    return found
