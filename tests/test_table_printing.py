from __future__ import annotations

import io
import re

import pytest

from agileact._common.terminal import print_table

HEADER = ("n", "convolutional", "lowest test loss", "at iteration", "accuracy, %")
ROWS = [("1", "agile-sigmoid", "0.1500 ± 0.0200", "9800 ± 200", "96.20 ± 0.20"), ("–", "relu", "0.1", "5", "9")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_number_is_cut_at_any_width(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    print_table("Title", HEADER, ROWS, keys=2, stream=stream)
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert all(cell in text for row in ROWS for cell in row)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    assert text.count("agile-sigmoid") == text.count("┏")


def test_a_pipe_gets_one_table():
    stream = io.StringIO()
    print_table("Title", HEADER, ROWS, keys=2, stream=stream)
    assert stream.getvalue().count("┏") == 1
    assert "\x1b" not in stream.getvalue()
