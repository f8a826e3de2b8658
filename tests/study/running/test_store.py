from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from agileact._common.errors import StoreError
from agileact.study.running import store as store_module
from agileact.study.running.store import Store
from tests.study.builders import make_result, make_spec


def test_results_come_back_after_reopening(tmp_path):
    spec = make_spec()
    with Store(tmp_path / "deep" / "store.sqlite") as store:
        assert spec not in store
        assert store.get(spec) is None
        store.put(make_result(spec))
    with Store(tmp_path / "deep" / "store.sqlite") as store:
        assert spec in store
        assert store.get(spec) == make_result(spec)
        assert store.collect([make_spec(1), spec]) == [make_result(spec)]
        assert len(store) == 1


def test_a_runner_killed_in_the_middle_of_a_write_does_not_keep_others_from_looking(tmp_path):
    spec = make_spec()
    with Store(tmp_path / "s") as store:
        store.put(make_result(spec))
    writer = sqlite3.connect(tmp_path / "s", isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")  # so that pages reach the file before the commit
    writer.execute("BEGIN IMMEDIATE")
    row = "INSERT INTO trials (key, spec, status, result) VALUES (?, '', '', ?)"
    writer.executemany(row, [(str(number), "x" * 5000) for number in range(50)])
    # What lies on the disk now is what a killed process leaves.
    for name in ("s", "s-journal"):
        shutil.copy(tmp_path / name, tmp_path / name.replace("s", "killed", 1))
    writer.close()
    assert (tmp_path / "killed-journal").stat().st_size
    with Store(tmp_path / "killed", read_only=True) as store:
        assert store.specs() == [spec]
        assert store.get(spec) == make_result(spec)
        with pytest.raises(StoreError, match="readonly"):
            store.put(make_result(make_spec(1)))


def test_a_trial_is_on_the_disk_before_the_runner_goes_on(tmp_path):
    # No test can cut the power: SQLite itself waits for the disk where this says 2 (full).
    with Store(tmp_path / "s") as store:
        assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_trial_is_stored_once(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put(make_result(make_spec()))
        with pytest.raises(StoreError, match="already"):
            store.put(make_result(make_spec(), best_test_loss=0.0))
        assert store.collect([make_spec()])[0].best_test_loss == 1.1


def test_a_second_owner_is_refused_and_told_who_holds_it(tmp_path):
    with Store(tmp_path / "s"), pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
        Store(tmp_path / "s")
    with Store(tmp_path / "s"):
        pass


@pytest.mark.slow
def test_a_killed_owner_leaves_no_lock_and_no_half_trial(tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from agileact.study.running.store import Store\n"
        "from tests.study.builders import make_result, make_spec\n"
        f"store = Store(Path({str(tmp_path)!r}) / 's')\n"
        "store.put(make_result(make_spec()))\n"
        "store._connection.execute('BEGIN')\n"
        "half = \"SELECT 'half', spec, status, result, stored_at, checksum FROM trials\"\n"
        "store._connection.execute('INSERT INTO trials ' + half)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Store(tmp_path / "s") as store:
        assert make_spec() in store
        assert len(store) == 1


@pytest.mark.parametrize("statement", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
def test_a_store_that_another_program_has_locked_is_in_use_and_never_damaged(tmp_path, monkeypatch, statement):
    monkeypatch.setattr(store_module, "SECONDS_TO_WAIT", 0.1)
    with Store(tmp_path / "s") as store:
        store.put(make_result(make_spec()))
    with closing(sqlite3.connect(tmp_path / "s", isolation_level=None)) as other:
        other.execute(statement)
        with pytest.raises(StoreError, match=r"is in use by another program.*close that program") as caught:
            Store(tmp_path / "s")
        assert "rescue" not in str(caught.value)


def test_a_readers_open_transaction_is_waited_for_and_then_named(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "SECONDS_TO_WAIT", 1.0)
    with (
        Store(tmp_path / "s") as store,
        closing(sqlite3.connect(tmp_path / "s", isolation_level=None, check_same_thread=False)) as other,
    ):
        store.put(make_result(make_spec()))
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM trials").fetchone() == (1,)
        with pytest.raises(StoreError, match="is in use by another program"):
            store.put(make_result(make_spec(1)))
        ends = threading.Timer(0.3, other.execute, ["COMMIT"])
        ends.start()
        store.put(make_result(make_spec(1)))
        ends.join()
        assert len(store) == 2


def test_a_store_that_is_deleted_while_it_is_in_use_is_said_to_be(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put(make_result(make_spec()))
        (tmp_path / "s").unlink()
        with pytest.raises(StoreError, match="was deleted or moved away while it was in use"):
            store.put(make_result(make_spec(1)))


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to look at", b"SQLite format 3\0" + b"x" * 500]
)
def test_a_file_that_is_no_store_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="cannot be read as a store"):
        Store(path)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(tmp_path):
    connection = sqlite3.connect(tmp_path / "s")
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="not a store of trials"):
        Store(tmp_path / "s")


def test_a_newer_schema_is_refused(tmp_path):
    with Store(tmp_path / "s"):
        pass
    connection = sqlite3.connect(tmp_path / "s")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="schema 99"):
        Store(tmp_path / "s")


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write in"):
        Store(tmp_path / "file" / "below" / "s")


def test_a_write_that_the_disk_refuses_loses_nothing(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put(make_result(make_spec()))
        store._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(StoreError, match="what was stored before is kept"):
            store.put(make_result(make_spec(1)))
    with Store(Path(tmp_path / "s")) as store:
        assert len(store) == 1


def test_several_are_stored_together_or_not_at_all(tmp_path: Path):
    with Store(tmp_path / "s") as store:
        store.put(make_result(make_spec(1)))
        with pytest.raises(StoreError, match=f"trial {make_spec(1).key} is in"):
            store.put(make_result(make_spec(0)), make_result(make_spec(1)), make_result(make_spec(2)))
        assert [make_spec(seed) in store for seed in range(3)] == [False, True, False]
        store.put(make_result(make_spec(0)), make_result(make_spec(2)))
        assert len(store) == 3
