"""A damaged store is found out, and all that can be read of it is saved."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agileact import cli
from agileact._common.errors import StoreError
from agileact.study.running import store as store_module
from agileact.study.running.rescue import rescue
from agileact.study.running.store import Store
from agileact.study.spec.result import Curve, TrialResult
from agileact.study.spec.trial import TrialSpec
from tests.study.builders import make_result, make_spec

PAGE = 4096


def long_result(seed: int, points: int) -> TrialResult:
    values = [1.0 / (1 + i + seed) for i in range(points)]
    return make_result(make_spec(seed), curve=Curve(list(range(points)), values, values), best_test_loss=seed + 0.5)


# Rows of a part of a page and rows of several pages, as of short and long trials.
RESULTS = {result.spec: result for result in (long_result(seed, (4, 300)[seed % 3 == 0]) for seed in range(24))}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store.sqlite"
    with Store(path) as store:
        for result in RESULTS.values():
            store.put(result)
    return path


def saved(path: Path) -> dict[TrialSpec, TrialResult]:
    with Store(path) as store:
        return {spec: found for spec in RESULTS if (found := store.get(spec)) is not None}


def pages_of_one_row(data: bytes, start: int, length: int) -> bool:
    """Whether what is overwritten is neither the header nor a page that leads to others."""
    first, last = start // PAGE, (start + length - 1) // PAGE
    return first > 0 and not {data[page * PAGE] for page in range(first, last + 1)} & {0x02, 0x05}


@settings(max_examples=40)
@given(st.floats(0, 1), st.binary(min_size=1, max_size=64))
@example(0.0, b"\0" * 64)
@example(0.0, b"SQLite format 3\0\x02\0\1\1\x30")  # another page size
def test_bytes_overwritten_anywhere_cost_the_rows_there(original: Path, place: float, junk: bytes):
    path = original.with_name("damaged.sqlite")
    before = original.read_bytes()
    data = bytearray(before)
    start = int(place * (len(data) - len(junk)))
    changed = bytes(data[start : start + len(junk)]) != junk
    data[start : start + len(junk)] = junk
    path.write_bytes(data)
    out = original.with_name("out.sqlite")
    out.unlink(missing_ok=True)
    small = pages_of_one_row(before, start, len(junk))
    try:
        rescue(path, out)
    except StoreError as error:
        if small or "can be read; the file was left as it is" not in str(error):
            raise
        return
    found = saved(out)
    # What is saved is what was stored; and no more is lost than what two neighbouring pages can hold of rows.
    assert all(RESULTS[spec] == result for spec, result in found.items())
    assert not small or len(found) >= len(RESULTS) - 2 * (PAGE // 1500)
    if changed and len(found) < len(RESULTS):
        with pytest.raises(StoreError, match="agileact study rescue"):
            saved(path)


@settings(max_examples=10)
@given(st.floats(0.4, 0.99))
def test_the_whole_rows_of_a_file_that_was_cut_short_are_saved(original: Path, share: float):
    path, out = original.with_name("cut.sqlite"), original.with_name("cut-out.sqlite")
    data = original.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    out.unlink(missing_ok=True)
    with pytest.raises(StoreError, match="agileact study rescue"), Store(path):
        pass
    done = rescue(path, out)
    found = saved(out)
    assert done.trials == len(found)
    assert all(RESULTS[spec] == result for spec, result in found.items())
    # Rows were written one behind the other: what lies before the cut is there, but for rows that go on behind it.
    assert len(found) >= share * len(RESULTS) - 8


WRONG = {
    "broken JSON": ("UPDATE trials SET result = substr(result, 1, 40) WHERE rowid = 3", "its result cannot be read"),
    "other JSON": ("UPDATE trials SET result = '[1]' WHERE rowid = 3", "its result cannot be read"),
    "another spec": (
        "UPDATE trials SET spec = (SELECT spec FROM trials WHERE rowid = 5) WHERE rowid = 3",
        "its key is not that of its spec",
    ),
    "another result": (
        "UPDATE trials SET result = (SELECT result FROM trials WHERE rowid = 5) WHERE rowid = 3",
        "its result is that of another trial",
    ),
    "another status": ("UPDATE trials SET status = 'diverged' WHERE rowid = 3", "its result is that of another trial"),
    "another digit": (
        "UPDATE trials SET result = replace(result, '2.5', '2.4') WHERE rowid = 3",
        "its result was changed after it was stored, as the checksum shows",
    ),
    "another checksum": (
        "UPDATE trials SET checksum = (SELECT checksum FROM trials WHERE rowid = 5) WHERE rowid = 3",
        "its result was changed after it was stored, as the checksum shows",
    ),
    "no text": ("UPDATE trials SET status = x'00' WHERE rowid = 3", "it is not text"),
}


@pytest.mark.parametrize("damage", WRONG)
def test_one_wrong_row_is_found_and_left_out_and_the_damaged_file_is_kept(tmp_path, original, damage, capsys):
    statement, words = WRONG[damage]
    path = tmp_path / "store.sqlite"
    shutil.copyfile(original, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    spec = list(RESULTS)[2]
    for read_only in (False, True):
        with Store(path, read_only=read_only) as store, pytest.raises(StoreError, match=words) as caught:
            store.get(spec)
        assert f"of trial '{spec.key}'" in str(caught.value)
        assert f"'agileact study rescue {path}'" in str(caught.value)
    before = path.read_bytes()
    assert cli.main(["study", "rescue", str(tmp_path)]) == 0  # its folder will do
    said = capsys.readouterr().out
    assert said == (
        f"23 trial(s) saved in {path}; 1 damaged one(s) left out, to be run again. "
        f"The damaged file is kept as {path}.damaged-1.\n"
    )
    assert (tmp_path / "store.sqlite.damaged-1").read_bytes() == before
    assert saved(path) == {other: result for other, result in RESULTS.items() if other != spec}
    with Store(path) as store:
        store.put(RESULTS[spec])
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "store.sqlite",
        "store.sqlite.lock",
        "store.sqlite.damaged-1",
    }


@pytest.mark.parametrize("digest", ["", ", digest TEXT"])
def test_a_store_of_before_can_be_read_continued_and_rescued(tmp_path, digest):
    path = tmp_path / "s"
    result, other = make_result(make_spec()), make_result(make_spec(1))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE trials (key TEXT PRIMARY KEY, spec TEXT NOT NULL, status TEXT NOT NULL, result TEXT NOT NULL,"
            f" stored_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')){digest})"
        )
        row = (result.spec.key, result.spec.to_json(), result.status, result.to_json())
        connection.execute("INSERT INTO trials (key, spec, status, result) VALUES (?, ?, ?, ?)", row)
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    with Store(path, read_only=True) as store:
        assert store.get(result.spec) == result
    shutil.copyfile(path, tmp_path / "untouched")
    assert rescue(tmp_path / "untouched", tmp_path / "saved").trials == 1
    with Store(path) as store:
        store.put(other)
    with closing(sqlite3.connect(path)) as connection:
        stored = connection.execute("SELECT checksum IS NULL FROM trials ORDER BY rowid").fetchall()
    assert stored == [(1,), (0,)]
    rescue(path, tmp_path / "other")
    for name in ("s", "other"):
        with Store(tmp_path / name) as store:
            assert store.collect([result.spec, other.spec]) == [result, other]


def test_what_a_killed_process_had_half_written_is_taken_back_not_played_into_the_new_store(tmp_path, original):
    path = tmp_path / "store.sqlite"
    shutil.copyfile(original, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")  # so that changed pages reach the file before the commit
        connection.execute("BEGIN")
        connection.execute("UPDATE trials SET result = replace(result, '0.5', '0.4')")
        shutil.copyfile(path, tmp_path / "half")
        shutil.copyfile(f"{path}-journal", tmp_path / "half-journal")
    rescue(tmp_path / "half")
    assert saved(tmp_path / "half") == RESULTS
    assert (tmp_path / "half.damaged-1-journal").exists()
    assert not (tmp_path / "half-journal").exists()


def test_what_cannot_be_rescued_is_left_as_it_is(tmp_path, original, capsys):
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"no store at all" * 1000)
    with pytest.raises(StoreError, match=r"no trial in .* can be read; the file was left as it is. Move"):
        rescue(path)
    assert path.read_bytes() == b"no store at all" * 1000
    assert cli.main(["study", "rescue", str(tmp_path / "nothing")]) == 1
    assert "there is no store of trials at" in capsys.readouterr().err
    shutil.copyfile(original, path)
    with pytest.raises(StoreError, match="exists already"):
        rescue(path, path)
    with Store(path), pytest.raises(StoreError, match="in use by process"):
        rescue(path)


def test_a_store_that_another_program_has_locked_is_not_taken_away_from_it(tmp_path, original, monkeypatch):
    monkeypatch.setattr(store_module, "SECONDS_TO_WAIT", 0.1)
    path = tmp_path / "store.sqlite"
    shutil.copyfile(original, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM trials").fetchone() == (24,)  # a mere reader
        with pytest.raises(StoreError, match="is in use by another program"):
            rescue(path)
    assert rescue(path).trials == 24
