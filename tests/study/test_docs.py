"""What docs/study.md shows is what is there."""

from __future__ import annotations

import dataclasses
import re

from agileact import baselines
from agileact.study import models
from agileact.study.commands.yaml_file import read_study
from agileact.study.data import dataset as data_room
from agileact.study.running.conduct import identified
from agileact.study.spec import space, tasks
from agileact.study.spec.arms import modifiers
from agileact.study.spec.trial import SCHEDULES, ArmSpec, Budget
from agileact.study.training import optimizers
from agileact.study.training.dry_run import check_arms
from tests.commands import ROOT

PAGE = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")


def test_the_study_in_the_docs_is_read(tmp_path):
    found = re.search(r"```yaml\n(name: small.*?)```", PAGE, re.DOTALL)
    assert found is not None
    (tmp_path / "small.yaml").write_text(found[1])
    study = read_study(tmp_path / "small.yaml")
    assert [arm.name for arm in study.arms][3:] == ["relu+folded-updates", "mixed"]
    assert study.tasks[1].spec.budget.iterations == 200
    assert len(study.protocol.seeds) == 10


def test_every_name_is_in_the_docs():
    for name in (*baselines.names(), *(one.removesuffix("-official") for one in tasks.names())):
        assert f"`{name}`" in PAGE, name
    for name in modifiers():
        assert f"`{name.replace('NUMBER', 'X')}`" in PAGE, name


def test_every_key_of_data_and_models_is_in_the_docs_with_its_default():
    rows = {line.split("|")[1]: line for line in PAGE.splitlines() if line.startswith("| `")}
    for name in data_room.names():
        assert any(f"`{name}`" in key for key in rows), name
    for name in models.names():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
        for option, default in models.options(name).items():
            assert f"`{option}`" in PAGE, (name, option)
            if name != "custom":
                shown = f"({list(default) if isinstance(default, tuple) else default})"
                assert f"`{option}` {shown}" in row, (name, option, shown)


def test_every_key_of_training_and_budget_is_in_the_docs():
    known = {field.name for kind in (ArmSpec, Budget) for field in dataclasses.fields(kind)}
    training = ("optimizer", "optimizer_options", "schedule", "warmup", "clip_norm", "label_smoothing", "weight_decay")
    for name in (*training, "iterations", "batch_size", "evaluate_every", "patience"):
        assert name in known, name
        assert f"`{name}`" in PAGE, name
    for name in (*SCHEDULES, *optimizers.names()):
        assert f"`{name}`" in PAGE, name


def test_the_training_of_the_docs_is_read(tmp_path):
    (shown,) = re.findall(r"```yaml\n(training: .*?)```", PAGE, re.DOTALL)
    (tmp_path / "t.yaml").write_text(f"arms: [relu]\ntasks: [digits-mlp]\n{shown}")
    spec = read_study(tmp_path / "t.yaml").arms[0].spec
    assert (spec.optimizer, spec.weight_decay, spec.schedule, spec.warmup, spec.clip_norm) == (
        "adamw", 0.01, "cosine", 0.05, 1.0
    )  # fmt: skip


def test_the_search_space_of_the_docs_is_read_and_every_key_is_there(tmp_path):
    shown, own = re.findall(
        r"```yaml\n((?:protocol:\n  trials|arms:\n  - relu\n  - {name: agile).*?)```", PAGE, re.DOTALL
    )
    own = own.partition("tasks:")[0]
    (tmp_path / "s.yaml").write_text(f"tasks: [digits-mlp]\n{shown}{own}")
    study = read_study(tmp_path / "s.yaml")
    assert [one.name for one in study.space(study.arms[1])][-2:] == ["activation_lr", "scale_lr"]
    assert study.protocol.space[1].zero
    identified_study, data = identified(study)
    check_arms(identified_study, data)
    for name in (*space.NAMES, "space", "sampler", "trials"):
        assert f"`{name}`" in PAGE, name


def test_data_and_model_of_the_users_in_yaml_are_read_and_run(tmp_path):
    (shown,) = re.findall(r"```yaml\n(arms: \[original.*?)```", PAGE, re.DOTALL)
    here = "tests.study.networks_of_a_user"
    text = shown.replace("pkg.module:load", f"{here}:pairs").replace("pkg.module:build", f"{here}:dense")
    text = text.replace("validation: 200", "validation: 30").replace("features.*", "*").replace("agile-gelu", "gelu")
    (tmp_path / "mine.yaml").write_text(text)
    study, data = identified(read_study(tmp_path / "mine.yaml"))
    assert (study.name, study.tasks[0].name, data["mine"].classes) == ("mine", "mine", 3)
    check_arms(study, data)
