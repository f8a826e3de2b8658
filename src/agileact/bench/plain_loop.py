"""The paper's trials as one would write them in plain PyTorch: the other side of ``agileact bench study``.

Modules of ``torch.nn``, the formula a f(x - b) in three lines, a data loader, Adam, an evaluation now and then. All
that is taken from Agileact is where the comparison needs it: the same digits, initial weights and batches.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from agileact.bench.peers import PLAIN, Eager
from agileact.study import models
from agileact.study.data import dataset as data_room
from agileact.study.data.dataset import DataSet
from agileact.study.spec.trial import DataSpec, TrialSpec
from agileact.study.training.loop import batches


class SameBatches(Sampler[list[int]]):
    """The batches of the engine's trial with the same seed."""

    def __init__(self, samples: int, size: int, seed: int, count: int) -> None:
        self.arguments = samples, size, seed
        self.count = count

    def __iter__(self) -> Iterator[list[int]]:
        """Yield indices."""
        for _, batch in zip(range(self.count), batches(*self.arguments), strict=False):
            yield batch.tolist()

    def __len__(self) -> int:
        return self.count


def network(conv: str, fc: str) -> nn.Sequential:
    """Build the paper's network (section 4)."""

    def activation(name: str, channels: int, ndim: int) -> nn.Module:
        plain = PLAIN[name.removeprefix("agile-")]()
        if not name.startswith("agile-"):
            return plain
        module = Eager(plain, channels, 1, ndim)
        nn.init.ones_(module.scale)
        nn.init.zeros_(module.location)
        return module

    layers: list[nn.Module] = []
    channels = 1
    for filters in (16, 8, 4):
        layers += [nn.Conv2d(channels, filters, 3, padding=1), activation(conv, filters, 4), nn.MaxPool2d(2)]
        channels = filters
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(36, 30), activation(fc, 30, 2), nn.Linear(30, 10))


def evaluate(model: nn.Module, loader: DataLoader[tuple[Tensor, ...]]) -> tuple[float, float]:
    """Return mean loss and accuracy."""
    model.eval()
    loss, correct, count = 0.0, 0, 0
    with torch.no_grad():
        for x, y in loader:
            output = model(x)
            loss += nn.functional.cross_entropy(output, y, reduction="sum").item()
            correct += int((output.argmax(1) == y).sum().item())
            count += len(y)
    model.train()
    return loss / count, correct / count


def train(spec: TrialSpec, data: DataSet) -> dict[str, list[float]]:
    """Train one network, and return its losses at each evaluation."""
    budget, roles = spec.task.budget, dict(spec.arm.activations)
    model = network(str(roles["conv"]), str(roles["fc"]))
    start = models.build(spec.task.model, spec.arm, input_shape=(1, 28, 28), classes=10, seed=spec.seed)
    ours = [module for module in model if isinstance(module, (nn.Conv2d, nn.Linear))]
    theirs = [module for module in start.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    for own, other in zip(ours, theirs, strict=True):
        own.load_state_dict(other.state_dict())
    sampler = SameBatches(len(data.train_y), budget.batch_size, spec.seed, budget.iterations)
    loader = DataLoader(TensorDataset(data.train_x, data.train_y), batch_sampler=sampler)
    parts = {
        "train": DataLoader(TensorDataset(data.train_x, data.train_y), batch_size=budget.batch_size),
        "validation": DataLoader(TensorDataset(data.validation_x, data.validation_y), batch_size=budget.batch_size),
        "test": DataLoader(TensorDataset(data.test_x, data.test_y), batch_size=budget.batch_size),
    }
    optimizer = torch.optim.Adam(model.parameters(), lr=spec.arm.lr)
    curves: dict[str, list[float]] = {
        "train_loss": [evaluate(model, parts["train"])[0]],
        "validation_loss": [evaluate(model, parts["validation"])[0]],
        "test_loss": [evaluate(model, parts["test"])[0]],
    }
    losses: list[float] = []
    for iteration, (x, y) in enumerate(loader, start=1):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if iteration % budget.evaluate_every == 0 or iteration == budget.iterations:
            curves["train_loss"].append(sum(losses) / len(losses))
            losses = []
            for part in ("validation", "test"):
                curves[f"{part}_loss"].append(evaluate(model, parts[part])[0])
    return curves


def main() -> int:
    """Load, say so, read trials as one line of JSON, run them, say how long that took."""
    parser = argparse.ArgumentParser(prog="python -m agileact.bench.plain_loop")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = data_room.load(DataSpec("mnist5k-split", 500))
    print("ready", flush=True)
    specs = [TrialSpec.from_json(text) for text in json.loads(sys.stdin.readline())]
    start = time.perf_counter()
    curves = [train(spec, data) for spec in specs]
    print(time.perf_counter() - start, flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(curves))
    return 0


if __name__ == "__main__":
    sys.exit(main())
