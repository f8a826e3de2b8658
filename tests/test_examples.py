"""The examples run as their first lines say, to their end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


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


def test_tensorboard_gets_curves_histograms_and_pictures(tmp_path: Path):
    output = run("examples/with_tensorboard.py", "--logdir", str(tmp_path), "--steps", "60")
    assert "2 folded, 0 refused" in output
    assert max(difference(output)) < 1e-4
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_recorder_takes_the_place_of_a_logger():
    output = run("examples/with_logger.py")
    assert "the last of ours, of step 100:" in output
    assert "agileact/1/scale/median" in output
    assert max(difference(output)) < 1e-4


def test_lightning_logs_and_folds(tmp_path: Path):
    output = run("examples/with_lightning.py", "--out", str(tmp_path))
    assert "2 folded, 0 refused" in output
    assert max(difference(output)) < 1e-4
    assert "agileact/1/scale/median" in next(tmp_path.rglob("metrics.csv")).read_text()


def test_the_trainer_saves_a_plain_model(tmp_path: Path):
    output = run("examples/with_trainer.py", "--out", str(tmp_path), "--steps", "20")
    assert "3 folded, 0 refused" in output
    assert max(difference(output)) < 1e-4
    assert (tmp_path / "plain" / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["own_cnn", "ddp"])
def test_without_options_of_its_own_an_example_still_answers_help(name: str):
    output = run(f"examples/{name}.py", "--help")
    assert f"examples/{name}.py" in output
    assert "largest difference" not in output


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_says_how_it_is_run(path: Path):
    assert f"examples/{path.name}" in path.read_text().split('"""')[1]
