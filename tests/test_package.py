"""The package's names are imported when they are first used; the command line needs PyTorch for none of its words."""

from __future__ import annotations

import ast
import importlib
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import agileact as ag
from agileact import study
from agileact._common.errors import MissingExtraError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("package", [ag, study], ids=lambda package: package.__name__)
def test_every_name_of_the_stub_is_there(package):
    stub = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    for node in imports:
        for alias in node.names:
            assert alias.asname == alias.name, "an editor takes a plain import of a stub for private"
            home = importlib.import_module(str(node.module))
            assert getattr(package, alias.name) is getattr(home, alias.name)
            assert alias.name in dir(package)
            assert alias.name in package.__all__
    assert len(package.__all__) == sum(len(node.names) for node in imports)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'agileact' has no attribute 'AgileRelu'"):
        ag.AgileRelu  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(ImportError, match=r"cannot import name 'Stduy' from 'agileact\.study'"):
        from agileact.study import Stduy  # type: ignore[attr-defined] # noqa: F401


def test_what_is_pickled_by_the_package_name_is_found_again():
    error = pickle.loads(pickle.dumps(MissingExtraError("no ray")))
    assert type(error) is ag.MissingExtraError


def test_an_import_makes_rooms_and_operators_known_and_nothing_else():
    code = """
import sys
import agileact as ag
assert "agileact.transforms" not in sys.modules
assert ag.nn.AgileReLU is ag.AgileReLU
assert "agileact.transforms" not in sys.modules
import torch
assert torch.ops.agileact.agile  # a saved program looks for it
assert ag.optim.param_groups is ag.param_groups
from agileact import *
assert fold is ag.fold
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        ["--version"],
        ["paper", "--help"],
        ["xor", "--help"],
        ["compare", "--help"],
        ["study", "--help"],
        ["study", "run", "--help"],
        ["study", "rescue", "--help"],
        ["bench", "--help"],
        ["doctor", "--help"],
        ["lab", "--help"],
        ["completion", "--help"],
        ["papr"],
        ["study", "plam"],
        ["paper", "--jobs", "none"],
    ],
    ids=" ".join,
)
def test_help_and_refusals_need_no_pytorch(words):
    code = (
        "import sys, runpy; sys.orig_argv = ['python', '-m', 'agileact.cli']\n"
        "try: runpy.run_module('agileact.cli', run_name='__main__', alter_sys=True)\n"
        "except SystemExit: assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "else: raise AssertionError('it did not end')"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "agileact" in done.stdout + done.stderr


@pytest.mark.slow
def test_a_source_package_has_the_kernels_sources_and_no_library_and_makes_a_wheel(tmp_path):
    # A copy, because setuptools writes into the tree that it packs.
    root = tmp_path / "tree"
    shutil.copytree(
        ROOT, root, ignore=shutil.ignore_patterns(".*", "build", "dist", "runs", "tests", "docs", "*.egg-info")
    )
    library = root / "src" / "agileact" / "ops" / "lib" / "libagileact_OTHER.so"
    library.parent.mkdir(exist_ok=True)
    library.write_bytes(b"of another machine")
    pack(root, "build_sdist", tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
        opened.extractall(tmp_path / "source", filter="data")
    assert {f"csrc/{path.name}" for path in (ROOT / "csrc").iterdir() if path.is_file()} <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "src/agileact/py.typed"} <= names
    assert not [name for name in names if name.endswith(".so")]
    (source,) = (tmp_path / "source").iterdir()
    pack(source, "build_wheel", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        assert "agileact/ops/lib/failed.txt" in names, "AGILEACT_BUILD=0 leaves the libraries out and says so"
        (metadata,) = (opened.read(name).decode() for name in names if name.endswith("/METADATA"))
    headers, _, text = metadata.partition("\n\n")
    assert text.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    for field in ("Summary", "License-Expression: Apache-2.0", "Keywords", "Classifier", "Requires-Python: >=3.10"):
        assert field in headers


def pack(root, what, out):
    """Build in a process of its own, without compiling: the kernels have their own tests."""
    code = f"from setuptools import build_meta; build_meta.{what}({str(out)!r})"
    environment = {**os.environ, "AGILEACT_BUILD": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
