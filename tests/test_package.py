"""The package's names are imported when they are first used; the command line needs PyTorch for none of its words."""

from __future__ import annotations

import ast
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import agileact as ag
from agileact import study
from agileact._common.errors import MissingExtraError


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
