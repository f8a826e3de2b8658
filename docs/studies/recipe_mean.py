"""What plain networks reach if each sample's mean over its inputs is taken away, as rows of mean 0 do.

python docs/studies/recipe_mean.py
"""

from __future__ import annotations

import dataclasses

from agileact.study.data.dataset import DataSet, load
from agileact.study.spec.arms import arm
from agileact.study.spec.tasks import task
from agileact.study.spec.trial import Budget, TrialSpec
from agileact.study.training.run import run_trial

BUDGETS = {"friedman1-mlp": (400, 50), "mnist1d-mlp": (500, 100), "diabetes-mlp": (400, 32)}
"""Iterations and batch size of the studies, by task."""


def without_mean(data: DataSet) -> DataSet:
    """Return the data with each sample's mean over its inputs taken away."""
    parts = {name: getattr(data, name) for name in ("train_x", "validation_x", "test_x")}
    return dataclasses.replace(data, **{name: x - x.mean(1, keepdim=True) for name, x in parts.items()})


if __name__ == "__main__":
    for name, (iterations, batch) in BUDGETS.items():
        spec = dataclasses.replace(task(name).spec, budget=Budget(iterations, batch, 25, 0, test_curve=False))
        data = load(spec.data, data_dir=None)
        for lr in (0.003, 0.01):
            trial = TrialSpec(spec, arm("relu", lr=lr, optimizer="adamw").spec, 0)
            losses = [run_trial(trial, one).selected_test_loss for one in (data, without_mean(data))]
            print(f"{name}, rate {lr:g}: test loss {losses[0]:.3f}, without each sample's mean {losses[1]:.3f}")
