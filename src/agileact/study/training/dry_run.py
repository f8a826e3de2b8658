"""Whether every arm can run on every task: tried on a few samples before anything is run."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from agileact._common.errors import AgileactError, ArgumentError
from agileact._common.names import suggestion
from agileact.study.data.dataset import DataSet
from agileact.study.spec.arms import Arm
from agileact.study.spec.protocol import Study
from agileact.study.spec.space import Space, with_values
from agileact.study.spec.tasks import Task
from agileact.study.spec.trial import ArmSpec
from agileact.study.training.setup import build_optimizer, network_on
from agileact.study.training.threads import one_thread

_SAMPLES = 4


@dataclass(frozen=True)
class _Asked(ArmSpec):
    """An arm that notes which of its activations a model asks for, and by which roles and names."""

    used: set[str] = field(default_factory=set, compare=False, repr=False)
    roles: dict[str, None] = field(default_factory=dict, compare=False, repr=False)

    def activation(self, role: str, module: str = "") -> str | None:
        self.roles[role] = None
        for where, _ in self.activations:
            if ArmSpec(((where, "-"),)).activation(role, module) is not None:
                self.used.add(where)
        return super().activation(role, module)


def check_arms(study: Study, data: Mapping[str, DataSet]) -> None:
    """Build every arm's network on every task, and take a few samples of each part through it.

    So what cannot work is said before the first trial, not by the trials of one arm in the middle of a study.
    """
    with one_thread():
        for arm in study.arms:
            fields = {one.name: getattr(arm.spec, one.name) for one in dataclasses.fields(arm.spec)}
            asked = _Asked(**fields)
            for task in study.tasks:
                _check(arm, asked, task, data[task.name], study.space(arm))
            for where, _ in arm.spec.activations:
                if where != "*" and where not in asked.used:
                    raise ArgumentError(
                        f"arm {arm.name!r}: no task has the role {where!r}, only {', '.join(asked.roles)}"
                        f"{suggestion(where, asked.roles)}"
                    )


def _ends(arm: Arm, space: Space) -> list[ArmSpec]:
    """Return the arm with every choice of a space, and every end of a range, one at a time."""
    usual = {one.name: one.choices[0] if one.choices else one.low for one in space}
    found = [
        {**usual, one.name: value} for one in space for value in one.choices or (one.low, one.high, *[0.0] * one.zero)
    ]
    return [with_values(arm.spec, values) for values in found]


def _check(arm: Arm, spec: ArmSpec, task: Task, data: DataSet, space: Space) -> None:
    try:
        model = network_on(data, task.spec.model, spec)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ArgumentError("the model has no parameter to train")
        build_optimizer(model, spec)
        for tuned in _ends(arm, space):
            build_optimizer(model, tuned)
            data.objective.smoothed(tuned.label_smoothing)
        loss = data.objective.smoothed(spec.label_smoothing)
        # What a network draws, such as dropout, must not shift the caller's stream.
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            few = min(_SAMPLES, task.spec.budget.batch_size)
            loss(model.train()(data.train_x[:few]), data.train_y[:few])
            model.eval()
            for x, y in ((data.validation_x, data.validation_y), (data.test_x, data.test_y)):
                loss(model(x[:_SAMPLES]), y[:_SAMPLES])
    except AgileactError as error:
        raise ArgumentError(f"arm {arm.name!r} on task {task.name!r}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        text = str(error).strip().partition("\n")[0]
        raise ArgumentError(
            f"arm {arm.name!r} on task {task.name!r} cannot run: {type(error).__name__}: {text}"
        ) from error
