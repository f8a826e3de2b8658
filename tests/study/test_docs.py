"""What docs/study.md shows is what is there."""

from __future__ import annotations

import re

from agileact import baselines
from agileact.study.commands.yaml_file import read_study
from agileact.study.spec import tasks
from agileact.study.spec.arms import modifiers
from tests.commands import ROOT

PAGE = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")


def test_the_study_in_the_docs_is_read(tmp_path):
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
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
