"""The blocks of README and docs: what is Python, what is YAML, what calls agileact."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))

LANGUAGES = ("python", "yaml", "sh", "text", "")
"""What a fenced block may be; each is run, read or parsed by a test (the text, a tree of folders, by test_layers)."""

_SHELL = ("", "sh")
_BLOCK = re.compile(r"^([ ]*)```(\S*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def name(path: Path) -> str:
    """Return a page's name for a test's id."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in these languages; "" is a block without one."""
    return [body for language, body in fences(path) if language in languages]


def fences(path: Path) -> list[tuple[str, str]]:
    """Return language and body of every fenced block of a page."""
    return [(language, body) for _, language, body in _BLOCK.findall(path.read_text(encoding="utf-8"))]


def lines(path: Path) -> list[list[str]]:
    """Return the words of each line of the shell blocks of a page, without comments."""
    typed = [
        shlex.split(line.removeprefix("$ "), comments=True)
        for block in blocks(path, *_SHELL)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [words for words in typed if words]


def commands(path: Path) -> list[list[str]]:
    """Return the arguments of each call of agileact in the shell blocks of a page."""
    # What stands behind a redirection or a pipe is the shell's.
    return [
        list(itertools.takewhile(lambda word: word not in (">", ">>", "<", "|"), words[1:]))
        for words in lines(path)
        if words[0].rpartition("/")[2] == "agileact"
    ]
