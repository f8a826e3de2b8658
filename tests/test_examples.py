"""The examples run as their first lines say, to their end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=EXAMPLES.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def difference(output: str) -> list[float]:
    return [float(found) for found in re.findall(r"largest difference:? ([-+.e\d]+)$", output, flags=re.MULTILINE)]


def test_own_cnn_goes_from_conversion_to_onnx():
    output = run("examples/own_cnn.py")
    found = difference(output)
    assert len(found) == 2
    assert max(found) < 1e-4


def test_a_fine_tuned_resnet_is_shipped_plain():
    output = run("examples/finetune_resnet.py", "--steps", "10")
    (found,) = difference(output)
    assert found < 1e-4


def test_two_processes_end_with_the_same_model():
    assert "2 processes ended with the same model" in run(*TORCHRUN, "examples/ddp.py")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_says_how_it_is_run(path: Path):
    assert f"examples/{path.name}" in path.read_text().split('"""')[1]
