"""Imports go downward only, and importing the package costs nothing that it does not need."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import agileact

PACKAGE = Path(agileact.__file__).parent
# From the bottom to the top; a room may import from the rooms before it, and within itself. What is private at the
# top level of the package lies below all of them.
ROOMS = (
    "private",
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
)
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def _room(name: str) -> str:
    return "private" if name.startswith("_") and name != "__main__" else "cli" if name == "__main__" else name


def _imported_rooms(path: Path) -> set[str]:
    """Return the rooms that a file imports from, wherever in the file it does."""
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    rooms = set()
    for name in names:
        package, *rest = name.split(".")
        if package == "agileact":
            assert rest, f"{path} imports the whole package, which is above every room"
            rooms.add(_room(rest[0]))
    return rooms


def test_every_room_has_its_place():
    assert {_room(path.parts[0].removesuffix(".py")) for path in FILES} <= set(ROOMS)


@pytest.mark.parametrize("path", [path for path in FILES if str(path) != "__init__.py"], ids=str)
def test_imports_go_downward(path: Path):
    own = ROOMS.index(_room(path.parts[0].removesuffix(".py")))
    above = {room for room in _imported_rooms(path) if ROOMS.index(room) > own}
    assert not above, f"{path} imports from {', '.join(sorted(above))}, which lie above it"


def test_the_public_face_is_only_imports():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    docstring, *rest = tree.body
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom) for node in rest)


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
