"""Imports go downward only, files and folders, and importing the package costs nothing that it does not need."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import agileact
from tests.commands import ROOT, blocks

PACKAGE = Path(agileact.__file__).parent
# From the bottom to the top; a room may import from the rooms before it, and within itself.
ROOMS = [
    "_common",
    "bases",
    "reference",
    "ops",
    "functional",
    "nn",
    "transforms",
    "optim",
    "monitor",
    "calibration",
    "integrations",
    "baselines",
    "study",
    "paper",
    "lab",
    "bench",
    "doctor",
    "completion",
    "cli",
]
# Within a room of many folders likewise.
FOLDERS = {
    "transforms": ["report", "trace", "edit", "convert", "fold"],
    "study": ["spec", "data", "models", "training", "running", "statistics", "results", "report", "commands"],
    "lab": ["input_checks", "sessions", "content", "widgets", "tabs", "app", "command"],
}
FILES = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {".".join(("agileact", *parts)).removesuffix(".__init__"): path for path, parts in FILES.items()}


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Return the modules of this package that a file imports, wherever in the file it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else str(node.module) for name in full}
    found = {name for name in names if name.partition(".")[0] == "agileact"}
    assert "agileact" not in found or path == PACKAGE / "__init__.py", f"{path} imports the whole package"
    return frozenset(found)


def test_imports_go_downward():
    """One test over all files: between rooms, and between the folders of a room."""
    upward = []
    for path, parts in FILES.items():
        for name in sorted(imported(path)):
            other = name.split(".")[1:]
            for order, own, theirs in ((ROOMS, parts, other), (FOLDERS.get(parts[0], []), parts[1:], other[1:])):
                if order is ROOMS or parts[0] == other[0]:
                    if not own or not theirs or "__init__" in own[:1] or parts == ("__init__",):
                        continue  # the face of a room imports what it shows
                    if order and order.index(own[0]) < order.index(theirs[0]):
                        upward.append(f"{'/'.join(parts)} imports {name}")
    assert not upward, "\n".join(upward)


def test_no_circle_of_files():
    edges = {name: imported(path) - {name} for name, path in MODULES.items() if path.name != "__init__.py"}
    circles = []
    for start in edges:
        seen: set[str] = set()
        todo = list(edges[start])
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo += edges.get(one, ())
        if start in seen:
            circles.append(start)
    assert not circles, f"these files import each other: {', '.join(circles)}"


def test_no_folder_is_crowded():
    counts = {folder: len(list(folder.glob("*.py"))) - 1 for folder in {path.parent for path in FILES}}
    assert {str(folder): count for folder, count in counts.items() if count > 13} == {}


def test_the_layout_that_contributing_draws_is_that_of_the_package():
    (tree,) = blocks(ROOT / "CONTRIBUTING.md", "text")
    package = re.findall(r"^( *)((?:\w+(?:/|\.py) *)+)", tree.split("tests/")[0], flags=re.MULTILINE)
    drawn: list[str] = []
    for indentation, names in package[1:]:
        above = drawn[-1].split("/")[0] + "/" if len(indentation) > 2 and drawn else ""
        drawn += [above + name for name in names.split()]
    assert [name for name in drawn if not (PACKAGE / name).exists()] == []
    rooms = {f"{path.name}/" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms - set(drawn) == set()


def test_importing_needs_torch_and_numpy_alone_and_touches_no_gpu():
    code = """
import sys
import numpy, torch
before = {name.partition(".")[0] for name in sys.modules}
state = torch.random.get_rng_state()
import agileact
new = {name.partition(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)
assert new == {"agileact"}, new
assert not any(name.startswith(("agileact.study", "agileact.paper", "agileact.cli")) for name in sys.modules)
assert not torch.cuda.is_initialized()
assert torch.equal(state, torch.random.get_rng_state())
assert agileact.__version__
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
