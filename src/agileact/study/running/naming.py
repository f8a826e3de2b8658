"""What a trial is called, in a list, beside a bar, in an error: by arm, task, learning rate and seed."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from agileact.study.spec.arms import Arm
from agileact.study.spec.protocol import Study
from agileact.study.spec.trial import ArmSpec, TaskSpec, TrialSpec

_RATES = ("lr", "activation_lr")
"""What tuning chooses for every arm, and a trial's name says by itself."""


def trial_names(specs: Sequence[TrialSpec], study: Study | None = None) -> dict[str, str]:
    """Return a distinct name for each trial, by its key."""
    found = {spec.key: trial_name(spec, study) for spec in specs}
    times = Counter(found.values())
    # Two that differ in nothing that is named, such as the options of their data.
    return {key: text if times[text] == 1 else f"{text}; trial {key[:6]}" for key, text in found.items()}


def trial_name(spec: TrialSpec, study: Study | None = None) -> str:
    """Return what to call a trial; arm and task as the study names them, if it has them.

    Example:
        >>> from agileact.study.spec.trial import Budget, DataSpec, ModelSpec
        >>> task = TaskSpec(DataSpec("mnist5k-split"), ModelSpec("cnn"), Budget(iterations=10))
        >>> trial_name(TrialSpec(task, ArmSpec((("conv", "relu"), ("fc", "agile-sigmoid"))), seed=3))
        'conv: relu, fc: agile-sigmoid; cnn on mnist5k-split; rate 0.001; seed 3'
    """
    rate = "" if spec.arm.activation_lr is None else f", a and b {spec.arm.activation_lr:g}"
    # Arms that tuning made alike share their trials.
    arms = _belongs(study, spec.arm) if study else []
    arm = " = ".join(one.name for one in arms) or described(spec.arm)
    if study and (tuned := _tuned(study, arms, spec.arm)):
        rate += f", {tuned}"
    task = (study and _task(study, spec.task)) or f"{spec.task.model.name} on {spec.task.data.name}"
    return f"{arm}; {task}; rate {spec.arm.lr:g}{rate}; seed {spec.seed}"


def _belongs(study: Study, arm: ArmSpec) -> list[Arm]:
    """Return the arms that a trial belongs to."""
    return [
        one
        for one in study.arms
        if dataclasses.replace(one.spec, **{n: getattr(arm, n) for n in _fields(study, one)}) == arm
    ]


def _fields(study: Study, arm: Arm) -> list[str]:
    """Return the fields that tuning sets."""
    if not study.protocol.tune:
        return []
    return list(dict.fromkeys((*_RATES, *(one.field for one in study.space(arm) if one.name not in _RATES))))


def _tuned(study: Study, arms: Sequence[Arm], arm: ArmSpec) -> str:
    """Return what tuning chose beside the rates."""
    fields = [name for one in arms for name in _fields(study, one)]
    return ", ".join(said(name, getattr(arm, name)) for name in dict.fromkeys(fields) if name not in _RATES)


def _task(study: Study, task: TaskSpec) -> str:
    return " = ".join(one.name for one in study.tasks if same_work(one.spec) == same_work(task))


def same_work(task: TaskSpec) -> TaskSpec:
    """Return a task without the fields in which its tuning trials, final trials and replicates differ."""
    budget = dataclasses.replace(task.budget, test_curve=False, use_test=False, probe_every=0)
    return dataclasses.replace(task, budget=budget, data=dataclasses.replace(task.data, split=0))


def described(arm: ArmSpec) -> str:
    """Return the activations of an arm, and what else of it is not the default.

    Example:
        >>> described(ArmSpec((("*", "agile-relu"),), freeze=("scale",), weight_decay=0.05))
        'agile-relu, freeze scale, weight decay 0.05'
    """
    parts = [str(name) if where == "*" else f"{where}: {name}" for where, name in arm.activations] or ["original"]
    for entry in dataclasses.fields(arm):
        value = getattr(arm, entry.name)
        if entry.name in ("activations", "code") or entry.name in _RATES or value == entry.default:
            continue
        parts.append(said(entry.name, value))
    return ", ".join(parts)


def said(name: str, value: Any) -> str:
    """Return a field and its value in words.

    Example:
        >>> said("weight_decay", 1e-3), said("freeze", ("scale", "location"))
        ('weight decay 0.001', 'freeze scale and location')
    """
    if isinstance(value, tuple):
        text = " and ".join(map(str, value))
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{name.replace('_', ' ')} {text}"
