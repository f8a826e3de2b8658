"""Your own CNN, from conversion to ONNX: train, convert, train on, fold, save, load as a plain model, export.

pip install agileact onnx onnxruntime onnxscript
python examples/own_cnn.py
"""

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag


class CNN(nn.Module):
    """A model that knows nothing of Agileact."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.hidden = nn.Linear(32 * 4 * 4, 64)
        self.gelu = nn.GELU()
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.avg_pool2d(self.norm(self.conv2(x)).relu(), 2)
        return self.head(self.gelu(self.hidden(x.flatten(1))))


def batch(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return noisy 16 x 16 pictures of waves in one of four directions, and the direction."""
    label = torch.randint(0, 4, (size,), generator=generator)
    angle = label * torch.pi / 4
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    phase = torch.rand(size, generator=generator) * 6
    along = row * angle.sin()[:, None, None] + column * angle.cos()[:, None, None]
    noise = torch.randn(size, 16, 16, generator=generator)
    return (torch.sin(along * 0.9 + phase[:, None, None]) + 2 * noise).unsqueeze(1), label


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> float:
    """Take some steps, and return the accuracy on fresh pictures."""
    generator = torch.Generator().manual_seed(steps)
    model.train()
    for _ in range(steps):
        x, y = batch(64, generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        x, y = batch(1000, generator)
        return float((model(x).argmax(1) == y).float().mean())


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.manual_seed(0)
    model = CNN()
    print(f"plain:  accuracy {train(model, torch.optim.AdamW(model.parameters(), lr=2e-3), 60):.3f}")

    x, _ = batch(8, torch.Generator().manual_seed(1))
    agile, report = ag.convert(model, example_inputs=x)
    print(report)
    assert torch.equal(agile(x), model(x)), "converting does not change a bit"

    optimizer = torch.optim.AdamW(ag.param_groups(agile, lr=1e-3, weight_decay=0.01))
    print(f"agile:  accuracy {train(agile, optimizer, 60):.3f}")

    plain, report = ag.fold(agile, example_inputs=x)
    print(report)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plain.pt"
        torch.save(plain.state_dict(), file)
        shipped = CNN()  # your class, without Agileact
        shipped.load_state_dict(torch.load(file))
        shipped.eval()
        with torch.no_grad():
            print(f"folded: largest difference {float((shipped(x) - agile(x)).abs().max()):.1e}")

        import onnxruntime

        file = Path(folder) / "plain.onnx"
        torch.onnx.export(shipped, (x,), file, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            print(f"ONNX:   largest difference {float((torch.from_numpy(output) - shipped(x)).abs().max()):.1e}")


if __name__ == "__main__":
    main()
