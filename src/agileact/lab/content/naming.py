"""What the trials of a store are called in a list: no two alike."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from agileact._common.errors import StoreError
from agileact.study.running.planner import final_trials
from agileact.study.spec.arms import Arm
from agileact.study.spec.protocol import Study
from agileact.study.spec.record import read_record
from agileact.study.spec.trial import ArmSpec, TaskSpec, TrialSpec

_RATES = ("lr", "activation_lr")
"""What tuning chooses for an arm, and its label says by itself."""


def labels(specs: Sequence[TrialSpec], folder: Path) -> dict[str, str]:
    """Return what to call each trial, by its key: by arm and task as ``folder``/study.json names them, if it does."""
    study = _study(folder)
    found = {spec.key: _label(spec, study) for spec in specs}
    times = Counter(found.values())
    # Two that differ in nothing that is named, such as the options of their data.
    return {key: label if times[label] == 1 else f"{label}; trial {key[:6]}" for key, label in found.items()}


def _study(folder: Path) -> Study | None:
    try:
        return read_record(folder)[0]
    except (StoreError, OSError):
        # The record only gives names; the trials can be shown without it.
        return None


def _label(spec: TrialSpec, study: Study | None) -> str:
    rate = "" if spec.arm.activation_lr is None else f", a and b {spec.arm.activation_lr:g}"
    arm = (study and _arm_of(study, spec.arm)) or described(spec.arm)
    task = (study and _task_of(study, spec.task)) or f"{spec.task.model.name} on {spec.task.data.name}"
    return f"{arm}; {task}; rate {spec.arm.lr:g}{rate}; seed {spec.seed}"


def _arm_of(study: Study, arm: ArmSpec) -> str:
    """Return the names of the arms that a trial belongs to: arms that tuning made alike share their trials."""
    rates = {name: getattr(arm, name) for name in _RATES} if study.protocol.tune else {}
    return " = ".join(one.name for one in study.arms if dataclasses.replace(one.spec, **rates) == arm)


def _task_of(study: Study, task: TaskSpec) -> str:
    arm = Arm("any", ArmSpec(()))
    finals = {one.name: final_trials(study.protocol, arm, one, None)[0] for one in study.tasks}
    return " = ".join(name for name, trial in finals.items() if trial.task == task)


def described(arm: ArmSpec) -> str:
    """Return the activations of an arm, and what else of it is not the default.

    Example:
        >>> described(ArmSpec((("*", "agile-relu"),), freeze=("scale",), weight_decay=0.05))
        'agile-relu, freeze scale, weight decay 0.05'
        >>> described(ArmSpec((("conv", "agile-relu"), ("fc", "sigmoid")), optimizer="sgd"))
        'conv: agile-relu, fc: sigmoid, optimizer sgd'
    """
    parts = [str(name) if where == "*" else f"{where}: {name}" for where, name in arm.activations]
    for entry in dataclasses.fields(arm):
        value = getattr(arm, entry.name)
        if entry.name == "activations" or entry.name in _RATES or value == entry.default:
            continue
        said = " and ".join(value) if isinstance(value, tuple) else str(value)
        parts.append(f"{entry.name.replace('_', ' ')} {said}")
    return ", ".join(parts)
