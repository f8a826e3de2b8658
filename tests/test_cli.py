"""The command line as a user types it: in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agileact.cli import _parser, main

SMALL = ["--iterations", "20", "--evaluate-every", "10", "--conv", "relu,agile-relu", "--fc", "agile-sigmoid"]
TINY = [*SMALL, "--filters", "3,2", "--nodes", "5"]


def agileact(*arguments: str | Path, check: int | None = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agileact.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    if check is not None:
        assert done.returncode == check, done.stderr
    assert "Traceback" not in done.stderr
    return done


def exit_code(arguments: list[str]) -> object:
    """What the command ends with when it is called in this process, which has PyTorch already."""
    try:
        return main(arguments)
    except SystemExit as left:
        return left.code


def numbers(out: Path) -> list[Any]:
    document = json.loads((out / "results.json").read_text())
    rows = [*document["rows"], *document["fully_connected"]]
    return [{k: v for k, v in row.items() if k != "seconds_per_iteration"} for row in rows]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("paper") / "논문 run"
    done = agileact("paper", "--preset", "smoke", *SMALL, "--seeds", "2", "--out", out)
    return out, done


@pytest.mark.slow
def test_a_run_writes_everything_it_promises(small_run):
    out, done = small_run
    document = json.loads((out / "results.json").read_text())
    assert "The paper's twelve networks" in (out / "report.html").read_text(encoding="utf-8")
    assert document["dataset"] == "mnist5k-split"
    assert set(document["versions"]) == {"agileact", "numpy", "python", "torch"}
    assert [(r["conv"], r["fc"], r["seed"]) for r in document["rows"]] == [
        ("relu", "agile-sigmoid", 0),
        ("agile-relu", "agile-sigmoid", 0),
        ("relu", "agile-sigmoid", 1),
        ("agile-relu", "agile-sigmoid", 1),
    ]
    for row in document["rows"]:
        assert 0 < row["best_test_loss"] <= row["selected_test_loss"]
        assert row["best_iteration"] in (0, 10, 20)
        assert 0 <= row["selected_test_accuracy"] <= 1
    assert len(document["fully_connected"]) == 4
    table = (out / "table.md").read_text()
    assert "0.14456" not in table  # sigmoid - agile-sigmoid was not run
    assert "0.16031" in table
    assert "mnist5k-split" in table
    assert "mnist5k-split" in done.stdout
    figures = {path.name for path in (out / "figures").iterdir()}
    for number in ("02", "04", "05", "06", "09", "11", "12", "13", "14"):
        assert {f"figure-{number}.png", f"figure-{number}.svg"} <= figures


@pytest.mark.slow
def test_progress_off_a_terminal_is_plain_lines_on_stderr(small_run):
    _, done = small_run
    assert "1 of 8 trials, about " in done.stderr
    assert "8 of 8 trials, in " in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    assert "lowest test loss" in done.stderr


@pytest.mark.slow
def test_a_second_call_runs_nothing_and_gives_the_same(small_run):
    out, _ = small_run
    before = numbers(out)
    done = agileact("paper", "--preset", "smoke", *SMALL, "--seeds", "2", "--out", out, "--json")
    assert "8 of them stored already" in done.stderr
    assert "of 8 trials" not in done.stderr
    assert numbers(out) == before
    assert [r["trial"] for r in json.loads(done.stdout)["rows"]] == [r["trial"] for r in before[:4]]


@pytest.mark.slow
def test_other_seeds_and_jobs_add_to_what_was_done(small_run):
    out, _ = small_run
    before = {row["trial"]: row for row in numbers(out)}
    done = agileact("paper", "--preset", "smoke", *SMALL, "--seeds", "1-2", "--jobs", "1", "--out", out)
    assert "4 of them stored already" in done.stderr
    after = numbers(out)
    assert sorted({row["seed"] for row in after}) == [1, 2]
    assert all(row == before[row["trial"]] for row in after if row["seed"] == 1)


@pytest.mark.slow
def test_kill_9_and_the_same_command_ends_with_the_numbers_of_an_unbroken_run(tmp_path):
    options = ["paper", "--preset", "smoke", *TINY, "--seeds", "2", "--jobs", "2", "--out"]
    agileact(*options, tmp_path / "whole")
    for stored in (0, 1):
        command = [sys.executable, "-m", "agileact.cli", *options, str(tmp_path / "broken")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(f"{stored} of ") or stored == 0:
                break
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "broken" / "results.json").exists()
    done = agileact(*options, tmp_path / "broken")
    assert "stored already" in done.stderr
    assert numbers(tmp_path / "broken") == numbers(tmp_path / "whole")


@pytest.mark.slow
def test_ctrl_c_stops_at_once_and_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "agileact.cli", "paper", "--iterations", "100000", "--out", str(tmp_path / "o")]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # A shell without job control has its background processes, and theirs, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "side by side" in line:
            break
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("agileact: stopped; finished trials are stored")
    assert "Traceback" not in errors
    # What is there can be watched and reported, while it runs too.
    assert "0 of at most 12 trials done" in agileact("study", "status", tmp_path / "o").stdout


@pytest.mark.parametrize(("module", "code"), [("shlex", -signal.SIGINT), ("torch", 130)])  # before main, and in it
def test_ctrl_c_while_modules_are_imported_is_one_line(module, code, tmp_path):
    # In the module's place one that waits, so that the moment is the same on every machine.
    (tmp_path / f"{module}.py").write_text("import time\nprint('waiting', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "agileact.cli", "doctor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors == "agileact: stopped\n"
    assert process.returncode == code  # a shell says 130 to both


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["paper", "--preset", "quik"], 1, "did you mean 'quick'"),
        (["paper", "--seeds", "x"], 2, "'x' is not a number of seeds (5), a list (0,3,7) or a range (0-4)"),
        (["paper", "--seeds", "99999999999999999999"], 2, "at most 10,000 seeds"),
        (["paper", "--lr", "-1"], 2, "'-1' is not a learning rate greater than 0"),
        (["paper", "--lr", "nan"], 2, "not a learning rate"),
        (["paper", "--iterations", "0"], 2, "'0' is not a whole number greater than 0"),
        (["paper", "--optimizer", "adm"], 1, "did you mean 'adam'"),
        (["paper", "--data", "mnist"], 1, "mnist5k"),
        (["paper", "--conv", "rleu"], 1, "did you mean 'relu'"),
        (["paper", "--pooling", "9"], 1, "leaves nothing of a 28x28 image"),
        (["paper", "--data-dir", "nowhere"], 1, "nowhere"),
        (["paper", "--validation", "4000"], 1, "not 4,000"),
        (["xor", "--base", "sigmod"], 1, "did you mean 'sigmoid'"),
        (["xor", "--starts", "0"], 2, "'0' is not a whole number"),
        (["papr"], 2, "invalid choice"),
    ],
)
def test_errors_are_one_line_with_the_right_code(tmp_path, monkeypatch, capsys, arguments, code, part):
    monkeypatch.chdir(tmp_path)
    assert exit_code(arguments) == code
    printed = capsys.readouterr()
    assert part in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [(["paper", "--preset", "quik"], 1, "did you mean 'quick'"), (["papr"], 2, "invalid choice")],
)
def test_a_shell_sees_the_code_and_one_line(tmp_path, arguments, code, part):
    done = agileact(*arguments, check=code, cwd=tmp_path)
    assert part in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.slow
def test_an_output_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    done = agileact("paper", "--preset", "smoke", "--out", tmp_path / "file", check=1)
    assert "cannot write" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_a_folder_that_the_system_refuses_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    done = agileact("xor", "--starts", "2", "--epochs", "2", "--out", tmp_path / "file" / "below", check=1)
    assert done.stderr.startswith("agileact: error: Not a directory: ")
    assert len(done.stderr.splitlines()) == 1


def test_alone_it_greets_in_ten_lines_with_three_commands_that_parse(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 10
    shown = [re.split(r"  +", line.strip())[0] for line in lines if line.startswith("  agileact ")]
    assert len(shown) == 3
    assert all(_parser().parse_args(shlex.split(command)[1:]).run for command in shown)


@pytest.mark.slow
def test_help_explains_itself():
    whole = agileact("--help").stdout
    assert "paper" in whole
    assert "xor" in whole
    paper = agileact("paper", "--help").stdout
    for word in ("smoke", "quick", "full", "--seeds", "--activation-lr", "mnist5k-split", "--jobs", "continues"):
        assert word in paper
    assert "--starts" in agileact("xor", "--help").stdout
    assert agileact("--version").stdout.startswith("agileact 0.")


@pytest.mark.slow
def test_xor_prints_rates_and_writes_its_figure(tmp_path):
    done = agileact("xor", "--starts", "20", "--epochs", "300", "--out", tmp_path)
    assert "solved" in done.stdout
    assert "sigmoid" in done.stdout
    assert (tmp_path / "figure-04.png").stat().st_size > 10_000
    document = json.loads(agileact("xor", "--starts", "20", "--epochs", "300", "--out", tmp_path, "--json").stdout)
    assert document == json.loads((tmp_path / "xor.json").read_text())


@pytest.mark.slow
def test_a_closed_pipe_is_no_error_message(tmp_path):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = f"{sys.executable} -m agileact.cli xor --starts 5 --epochs 5 --out {tmp_path} --json | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.slow
def test_without_the_extra_the_error_names_it(tmp_path):
    code = (
        "import sys\n"
        "sys.modules['mlxtend'] = None\n"
        "from agileact.cli import _parser, main\n"
        f"sys.exit(main(['paper', '--preset', 'smoke', '--out', {str(tmp_path / 'o')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install "agileact[study]"' in done.stderr


def test_a_missing_torch_is_one_line_that_says_what_to_install(monkeypatch, capsys):
    # As after `pip install --no-deps`: a value of None makes an import fail as if the package were not there.
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "agileact.doctor", raising=False)
    assert main(["doctor"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "needs torch, which is not installed: pip install torch" in error
