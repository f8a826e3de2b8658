"""Completion as a shell does it: a real shell loads the script, and Tab is pressed."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("shtab", reason='shtab is not installed: pip install "agileact[completion]"')

from agileact.cli import _parser
from agileact.completion import SHELLS, script

# What is typed, and words that must, and one that must not, be offered.
CASES = (
    ("agileact ", {"paper", "xor", "study", "compare", "bench", "doctor", "completion"}, "plan"),
    ("agileact study ", {"plan", "run", "status", "show", "export"}, "paper"),
    ("agileact study pl", {"plan"}, "run"),
    ("agileact study plan --da", {"--data-dir"}, "--matters"),
    ("agileact study plan ", {"연구.yaml"}, "notes.txt"),
    ("agileact paper --preset ", {"smoke", "quick", "full"}, "paper"),
    ("agileact paper --conv relu,agile-re", {"relu,agile-relu"}, "relu"),
    ("agileact paper --data mnist5k", {"mnist5k-split"}, "digits"),
    ("agileact compare --arms relu,agile-relu+fro", {"relu,agile-relu+frozen"}, "frozen"),
    ("agileact compare --arms pr", {"prelu"}, "relu"),
    ("agileact xor --base sig", {"sigmoid"}, "relu"),
    ("agileact xor --optimizer ", {"adam", "sgd"}, "momentum"),
    ("agileact bench ", {"op", "step", "compile", "pool", "monitor"}, "run"),
    ("agileact completion ", set(SHELLS), "tcsh"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        (found / shell).write_text(script(_parser(), shell), encoding="utf-8")
    (found / "연구.yaml").touch()
    (found / "notes.txt").touch()
    return found


def has(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed: apt-get install {shell}")
    return path


def offered(lines: str) -> list[set[str]]:
    return [set(part.split("\n")) - {""} for part in lines.split("---\n")[1:]]


def test_bash_offers_what_fits(folder):
    # The words of a line as bash would set them, and the function that it would call for Tab.
    calls = "".join(
        f"COMP_WORDS=({words}); COMP_CWORD={len(line.split(' ')) - 1}; COMPREPLY=(); _shtab_agileact; "
        "echo ---; printf '%s\\n' \"${COMPREPLY[@]}\"\n"
        for line, _, _ in CASES
        for words in [" ".join(f"'{word}'" for word in line.split(" "))]
    )
    text = f"source {folder / 'bash'}\ncd {folder}\ncompopt() {{ :; }}\n{calls}"
    done = subprocess.run([has("bash"), "--norc", "-c", text], capture_output=True, text=True, check=True, timeout=120)
    check(offered(done.stdout))
    assert "_shtab_agileact agileact" in (folder / "bash").read_text()


def test_fish_offers_what_fits(folder):
    calls = "".join(f"echo ---; complete -C '{line}' | string replace -r '\\t.*' ''\n" for line, _, _ in CASES)
    text = f"function agileact; end; source {folder / 'fish'}; cd {folder}\n{calls}"
    environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    done = subprocess.run(
        [has("fish"), "--no-config", "-c", text],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environment,
    )
    check(offered(done.stdout))


def check(found: list[set[str]]) -> None:
    assert len(found) == len(CASES)
    for words, (line, wanted, other) in zip(found, CASES, strict=True):
        assert wanted <= words, line
        assert other not in words, line


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab_completes_in_a_terminal(folder, shell):
    """Press Tab where one completion fits, and see it written out by the shell."""
    if shell == "bash":
        command = [has("bash"), "--norc", "-i"]
        start = f"cd {folder}; source ./bash; PS1='ready> '\n"
    else:
        command = [has("zsh"), "-f", "-i"]
        shutil.copyfile(folder / "zsh", folder / "_agileact")
        start = f"cd {folder}; fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D; PS1='ready> '\n"
    child, terminal = pty.fork()
    if child == 0:
        os.environ |= {"TERM": "dumb", "LC_ALL": "C.UTF-8", "COLUMNS": "200"}
        os.execv(command[0], command)
    try:
        os.write(terminal, start.encode())
        read_until(terminal, "ready> $")
        for typed, completed in (
            ("agileact comple", "agileact completion "),
            ("agileact paper --pre", "agileact paper --preset "),
            ("agileact paper --preset smo", "agileact paper --preset smoke "),
            ("agileact study plan 연", "agileact study plan 연구.yaml "),
            ("agileact paper --conv relu,agile-sil", "agileact paper --conv relu,agile-silu"),
            ("agileact compare --arms agile-relu+calib", "agileact compare --arms agile-relu+calibrated"),
        ):
            os.write(terminal, f"{typed}\t".encode())
            read_until(terminal, re.escape(completed))
            os.write(terminal, b"\x15")  # Ctrl-U: the line is gone
    finally:
        os.close(terminal)  # hangs up, which ends the shell
        os.waitpid(child, 0)


def read_until(terminal: int, pattern: str) -> None:
    """Read what the shell writes until it matches; what it writes to erase and redraw does not count."""
    seen = b""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.5)[0]:
            seen += os.read(terminal, 4096)
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\a\r]", "", seen.decode(errors="replace"))
        while "\b" in text:
            text = re.sub(r"[^\b]\b|^\b", "", text, count=1)
        if re.search(pattern, text):
            return
    raise AssertionError(f"the shell wrote {text!r}, not {pattern!r}")
