from __future__ import annotations

import os
from pathlib import Path

import pytest

from agileact._common.files import write_atomically


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(Path("there") / "note.txt")
    for text in ("first", "second"):
        write_atomically(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "note.txt").read_text() == text
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["note.txt"]


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, "연구")
        assert os.read(reader, 100).decode() == "연구"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_an_error_names_what_was_to_be_written(tmp_path: Path):
    with pytest.raises(IsADirectoryError) as caught:
        write_atomically(tmp_path, "text")
    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
