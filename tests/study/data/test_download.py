from __future__ import annotations

import gzip
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agileact._common.errors import ArgumentError, DataError
from agileact.study.data.download import cache_dir, console_progress, download
from tests.commands import ROOT

from .loopback import Server, serving

CONTENT = random.Random(0).randbytes(200_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with serving({"digits": CONTENT}) as server:
        yield server


def fetch(server: Server, folder: Path, **options: Any) -> Path:
    urls = options.pop("urls", [f"{server.url}/digits"])
    defaults = {"sha256": SHA256, "progress": lambda *_: None, "backoff": 0.0, "timeout": 5.0}
    return download(urls, folder / "cache" / "digits", **{**defaults, **options})


def left(folder: Path) -> set[str]:
    return {path.name for path in (folder / "cache").iterdir() if not path.name.endswith(".lock")}


def test_downloads_once(server: Server, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int | None]] = []
    path = fetch(server, tmp_path, progress=lambda *call: calls.append(call))
    assert path.read_bytes() == CONTENT
    assert left(tmp_path) == {"digits"}
    assert calls[0] == ("digits", 0, len(CONTENT))
    assert calls[-1] == ("digits", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert fetch(server, tmp_path) == path
    assert len(server.requests) == 1


@pytest.mark.parametrize("script", [[1000, 50_000], [0, 0, 199_999], ["500", 1000, "503"]])
def test_tries_again_after_dropped_connections(server: Server, tmp_path: Path, script: list[int | str]) -> None:
    server.script = list(script)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == len(script) + 1
    assert left(tmp_path) == {"digits"}


def test_what_was_cut_off_leaves_nothing_and_says_so(server: Server, tmp_path: Path) -> None:
    server.script = [120_000]
    with pytest.raises(DataError, match=r"120000 bytes read, 80000 more expected.*Run the same command again"):
        fetch(server, tmp_path, attempts=1)
    assert left(tmp_path) == set()
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_unannounced_length(server: Server, tmp_path: Path) -> None:
    server.script = ["cut", "no-length"]  # what was cut off looks whole, but the checksum is wrong
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_stalled_server_times_out_and_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.script = ["stall"]
    assert fetch(server, tmp_path, timeout=1.0).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_waits_longer_before_each_attempt(server: Server, tmp_path: Path) -> None:
    server.script = ["503", "503", "503"]
    started = time.monotonic()
    fetch(server, tmp_path, backoff=0.05)
    assert time.monotonic() - started >= 0.05 + 0.1 + 0.2


def test_wrong_content_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files["digits"] = b"<html>please log in</html>"
    with pytest.raises(DataError, match=rf"wrong content: SHA-256 [0-9a-f]{{64}}, expected {SHA256}"):
        fetch(server, tmp_path)
    assert left(tmp_path) == set()
    assert len(server.requests) == 1  # asking again would not help


def test_next_mirror(server: Server, tmp_path: Path) -> None:
    server.files["other"] = gzip.compress(b"other content")
    urls = [f"{server.url}/{name}" for name in ("missing", "other", "digits")]
    assert fetch(server, tmp_path, urls=urls).read_bytes() == CONTENT
    assert server.requests == ["/missing", "/other", "/digits"]


def test_all_mirrors_are_named_with_what_they_gave(server: Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/digits"
    server.script = ["503", "503", "404"]
    urls = [f"{server.url}/digits", f"{server.url}/digits?again", closed]
    with pytest.raises(DataError) as caught:
        fetch(server, tmp_path, urls=urls, attempts=2)
    text = str(caught.value)
    assert all(url in text for url in urls)
    assert all(what in text for what in ("HTTP status 503", "HTTP status 404", "refused", "put the file at"))
    assert left(tmp_path) == set()


def test_compressed_content_is_checked_after_decompression(server: Server, tmp_path: Path) -> None:
    for level in (1, 9):
        server.files["digits"] = gzip.compress(CONTENT, compresslevel=level)
        fetch(server, tmp_path).unlink()
    server.files["digits"] = gzip.compress(CONTENT)[:-9]
    with pytest.raises(DataError, match=r"wrong content: .*truncated"):
        fetch(server, tmp_path)
    assert left(tmp_path) == set()


@pytest.mark.parametrize("word", ["", "endless"])
def test_too_long(server: Server, tmp_path: Path, word: str) -> None:
    server.script = [word]
    with pytest.raises(DataError, match="more than the limit of 100,000"):
        fetch(server, tmp_path, max_bytes=100_000)
    assert left(tmp_path) == set()


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="must start with https"):
        download([(tmp_path / "digits").as_uri()], tmp_path / "copy", sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(DataError, match="cannot be written"):
        fetch(server, tmp_path)
    assert server.requests == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_full_disk_is_not_taken_for_a_broken_connection(server: Server, tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DataError, match="cannot be written: File too large"):
            fetch(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(server.requests) == 1
    assert left(tmp_path) == set()


def test_several_at_once_do_not_disturb_each_other(server: Server, tmp_path: Path) -> None:
    server.script = ["stall"]
    paths: list[Path] = []

    def work() -> None:
        paths.append(fetch(server, tmp_path, timeout=1.0))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [tmp_path / "cache" / "digits"] * 3
    assert paths[0].read_bytes() == CONTENT
    assert left(tmp_path) == {"digits"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signal.SIGKILL is missing on Windows")
def test_killed_process_leaves_no_file_of_that_name(server: Server, tmp_path: Path) -> None:
    server.script = ["stall"]
    code = (
        "import pathlib, sys; from agileact.study.data.download import download\n"
        "download([sys.argv[1]], pathlib.Path(sys.argv[2]), sha256=sys.argv[3], timeout=60)"
    )
    target = tmp_path / "cache" / "digits"
    source = ROOT / "src"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code, f"{server.url}/digits", str(target), SHA256]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        give_up = time.monotonic() + 240
        while not server.sent and time.monotonic() < give_up:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert server.sent
    assert not target.exists()
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_plain_progress_prints_a_line_at_each_quarter(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(server, tmp_path, progress=None)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5
    assert lines[0] == "downloading digits: 0 of 200,000 bytes"
    assert lines[-1] == "downloading digits: 200,000 of 200,000 bytes"


def test_terminal_progress_draws_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich", reason="the package rich is missing")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with console_progress() as progress:
        progress("digits", 0, 100)
        progress("digits", 100, 100)
    shown = capsys.readouterr().err
    assert "digits" in shown
    assert "100%" in shown


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the platform has its own folder for caches")
def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AGILEACT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_dir() == tmp_path / ".cache" / "agileact"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_dir() == tmp_path / "x" / "agileact"
    monkeypatch.setenv("AGILEACT_CACHE", "~/mine")
    assert cache_dir() == tmp_path / "mine"
