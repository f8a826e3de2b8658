"""The script behind docs/models.md: a sample of its architectures, and its page."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "models.py"
SAMPLE = (
    "denoising-diffusion-pytorch/Unet1D",
    "diffusers/UNet2DModel",
    "monai/DenseNet",
    "monai/UNETR",
    "pytorch-tabnet/TabNet, entmax",
    "rtdl_num_embeddings/PLR",
    "rtdl_revisiting_models/FT",
    "stable-baselines3/PPO, CNN",
    "timm/lcnet",
    "torch_geometric/AttentiveFP",
    "transformers/Wav2Vec 2",
    "vit-pytorch/LeViT",
    "x-transformers/Decoder, ReLU",
)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("models_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_sample_is_exact():
    done = subprocess.run([sys.executable, str(SCRIPT), "--only", *SAMPLE], capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.stdout, done.stderr[-3000:])
    assert len(rows) == len(SAMPLE)
    for row in rows:
        for dtype in ("float32", "float64"):
            assert row[dtype]["convert_difference"] == 0, row
        assert row["float64"]["fold_relative"] <= 1e-10, row
        assert row["converted"] == row["folded"] + row["partly"] + row["refused"], row
        assert row["convert_runs"] <= 3, row


def _row(**more: Any) -> dict[str, Any]:
    gaps = {"convert_difference": 0.0, "fold_absolute": 1e-7, "fold_relative": 1e-8}
    return {
        "package": "monai",
        "name": "UNet",
        "float32": gaps,
        "float64": gaps,
        "activations": 3,
        "converted": 2,
        "skipped": [["a.0", "Softmax", "it is <not> elementwise"]],
        "folded": 1,
        "partly": 1,
        "refused": 0,
        "same_architecture": False,
        "reasons": [["location stays: mul in block.1", 1], ["location stays: mul in block.2", 1]],
        "parameters_added": 8,
        "convert_runs": 2,
        "fold_runs": 4,
        "seconds": 0.5,
        "forward_seconds": 0.01,
    } | more


def test_page_tells_what_is_missing_and_what_failed(script: Any):
    where = {"cpu": "a processor", "torch": "2", "python": "3"}
    failed = {"package": "timm", "name": "net", "error": "RuntimeError in x.py, line 3: no"}
    page = script.page([_row(), failed], where, {"vit-pytorch": 20})
    assert "**Failed: timm, net**: RuntimeError in x.py, line 3: no" in page
    assert (
        "package is missing: vit-pytorch (20 architectures; `python -m pip install -c constraints.txt --no-deps" in page
    )
    assert "| UNet | 2 of 3 | 1, 1, 0 | 1e-08 | 50 |" in page
    assert "it is &lt;not&gt; elementwise" in page
    assert "- 2 in UNet: location stays: mul\n" in page
    assert "| LocalViT" not in page.partition("## Left out")[0]
    assert "LocalViT | its own" in page


def test_a_crash_is_a_row(script: Any):
    def build() -> Any:
        raise RuntimeError("no such network")

    row = script.isolated(script.Architecture("torch", "broken", build))
    assert (row["package"], row["name"]) == ("torch", "broken")
    assert row["error"].endswith("no such network")


def test_every_architecture_has_a_name_of_its_own(script: Any):
    keys = [one.key for one in script.architectures()]
    assert len(keys) == len(set(keys)) >= 120
