"""What the commands print: tables for any name, width and encoding; one strict JSON document; errors of one line."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agileact._common.errors import MissingExtraError
from agileact._common.terminal import cell_width, format_json, print_json, print_table, printable
from agileact.bench import compile, monitor, step
from agileact.cli import main
from agileact.study.commands.yaml_file import read_study
from agileact.study.running.conduct import conduct, identified
from agileact.study.running.store import Store
from agileact.study.spec.record import write_record
from tests.study.builders import HereExecutor
from tests.test_cli import exit_code

ARM = "애자일 [red]x[/] :smile:"
STUDY = f"""
name: "연구 α"
arms: [relu, {{name: "{ARM}", arm: agile-relu}}]
tasks: [{{name: "짧은 과제", task: digits-mlp, budget: {{iterations: 10, evaluate_every: 5}}}}]
protocol: {{seeds: 2, trials: 1, tuning_seeds: 1, lr: [0.01]}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Run a study with names in Korean and in rich's markup, and return the arguments that name it."""
    folder = tmp_path_factory.mktemp("연구 폴더")
    (folder / "연구 α.yaml").write_text(STUDY, encoding="utf-8")
    out = folder / "결과" / "연구"
    study, data = identified(read_study(folder / "연구 α.yaml"))
    with Store(out / "store.sqlite") as store:
        assert conduct(study, store, HereExecutor()).finished
    descriptions = {name: one.description for name, one in data.items()}
    write_record(out, study, command="agileact study run", data=descriptions)
    return (str(folder / "연구 α.yaml"), "--out", str(out))


@pytest.mark.slow
def test_a_run_in_a_process_of_its_own_shows_the_names(tmp_path):
    (tmp_path / "연구 α.yaml").write_text(STUDY, encoding="utf-8")
    place = (str(tmp_path / "연구 α.yaml"), "--out", str(tmp_path / "결과" / "연구"))
    done = command("study", "run", *place, "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert ARM in done.stdout
    assert "짧은 과제" in done.stdout


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "agileact.cli", *arguments],
        **{"capture_output": True, "encoding": "utf-8", "timeout": 300, "check": False, **options},
    )
    assert "Traceback" not in str(done.stderr)
    return done


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    text = capsys.readouterr().out
    assert "\\u" not in text
    return json.loads(text, parse_constant=refuse)


# -- JSON ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["plan", "status", "show", "export"])
def test_each_action_on_a_study_prints_one_document(finished, capsys, action):
    found = document(capsys, "study", action, *finished)
    assert found["study"] == "연구 α"
    if action in ("show", "export"):
        assert ARM in {row["arm"] for row in found["trials" if action == "export" else "rows"]}
    if action == "export":
        assert len(found["trials"]) == 6
        assert found["file"] is None


def test_an_export_writes_a_file_and_prints_the_rows_too(finished, capsys, tmp_path):
    found = document(capsys, "study", "export", *finished, "--csv", str(tmp_path / "표.csv"))
    assert found["file"] == str(tmp_path / "표.csv")
    assert (tmp_path / "표.csv").read_text(encoding="utf-8").count(ARM) == 3


def test_a_report_and_a_rescue_say_what_they_wrote(finished, capsys, tmp_path):
    page, saved = tmp_path / "보고서.html", tmp_path / "saved.sqlite"
    assert document(capsys, "study", "report", *finished, "-o", str(page)) == {"study": "연구 α", "file": str(page)}
    found = document(capsys, "study", "rescue", finished[2], "-o", str(saved))
    assert found == {"trials": 6, "damaged": 0, "store": str(saved), "kept": None}


def test_doctor_and_xor_print_one_document(capsys, tmp_path):
    assert document(capsys, "doctor")["versions"]["agileact"]
    found = document(capsys, "xor", "--starts", "3", "--epochs", "5", "--out", str(tmp_path))
    assert found == json.loads((tmp_path / "xor.json").read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.mark.parametrize("kind", ["op", "step", "compile", "pool", "monitor"])
def test_benchmarks_print_one_document_or_tables(capsys, monkeypatch, kind):
    # Times are not what is tested here.
    for name in ("op", "step", "compile", "pool", "monitor"):
        monkeypatch.setattr(
            f"agileact.bench.{name}.interleaved", lambda contenders, **_: dict.fromkeys(contenders, 2.0)
        )
    for run in (compile.run, monitor.run, step.run):
        monkeypatch.setitem(run.__kwdefaults__, "models", ("paper",))
    monkeypatch.setitem(compile.run.__kwdefaults__, "backend", "eager")
    monkeypatch.setattr("agileact.bench.monitor.own_cost", lambda *_, **__: 1.0)
    monkeypatch.setattr("agileact.bench.op.SHAPES", (((2, 3, 4, 4), "contiguous", 1),))
    monkeypatch.setattr("agileact.bench.pool.SHAPES", ((2, 3, 4, 4),))
    monkeypatch.setattr("agileact.bench.step.RECIPES", {"three-layers": step.RECIPES["three-layers"]})
    found = document(capsys, "bench", kind, "--quick")
    assert found["benchmark"] == kind
    assert found["rows"]
    assert kind != "step" or {row["mode"] for row in found["recipe"]} == {"training", "evaluation, folded"}
    assert main(["bench", kind, "--quick"]) == 0
    printed = capsys.readouterr()
    assert f"agileact bench {kind}" in printed.out
    assert "ratio=" in printed.err
    assert "ratio=" not in printed.out


def test_compiled_code_of_each_instruction_set_has_a_cache_of_its_own(monkeypatch):
    folders = set()
    for capability in ("AVX2", "AVX512"):
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda chosen=capability: chosen)
        compile.run(models=())
        folders.add(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert len(folders) == 2


def test_json_is_strict_and_loses_nothing_in_another_encoding():
    assert (
        format_json({"a": [float("nan"), 1.0], "b": Path("x")}).replace("\n", "") == '{ "a": [  null,  1.0 ], "b": "x"}'
    )
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    print_json({"연구": "±"}, stream)
    assert isinstance(stream.buffer, io.BytesIO)
    assert json.loads(stream.buffer.getvalue().decode("ascii")) == {"연구": "±"}


# -- encodings -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_the_characters_tables_stay_aligned(finished):
    poor = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = command("study", "show", *finished, env=poor)
    assert done.returncode == 0, done.stderr
    drawn = [line if line.startswith(("|", "+")) else "" for line in done.stdout.splitlines()]
    tables = [list(lines) for inside, lines in itertools.groupby(drawn, key=bool) if inside]
    assert len(tables) == 2
    for lines in tables:
        assert len(lines) > 4
        assert len({len(line) for line in lines}) == 1
    assert done.stdout.isascii()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
def test_a_full_disk_behind_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = command("doctor", stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    assert done.stderr == "agileact: error: No space left on device\n"


# -- tables ----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> list[str]:
        """The lines without what colours them."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue()).splitlines()


@pytest.mark.parametrize("width", [50, 80, 160])
def test_wide_characters_and_markup_are_shown_as_they_are(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    rows = [("짧은 과제", ARM, "0.1"), ("긴", "[/]", "123.45")]
    print_table("표 [b]", ("과제", "arm", "손실"), rows, keys=2, stream=stream)
    text = "\n".join(stream.shown)
    assert all(cell in text for row in rows for cell in row)
    assert "표 [b]" in text
    assert len({cell_width(line) for line in stream.shown[1:]}) == 1
    assert max(map(cell_width, stream.shown)) <= width
    assert "  0.1 │" in text


def test_prose_is_wrapped_and_paths_are_not_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    path = "/a/long/path" * 8
    print_table("Title", ("what", "is"), [("library", path), ("x", "a b c")], keys=1, wrap=1, stream=stream)
    cells = [line.split("│")[2].strip() for line in stream.shown if line.count("│") == 3]
    assert "".join(cells) == path + "a b c"
    assert max(map(len, stream.shown)) <= 60


def test_a_table_that_just_fits_a_pipe_keeps_its_last_column():
    header = ["task", "arm", *(f"a name of words {index}" for index in range(8)), "seeds"]
    rows = [["x" * 12, "y" * 24, *["0.2565 ± 0.0"] * 8, "3"]]
    stream = io.StringIO()
    print_table("", header, rows, keys=2, stream=stream)
    assert "seeds" in stream.getvalue()
    assert max(map(len, stream.getvalue().splitlines())) <= 160


def test_what_the_end_of_a_run_needs_is_missed_before_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy", None)
    for arguments in (
        ("paper", "--preset", "smoke"),
        ("xor",),
        ("study", "run", "nowhere.yaml"),
        ("compare", "--model", "a:b", "--data", "c:d", "--arms", "relu,gelu"),
    ):
        assert main(list(arguments)) == 1
        extra = "paper" if arguments[0] in ("paper", "xor") else "study"
        printed = capsys.readouterr()
        assert "the package 'scipy', which is not installed" in printed.err
        assert printed.err.endswith(f'pip install "agileact[{extra}]"\n')
        assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_help_fits_the_terminal(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    for arguments in (["paper"], ["completion"], ["compare"], []):
        with pytest.raises(SystemExit):
            main([*arguments, "--help"])
        text = capsys.readouterr().out.split("\noptions:")[0]
        paragraph = text.split("\n\n")[1]
        assert max(map(len, paragraph.splitlines())) < int(columns)


def test_without_rich_the_table_is_plain_text(monkeypatch):
    def absent(module: str, extra: str) -> NoReturn:
        raise MissingExtraError(module)

    monkeypatch.setattr("agileact._common.terminal.require", absent)
    stream = io.StringIO()
    print_table("Title", ("이름", "n"), [("가나다", "1")], keys=1, stream=stream)
    assert stream.getvalue().splitlines() == ["Title", "이름    n", "------  -", "가나다  1"]


def test_names_cannot_move_the_cursor():
    assert printable("a\x1b[2Jb\n\u202ec") == "a\ufffd[2Jb\ufffd\ufffdc"
    assert printable("가") == "가"
    assert cell_width("가") == cell_width("가") == 2


# -- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["study"], 2, "ACTION"),
        (["study", "plan", "nowhere.yaml"], 1, "No such file"),
        (["study", "plan", "."], 1, "there is no study.json in ., so which study"),
        (["study", "show", "esc.yaml"], 1, r"control characters and line breaks cannot be part of it: 'a\x1bb'"),
        (["study", "plan", "half.yaml"], 1, "line 1: not YAML"),
        (["study", "export", "half.yaml"], 1, "give --csv FILE, --parquet FILE or --json"),
        (["study", "export", "half.yaml", "--csv", "-", "--json"], 1, "give one of them a file"),
        (["study", "show", "half.yaml", "--matters", "nan"], 2, "'nan' is not a difference greater than 0"),
        (["compare", "--model", "a:b", "--data", "c:d", "--arms", "relu"], 1, "at least two different arms"),
        (["compare", "--model", "a:b", "--data", "c:d", "--arms", "x", "--budget", "1x"], 2, "'1x' is not a time"),
        (["xor", "--optimizer", "x", "--json", "--out", "o"], 1, "optimizer must be one of"),
        (["xor", "--starts", "1", "--epochs", "1", "--out", "half.yaml/x"], 1, "Not a directory: half.yaml/x"),
        (["completion", "tcsh"], 2, "invalid choice: 'tcsh'"),
        (["bench", "op", "--out"], 2, "expected one argument"),
        (["st\x1b[31mudy"], 2, r"invalid choice: 'st\x1b[31mudy'"),
    ],
    ids=lambda value: " ".join(map(repr, value)) if isinstance(value, list) else None,
)
def test_errors_are_one_line_on_standard_error(tmp_path, monkeypatch, capsys, arguments, code, part):
    monkeypatch.chdir(tmp_path)
    Path("half.yaml").write_text("a: [")
    Path("esc.yaml").write_text('name: "a\\eb"\narms: [relu, gelu]\ntasks: [digits-mlp]\n')
    assert exit_code(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert part in printed.err
    assert len(printed.err.splitlines()) == 1
    assert "\x1b" not in printed.err


def test_help_says_what_the_exit_codes_mean(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n  {code} " in text for code in (0, 1, 2, 70, 130))
    assert "--json" in text


def test_an_error_of_our_own_is_told_from_one_of_the_user(monkeypatch, capsys):
    monkeypatch.setattr("agileact.doctor.report", lambda: 1 / 0)
    assert main(["doctor"]) == 70
    assert "internal error: ZeroDivisionError" in capsys.readouterr().err
    monkeypatch.setattr("agileact.doctor.report", lambda: (_ for _ in ()).throw(MemoryError))
    assert main(["doctor"]) == 1
    assert "out of memory" in capsys.readouterr().err
