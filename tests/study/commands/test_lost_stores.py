"""What a user is told of a store that is damaged, deleted or locked: each command names the next step, and it helps."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from agileact import cli
from agileact.study.commands.yaml_file import study_from
from agileact.study.running import store as store_module
from agileact.study.running.conduct import identified
from agileact.study.running.store import Store
from agileact.study.spec.record import write_record


@pytest.fixture
def out(tmp_path):
    """A folder of results as it is when a study has begun."""
    study, _ = identified(study_from({"name": "x", "arms": ["relu", "agile-relu"], "tasks": ["digits-mlp"]}))
    with Store(tmp_path / "store.sqlite"):
        pass
    write_record(tmp_path, study)
    return tmp_path


def test_status_and_rescue_of_a_damaged_store_lead_out(out, capsys):
    store = out / "store.sqlite"
    store.write_bytes(b"SQLite format 3\0" + bytes(5000))
    assert cli.main(["study", "status", str(out)]) == 1
    assert f"'agileact study rescue {store}' saves" in capsys.readouterr().err
    assert cli.main(["study", "rescue", str(store)]) == 1
    said = capsys.readouterr().err
    assert "no trial in" in said
    assert "Move or delete it, and the study runs all of its trials" in said
    store.unlink()
    assert cli.main(["study", "status", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"Note: {store} was deleted or moved away; its trials must be run again.\n"
    assert captured.out.startswith("x: 0 of at most ")


def test_a_locked_store_is_in_use_for_every_command(out, capsys, monkeypatch):
    monkeypatch.setattr(store_module, "SECONDS_TO_WAIT", 0.1)
    with contextlib.closing(sqlite3.connect(out / "store.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for command in ("status", "show", "rescue"):
            assert cli.main(["study", command, str(out)]) == 1, command
            said = capsys.readouterr().err
            assert "is in use by another program, which still had it locked after 0 s; nothing in it is lost" in said
            assert "damaged" not in said
