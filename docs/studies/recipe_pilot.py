"""The pilot of the page about the recipe: what might make it mind the learning rate less in batches of 8.

    python docs/studies/recipe_pilot.py agile-relu+standardized agile-relu+standardized@ema=0.99 relu+layernorm@ema=0.99

An arm, and behind ``@`` a change that is no option of the library. Printed is the lowest validation loss at three
learning rates, the mean of three splits and seeds; the test set is not touched.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from typing import Any

import torch
from torch import Tensor

from agileact.nn.rows import directions
from agileact.study.data.dataset import DataSet, load
from agileact.study.spec.arms import arm
from agileact.study.spec.tasks import task
from agileact.study.spec.trial import Budget, ModelSpec, TaskSpec, TrialSpec, freeze
from agileact.study.training.loop import Evaluation, Trial

RATES = (0.001, 0.003, 0.01)
TASK = dataclasses.replace(
    task("deep-mlp").spec,
    model=ModelSpec("deep-mlp", freeze({"depth": 3})),
    budget=Budget(2000, 8, 50, 0, test_curve=False, use_test=False),
)


class Changed(Trial):
    """A trial with one of the changes."""

    def __init__(self, spec: TrialSpec, data: DataSet, change: str) -> None:
        super().__init__(spec, data, None)
        name, _, value = change.partition("=")
        self.rows: list[Any] = [layer.weight for layer in directions(self.model).values()]
        self.average: dict[str, Tensor] = {}
        optimizer: Any = self.optimizer
        if name == "ema":
            self.average = {key: p.detach().clone() for key, p in self.model.named_parameters()}
            self.steps, self.keep = 0, float(value)
            optimizer.register_step_post_hook(self._averaged)
        elif name == "tangent":
            optimizer.register_step_pre_hook(lambda *_: self._to_tangent([row.grad for row in self.rows]))
            optimizer.register_step_post_hook(lambda *_: self._to_tangent(self._states("exp_avg")))
        elif name == "row-moments":
            optimizer.register_step_post_hook(self._by_row)
        elif name == "direction-lr":
            for group in optimizer.param_groups:
                if group.get("name") == "direction":
                    group["lr"] *= float(value)
        elif name:
            raise SystemExit(f"unknown change {name!r}: ema=X, tangent, row-moments, direction-lr=X")

    def _states(self, name: str) -> list[Tensor]:
        optimizer: Any = self.optimizer
        return [optimizer.state[row][name] for row in self.rows]

    @torch.no_grad()
    def _to_tangent(self, vectors: list[Tensor]) -> None:
        """Take away what would change a row's mean and length."""
        for vector, row in zip(vectors, self.rows, strict=True):
            vector.sub_(vector.mean(1, keepdim=True)).sub_(row * (vector * row).sum(1, keepdim=True))

    def _by_row(self, *_: Any) -> None:
        """Give all numbers of a row one second moment, their mean, so that Adam keeps the direction of its step."""
        for moment in self._states("exp_avg_sq"):
            moment.copy_(moment.mean(1, keepdim=True).expand_as(moment))

    @torch.no_grad()
    def _averaged(self, *_: Any) -> None:
        self.steps += 1
        keep = min(self.keep, self.steps / (self.steps + 10))
        for key, parameter in self.model.named_parameters():
            self.average[key].lerp_(parameter, 1 - keep)

    def _evaluate(self, part: str) -> Evaluation:
        if not self.average or part == "train":
            return super()._evaluate(part)
        own = {key: p.detach().clone() for key, p in self.model.named_parameters()}
        self.model.load_state_dict(self.average, strict=False)
        found = super()._evaluate(part)
        self.model.load_state_dict(own, strict=False)
        return found


def score(task_spec: TaskSpec, text: str, rate: float, split: int) -> float:
    """Return the lowest validation loss of one run."""
    name, _, change = text.partition("@")
    spec = dataclasses.replace(task_spec, data=dataclasses.replace(task_spec.data, split=split))
    trial = TrialSpec(spec, arm(name, optimizer="adamw", lr=rate).spec, 1000 + split * 1_000_000)
    losses = Changed(trial, load(spec.data), change).run().curve.validation_loss
    return min(loss for loss in losses if loss == loss)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for text in sys.argv[1:]:
        means = {rate: statistics.fmean(score(TASK, text, rate, split) for split in range(3)) for rate in RATES}
        print(f"| `{text}` | {' | '.join(f'{mean:.3f}' for mean in means.values())} |", flush=True)
