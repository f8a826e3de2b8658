"""The user's modules are copied when a study starts, and trials run the copy."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agileact import StoreError, cli
from agileact.study.commands.yaml_file import study_from
from agileact.study.running.conduct import identified
from agileact.study.running.executors import Failed, Finished
from agileact.study.running.executors.local import LocalExecutor
from agileact.study.running.planner import plan
from agileact.study.spec.arms import arm
from agileact.study.spec.record import read_record, write_record
from agileact.study.spec.user_code import VARIABLE, UserCode

OWN = """
from pathlib import Path
import torch
from own_parts.layers import Layer

def build():
    return torch.nn.Sequential(Layer(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))

def load():
    # Data that lies beside the module.
    size = int((Path(__file__).parent / "size.txt").read_text())
    x = torch.randn(3 * size, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    return [(x[i::3], y[i::3]) for i in range(3)]
"""
LAYER = """
import torch

class Layer(torch.nn.Linear):
    def forward(self, x):
        return torch.relu(super().forward(x))
"""
BROKEN = "raise RuntimeError('half of an edit')\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own_parts").mkdir()
    (tmp_path / "own_model.py").write_text(OWN)
    (tmp_path / "own_parts" / "__init__.py").write_text("")
    (tmp_path / "own_parts" / "layers.py").write_text(LAYER)
    (tmp_path / "size.txt").write_text("20")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def study(**protocol):
    return study_from(
        {
            "name": "own",
            "arms": ["original", "agile-relu"],
            "tasks": [
                {
                    "name": "own",
                    "data": {"name": "custom", "target": "own_model:load"},
                    "model": {"name": "custom", "target": "own_model:build"},
                    "budget": {"iterations": 4, "batch_size": 10, "evaluate_every": 2, "test_curve": False},
                }
            ],
            "protocol": {"tune": False, "seeds": 2, **protocol},
        }
    )


def spoil(folder: Path) -> None:
    for path in (folder / "own_model.py", folder / "own_parts" / "layers.py"):
        path.write_text(BROKEN)


@pytest.mark.slow
def test_a_file_that_is_edited_while_trials_wait_changes_nothing(folder):
    found, _ = identified(study())
    code = UserCode.of(found)
    assert {"own_model", "own_parts", "own_parts.layers"} <= {one.name for one in code.modules}
    executor = LocalExecutor(jobs=1)
    executor.code = code.write(folder / "code")
    specs = plan(found, lambda spec: None).next
    before = [event.result for event in executor.run(specs[:2]) if isinstance(event, Finished)]
    spoil(folder)
    events = list(executor.run(specs))  # by new workers
    assert not [event for event in events if isinstance(event, Failed)]
    after = [event.result for event in events if isinstance(event, Finished)]
    assert len(after) == len(specs) == 4
    assert [result.curve for result in after[:2]] == [result.curve for result in before]
    # Without the copy the edit is met.
    executor.code = None
    failed = [event for event in executor.run(specs[:1]) if isinstance(event, Failed)]
    assert "half of an edit" in failed[0].reason + failed[0].details


@pytest.mark.slow
def test_several_processes_of_a_trial_run_the_copy_too(folder):
    pytest.importorskip("accelerate")
    found, _ = identified(study(seeds=1))
    executor = LocalExecutor(jobs=1)
    executor.code = UserCode.of(found).write(folder / "code")
    spoil(folder)
    spec = plan(found, lambda spec: None).next[1]
    budget = dataclasses.replace(spec.task.budget, processes=2)
    events = list(executor.run([dataclasses.replace(spec, task=dataclasses.replace(spec.task, budget=budget))]))
    assert [event.result.status for event in events if isinstance(event, Finished)] == ["finished"], events


@pytest.mark.slow
def test_the_copy_and_its_hash_are_part_of_the_record(folder, capsys):
    raw: dict[str, Any] = {"arms": ["original", "agile-relu"], "protocol": {"tune": False, "seeds": 1}}
    task = study().tasks[0].spec
    raw["tasks"] = [
        {
            "name": "own",
            "data": {"name": "custom", "target": "own_model:load"},
            "model": {"name": "custom", "target": "own_model:build"},
            "budget": {"iterations": task.budget.iterations, "batch_size": 10},
        }
    ]
    (folder / "own.yaml").write_text(json.dumps(raw))
    assert cli.main(["study", "run", "own.yaml", "--out", "out", "--jobs", "1"]) == 0, capsys.readouterr().err
    _, around = read_record(folder / "out")
    kept = folder / "out" / "code" / around.code
    assert (kept / "own_model.py").read_text() == OWN
    assert (kept / "own_parts" / "layers.py").read_text() == LAYER
    assert UserCode.read(kept).hash == around.code
    # A study without functions of the user's keeps none.
    assert UserCode.of(study_from({"name": "x", "arms": ["relu"], "tasks": ["digits-mlp"]})).hash == ""


def test_results_are_read_while_the_module_is_edited(folder, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    (folder / "own_act.py").write_text("import torch\n\ndef act(x):\n    return torch.tanh(x)\n")
    arms = (*study().arms, arm("own_act:act"))
    found, _ = identified(dataclasses.replace(study(), arms=arms))
    code = UserCode(tuple(one for one in UserCode.of(found).modules if one.name.startswith("own_")))
    code.write(folder / "out" / "code")
    write_record(folder / "out", found, code=code.hash)
    (folder / "own_act.py").write_text(BROKEN)
    sys.modules.pop("own_act")
    sys.path_importer_cache.clear()
    said = "importing 'own_act' raised RuntimeError: half of an edit"
    with pytest.raises(StoreError, match=said):
        read_record(folder / "out")
    assert read_record(folder / "out", copies=True)[0] == found
    # A copy that was edited itself is none.
    (folder / "out" / "code" / code.hash / "own_act.py").write_text("x = 1\n")
    sys.meta_path[:] = [one for one in sys.meta_path if type(one).__name__ != "_Finder"]
    sys.modules.pop("own_act", None)
    with pytest.raises(StoreError, match=said):
        read_record(folder / "out", copies=True)


def test_what_is_installed_is_shown_by_inspect_and_tracebacks_and_keeps_its_place(folder):
    identified(study())
    place = UserCode.of(study()).write(folder / "code")
    spoil(folder)
    code = (
        "import importlib, inspect\n"
        "from agileact.study.spec.user_code import install_from_environment\n"
        "from agileact.study.spec.user_targets import find\n"
        "install_from_environment()\n"
        "build = find('own_model:build', 'model')\n"
        "print(inspect.getsource(build).strip().splitlines()[0])\n"
        "print(inspect.getsource(importlib.import_module('own_parts.layers').Layer).strip().splitlines()[-1])\n"
        "print(importlib.import_module('own_model').__file__)\n"
    )
    source = str(Path(inspect.getfile(cli)).parents[1])
    environment = {**os.environ, VARIABLE: str(place), "PYTHONPATH": source}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines() == [
        "def build():",
        "return torch.relu(super().forward(x))".rjust(len("        return torch.relu(super().forward(x))")),
        str(folder / "own_model.py"),
    ]


def test_installing_twice_keeps_what_was_imported_and_another_copy_replaces_it(folder, monkeypatch):
    identified(study())
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    first = UserCode(tuple(one for one in UserCode.of(study()).modules if one.name.startswith("own_")))
    second = UserCode(
        tuple(
            dataclasses.replace(one, source=one.source + "\nNEW = 1\n") if one.name == "own_model" else one
            for one in first.modules
        )
    )
    first.install()
    module = importlib.import_module("own_model")
    first.install()
    assert importlib.import_module("own_model") is module
    second.install()
    assert importlib.import_module("own_model").NEW == 1
    assert first.hash != second.hash


@pytest.mark.parametrize("option", ["loss", "metric", "augment"])
def test_a_function_that_is_named_for_data_of_ours_is_copied_too(folder, option):
    code = "def told(x, y=None):\n    return x if y is None else (x.argmax(1) - y).double().mean()\n"
    (folder / "own_loss.py").write_text(code)
    asked = {"task": "digits-mlp", "data": {option: "own_loss:told"}, "name": "digits"}
    study, _ = identified(study_from({"name": "s", "arms": ["relu", "gelu"], "tasks": [asked]}))
    assert "own_loss" in {module.name for module in UserCode.of(study).modules}
    plain, _ = identified(study_from({"name": "s", "arms": ["relu", "gelu"], "tasks": ["digits-mlp"]}))
    assert UserCode.of(plain).modules == ()
