"""``agileact lab`` as a user types it: in a process of its own, asked over HTTP, ended by Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from agileact.cli import main

COMMAND = [sys.executable, "-m", "agileact.cli", "lab", "--no-browser"]


def refused(capsys: pytest.CaptureFixture[str], *options: str | Path) -> str:
    """Return the one line that says why the command could not do it."""
    assert main(["lab", "--no-browser", *map(str, options)]) == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert errors.count("\n") == 1
    return errors


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a child's Ctrl-C is another signal on Windows")
def test_it_serves_this_machine_and_ends_on_ctrl_c(capsys):
    process = subprocess.Popen(
        [*COMMAND, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", said)
        assert found, said
        with urllib.request.urlopen(found[0], timeout=60) as answer:
            assert b"Agileact lab" in answer.read()
        foreign = urllib.request.Request(found[0], headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(foreign, timeout=60)
        assert refusal.value.code == 403
        refusal.value.close()
        message = refused(capsys, "--port", found[1])
        assert f"port {found[1]} of 127.0.0.1 is not available" in message
        assert "--port 0" in message
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=240)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "The lab has ended." in rest
    assert not errors


def test_a_wrong_checkpoint_is_an_error_before_anything_is_served(tmp_path, capsys):
    assert "there is no file" in refused(capsys, "--checkpoint", tmp_path / "model.pt")
    assert "there is no store.sqlite, model.safetensors or pytorch_model.bin in" in refused(capsys, "--store", tmp_path)


@pytest.mark.parametrize("port", ["x", "-1", "70000", "1.5"])
def test_a_wrong_port_is_a_sentence(port, capsys):
    with pytest.raises(SystemExit) as end:
        main(["lab", f"--port={port}"])
    assert end.value.code == 2
    assert "is not a port: a whole number from 0 to 65535" in capsys.readouterr().err


def test_without_dash_the_error_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "dash", None)
    assert 'pip install "agileact[lab]"' in refused(capsys, "--port", "0")
