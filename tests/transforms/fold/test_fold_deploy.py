"""What a folded model is for: saved, loaded without this package, compiled, exported, quantised."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import agileact as ag
from tests.transforms.folding import drawn
from tests.transforms.networks import BasicBlock, ViT

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def small(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "transformer":
        return drawn(ViT()).eval()
    return drawn(
        nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            ag.AgileReLU(8),
            BasicBlock(8, 8),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
            # Nothing takes this scale up: it stays as a multiplication.
            ag.AgileTanh(4),
        )
    ).eval()


WITHOUT = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "agileact":
            raise ImportError("agileact is not installed")
sys.meta_path.insert(0, Gone())
import torch
from torch import nn
"""


def without_agileact(code: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT + code, *arguments], check=True, timeout=120)


def tuned() -> tuple[nn.Module, nn.Module]:
    """Convert a network, train it a little, fold it; return it agile and plain."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(392, 6), nn.Sigmoid(), nn.Linear(6, 2),
    )  # fmt: skip
    agile, _ = ag.convert(model, example_inputs=IMAGE)
    optimizer = torch.optim.Adam(agile.parameters(), 0.01)
    for _ in range(5):
        optimizer.zero_grad()
        agile(IMAGE).square().mean().backward()
        optimizer.step()
    agile.eval()
    plain, report = ag.fold(agile, IMAGE)
    assert report.same_architecture
    return agile, plain


@pytest.mark.slow
def test_fine_tuned_saved_and_loaded_where_agileact_is_not_installed(tmp_path: Path):
    agile, plain = tuned()
    with torch.no_grad():
        expected = agile(IMAGE)
    torch.save(plain, tmp_path / "model.pt")
    torch.save(plain.state_dict(), tmp_path / "state.pt")
    torch.save((IMAGE, expected, plain(IMAGE).detach()), tmp_path / "data.pt")
    without_agileact(
        """
folder = sys.argv[1]
x, agile, plain = torch.load(folder + "/data.pt")
model = torch.load(folder + "/model.pt", weights_only=False).eval()
assert torch.equal(model(x), plain)
fresh = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(392, 6), nn.Sigmoid(),
    nn.Linear(6, 2),
).eval()
fresh.load_state_dict(torch.load(folder + "/state.pt"))
assert torch.equal(fresh(x), plain)
assert (plain - agile).abs().max() <= 1e-5 * agile.abs().max()
assert "agileact" not in sys.modules
""",
        str(tmp_path),
    )


@pytest.mark.slow
def test_what_stays_loads_without_agileact(tmp_path: Path):
    model = drawn(
        nn.Sequential(
            nn.Linear(4, 6), ag.CombinedAgile("gelu", 6, 2), nn.Linear(6, 6), ag.AgileSiLU(6), nn.Softmax(-1),
            ag.Agile("sine", 6),
        )
    )  # fmt: skip
    x = torch.randn(3, 4)
    plain, report = ag.fold(model, x)
    assert len(report.refused) == 3
    torch.save(plain, tmp_path / "model.pt")
    torch.save((x, plain(x).detach()), tmp_path / "data.pt")
    without_agileact(
        """
x, expected = torch.load(sys.argv[1] + "/data.pt")
model = torch.load(sys.argv[1] + "/model.pt", weights_only=False)
assert torch.equal(model(x), expected)
assert "agileact" not in sys.modules
""",
        str(tmp_path),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["network", "transformer"])
@pytest.mark.parametrize("folded", [False, True])
def test_compiled_whole(kind: str, folded: bool):
    model = small(kind)
    if folded:
        model, _ = ag.fold(model, IMAGE)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(IMAGE), model(IMAGE))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["network", "transformer"])
@pytest.mark.parametrize("folded", [False, True])
def test_exported(kind: str, folded: bool, tmp_path: Path):
    model = small(kind)
    if folded:
        model, _ = ag.fold(model, IMAGE)
    expected: Tensor = model(IMAGE).detach()
    program = torch.export.export(model, (IMAGE,))
    torch.testing.assert_close(program.module()(IMAGE), expected)
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (IMAGE,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {session.get_inputs()[0].name: IMAGE.numpy()})
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_dynamic_quantisation_is_that_of_a_plain_model():
    plain, _ = ag.fold(small("transformer"), IMAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, dtype=torch.qint8)
    kinds = {type(module).__module__ for module in quantised.modules()}
    assert any("quantized" in kind for kind in kinds)
    difference = (quantised(IMAGE) - plain(IMAGE)).abs().max()
    assert 0 < difference < 0.1 * plain(IMAGE).abs().max()
