"""Small data sets, specs and results for the tests of the study rooms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from agileact.study.data.dataset import DataSet, load
from agileact.study.running.executors import Event, Failed, Finished, Started
from agileact.study.spec.result import Curve, TrialResult
from agileact.study.spec.trial import ArmSpec, Budget, DataSpec, ModelSpec, TaskSpec, TrialSpec, freeze
from agileact.study.training.run import run_trial


def make_spec(
    seed: int = 0, conv: str = "relu", fc: str = "agile-sigmoid", *, name: str = "mnist5k-split", **budget: Any
) -> TrialSpec:
    settings: dict[str, Any] = {"iterations": 6, "batch_size": 10, "evaluate_every": 2, "probe_every": 2, **budget}
    model = ModelSpec("cnn", freeze({"filters": (3, 2), "nodes": (5,)}))
    return TrialSpec(
        TaskSpec(DataSpec(name), model, Budget(**settings)), ArmSpec(freeze({"conv": conv, "fc": fc}), lr=0.01), seed
    )


def make_data(samples: int = 60, seed: int = 0) -> DataSet:
    """Images whose class is the position of a bright bar: learnable, unlike noise."""
    generator = torch.Generator().manual_seed(seed)

    def part(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.arange(count) % 4
        x = 0.1 * torch.rand(count, 1, 8, 8, generator=generator)
        for index, label in enumerate(y.tolist()):
            x[index, 0, 2 * label : 2 * label + 2] += 0.9
        return x, y

    (tx, ty), (vx, vy), (sx, sy) = part(samples), part(20), part(24)
    return DataSet("bars", tx, ty, vx, vy, sx, sy, description="bars", fingerprint="b" * 16, classes=4)


def make_result(spec: TrialSpec, **changes: Any) -> TrialResult:
    fields: dict[str, Any] = {
        "spec": spec,
        "status": "finished",
        "curve": Curve([0, 2], [2.0, 1.0], [2.0, 1.0], [0.1, 0.5], [2.1, 1.1], [0.1, 0.4]),
        "probe": None,
        "layers": {},
        "best_test_loss": 1.1,
        "best_iteration": 2,
        "selected_iteration": 2,
        "selected_test_loss": 1.1,
        "selected_test_accuracy": 0.4,
        "parameters": 7,
        "seconds_per_iteration": 0.001,
        "seconds": 1.0,
        "versions": {"torch": "0"},
        **changes,
    }
    if fields["probe"] is None:
        from agileact.study.spec.result import Probe

        fields["probe"] = Probe()
    return TrialResult(**fields)


class HereExecutor:
    """Runs trials in this process, one after the other."""

    def run(self, specs: Sequence[TrialSpec]) -> Iterator[Event]:
        for spec in specs:
            yield Started(spec)
            yield Finished(spec, run_trial(spec, load(spec.task.data)))


class ScriptedExecutor:
    """An executor that returns made-up results at once, fails where told, and records what it was given."""

    def __init__(self, fail: Sequence[TrialSpec] = (), stop_after: int | None = None) -> None:
        self.fail = set(fail)
        self.stop_after = stop_after
        self.ran: list[TrialSpec] = []

    def run(self, specs: Sequence[TrialSpec]) -> Iterator[Event]:
        for spec in specs:
            if self.stop_after is not None and len(self.ran) >= self.stop_after:
                raise KeyboardInterrupt
            yield Started(spec)
            self.ran.append(spec)
            yield Failed(spec, "told to", "the details") if spec in self.fail else Finished(spec, make_result(spec))
