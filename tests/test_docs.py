"""The pages of docs/ run, parse and link as printed; what the site makes while it is built is right."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import runpy
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import torch

import agileact as ag
from agileact.cli import _parser, main
from agileact.paper.figures.networks import stages
from agileact.study import models
from agileact.study.commands.yaml_file import read_study
from agileact.study.data.objective import OPTIONS
from agileact.study.models import paper_cnn
from agileact.study.spec.arms import modifiers
from agileact.study.spec.protocol import Protocol
from agileact.study.spec.space import NAMES
from agileact.study.spec.trial import ArmSpec, Budget
from tests.commands import LANGUAGES, PAGES, README, ROOT, blocks, commands, fences, lines, name

DOCS = ROOT / "docs"
SHELLS_OWN = ("autoload", "fpath=(~/.zfunc", "mkdir", "pip", "ray")


def hook(module: str) -> ModuleType:
    """Load a module of docs/hooks, which is no package, as MkDocs does."""
    spec = importlib.util.spec_from_file_location(module, DOCS / "hooks" / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(DOCS / "hooks"))
    try:
        spec.loader.exec_module(loaded)
    finally:
        sys.path.remove(str(DOCS / "hooks"))
    return loaded


# -- code ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path, "python")], ids=name)
def test_the_code_of_a_page_runs_from_its_top_to_its_end(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # From a file, as users run it: convert reads the source of methods.
    script = tmp_path / "script.py"
    script.write_text("\n".join(blocks(path, "python")), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        # torch.export and the ONNX exporter call what PyTorch itself has deprecated.
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch|typing_extensions|copyreg|copy")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch|onnxscript")
        runpy.run_path(str(script))


def test_the_commands_of_the_pages_parse():
    typed = [(name(path), command) for path in PAGES for command in commands(path)]
    assert len(typed) > 40
    for path, command in typed:
        assert _parser().parse_args(command).run, (path, command)


def test_nothing_that_a_page_shows_goes_unchecked():
    for path in (README, ROOT / "CONTRIBUTING.md", *PAGES):
        # A block in another language would run in no test.
        assert [language for language, _ in fences(path) if language not in LANGUAGES] == [], name(path)
        assert path.read_text(encoding="utf-8").count("```") == 2 * len(fences(path)), name(path)


def test_what_else_the_pages_type_is_there():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for path in (README, *PAGES):
        for program, *words in lines(path):
            if program == "make":
                assert targets >= {word for word in words if "=" not in word}, name(path)
            elif program.rpartition("/")[2] == "python":
                assert (ROOT / words[0]).is_file(), (name(path), words)
            else:
                assert program in SHELLS_OWN or program.rpartition("/")[2] == "agileact", (name(path), program)


def test_every_extra_that_is_named_exists():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]")[1]
    extras = set(re.findall(r"^(\w+) = \[", project.split("\n[")[0], flags=re.MULTILINE))
    named = {
        extra
        for path in (README, *PAGES)
        for several in re.findall(r"agileact\[([\w,]+)\]", path.read_text(encoding="utf-8"))
        for extra in several.split(",")
    }
    assert {"lab", "ray"} <= named <= extras


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path, "yaml")], ids=name)
def test_the_studies_of_a_page_are_read(path: Path, tmp_path: Path):
    studies = [block for block in blocks(path, "yaml") if re.search("^arms:", block, flags=re.MULTILINE)]
    for index, block in enumerate(studies):
        file = tmp_path / f"{index}.yaml"
        file.write_text(block, encoding="utf-8")
        assert read_study(file).arms


def test_every_key_of_a_study_is_in_a_table():
    rows = [row for row in (DOCS / "study.md").read_text(encoding="utf-8").splitlines() if row.startswith("|")]
    named = {key for row in rows for key in re.findall(r"`([\w.-]+)(?:=X)?`", row)}
    keys = {field.name for kind in (ArmSpec, Budget, Protocol) for field in dataclasses.fields(kind)}
    keys |= {word.removesuffix("=NUMBER") for word in modifiers()}
    keys |= {key for model in models.names() for key in models.options(model)} | {*OPTIONS, *NAMES}
    # Filled in by the runner or written out in prose: no one types a row for them.
    assert keys - named - {"activations", "code", "use_test"} == set()


def test_the_study_guide_can_be_planned_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    page = DOCS / "guides" / "study.md"
    (block,) = blocks(page, "yaml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first.yaml").write_text(block, encoding="utf-8")
    command = next(words for words in commands(page) if words[:2] == ["study", "plan"])
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_guide_to_an_activation_of_ones_own_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    page = DOCS / "guides" / "own-activation.md"
    (code,), (command,) = blocks(page, "python"), commands(page)
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    for most, number in (("_MOST_REPLICATES", 0), ("_MOST_TUNING", 4), ("_MOST_SEEDS", 7)):
        monkeypatch.setattr(f"agileact.study.commands.compare.{most}", number)
    try:
        assert main([*command, "--jobs", "2"]) == 0
    finally:
        sys.modules.pop("mine", None)
    printed = capsys.readouterr().out
    assert "mine:MyAct" in printed
    assert (tmp_path / "runs" / "compare" / "report.html").is_file()


# -- links -----------------------------------------------------------------------------------------------


def test_links_to_files_of_the_repository_lead_somewhere():
    # In the repository; `make docs` checks those within the site.
    made = {"benchmarks.md", "quickstart.md"}
    missing = [
        (name(path), link)
        for path in PAGES
        for link in re.findall(
            r"\]\((?!https?:|mailto:|#)([^)#\s]+)",
            re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL),
        )
        if not (path.parent / link).exists() and Path(link).name not in made and "images" not in Path(link).parts
    ]
    assert missing == []


def test_every_public_name_is_in_the_reference():
    shown = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    names = [name for name in ag.__all__ if name[0] != "_" and not isinstance(getattr(ag, name), ModuleType)]
    assert len(names) > 40
    assert sorted(one for one in names if f"::: agileact.{one}\n" not in shown + "\n") == []


ENTRIES = [
    name for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)
]
BASE_CLASSES = ("agileact.AgileModule", "agileact.baselines.ParametricActivation")
SHOWN_TOGETHER = ("conduct", "run_study", "show")
"""Functions that need a whole study, which docs/guides/study.md has."""


def test_every_entry_of_the_reference_says_what_it_should():
    assert len(ENTRIES) > 100
    assert {entry: lacking for entry in ENTRIES if (lacking := what_lacks(entry))} == {}


def what_lacks(entry: str) -> str:
    found = pkgutil.resolve_name(entry)
    if isinstance(found, ModuleType):
        return "a module would be shown with all that it holds, also in place of a function of the same name"
    text = inspect.getdoc(found) or ""
    if not text:
        return "it has no docstring"
    if inspect.isfunction(found):
        if "Example:" not in text and found.__name__ not in SHOWN_TOGETHER:
            return "it has no example"
        if "Raises:" not in text and re.search(r"^ +raise \w", inspect.getsource(found), re.MULTILINE):
            return "it does not say what it raises"
    elif issubclass(found, torch.nn.Module) and entry not in BASE_CLASSES and "Example:" not in text:
        return "it has no example"
    return ""


# -- the notebook ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_notebook_runs_and_is_committed_with_its_outputs():
    import nbformat
    from nbclient import NotebookClient

    path = DOCS / "quickstart.ipynb"
    assert path.stat().st_size < 400_000
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs) >= 2
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), "JUPYTER_PLATFORM_DIRS": "1"}
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(env=environment)


# -- what is made while the site is built ----------------------------------------------------------------


def test_the_benchmarks_page_tells_what_the_results_say():
    page = hook("benchmarks").page(ROOT / "benchmarks" / "results", {"op.json": "abc1234"})
    summary = json.loads((ROOT / "benchmarks" / "results" / "op.json").read_text())["summary"]["gelu"]
    assert f"| GELU | {summary['training_mean']:.2f} ({summary['training_worst']:.2f}) |" in page
    assert "`abc1234`" in page
    assert "## Not measured" in page
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert f"[{path.stem}](../benchmarks/results/{path.name})" in page


def test_a_result_without_a_section_is_linked(tmp_path: Path):
    (tmp_path / "other.json").write_text('{"environment": {"cpu": "a", "system": "Darwin"}}')
    page = hook("benchmarks").page(tmp_path, {})
    assert "Files that have no section" in page
    assert "Other machines" not in page


def test_roles_become_links_and_formulas():
    to_markdown = hook("roles").to_markdown
    text = "See :func:`~agileact.fold`, :class:`torch.nn.ReLU` and :math:`a f(x)`.\n\n.. math::\n    x^2,\n    y\n\n"
    out = to_markdown(text + "Example:\n    >>> 1\n")
    assert '<autoref identifier="agileact.fold" optional><code>fold()</code></autoref>' in out
    assert "<code>torch.nn.ReLU</code>" in out
    assert "$a f(x)$" in out
    assert "$$x^2, y$$" in out
    assert "\nExamples:\n" in out


@pytest.mark.slow
def test_an_entry_that_a_module_shares_its_name_with_is_the_function():
    # Griffe reads files: agileact.fold would be the folder transforms/fold, with one line in place of the reference.
    import griffe

    extensions = griffe.load_extensions(hook("roles").Roles)
    package = griffe.load("agileact", search_paths=[ROOT / "src"], extensions=extensions, try_relative_path=False)
    kinds = {entry: package[entry.removeprefix("agileact.")].kind.value for entry in ENTRIES}
    assert kinds["agileact.fold"] == kinds["agileact.calibrate"] == kinds["agileact.study.verdict"] == "function"
    assert [entry for entry, kind in kinds.items() if kind == "module"] == []


def test_formulas_become_mathml():
    page = hook("mathml").to_mathml(
        r'<p><span class="arithmatex">\(a &lt; b\)</span></p><div class="arithmatex">\[\frac{x}{2}\]</div>'
    )
    assert page.count("<math") == 2
    assert "<mfrac>" in page
    assert "arithmatex" not in page
    assert 'display="block"' in page


def test_cells_of_wide_tables_name_their_columns():
    head, row = "".join(f"<th>a &amp; <b>{i}</b></th>" for i in range(4)), "<td>1</td>" * 4
    wide = f"<table><thead><tr>{head}</tr></thead><tbody><tr>{row}</tr></tbody></table>"
    stacked = hook("tables").labelled(wide)
    assert re.findall('data-label="([^"]*)"', stacked) == [f"a &amp; {i}" for i in range(4)]
    assert hook("tables").labelled(narrow := "<table><tr><th>x</th></tr><tr><td>1</td></tr></table>") == narrow


def test_a_page_that_asks_another_host_is_found():
    requests = hook("pages").requests
    assert requests('<script src="https://example.com/x.js"></script>') == ["https://example.com/x.js"]
    assert requests("<img src=//example.com/x.png>") == ["//example.com/x.png"]
    assert requests('<a href="https://example.com">on a click</a><img src="images/x.svg">') == []


def test_links_beyond_docs_are_found():
    beyond = hook("pages").beyond
    text = "[a](../../src/agileact/cli.py) [b](../study.md) [c](https://example.com) [d](../../nothing.py)"
    assert beyond("concepts/page.md", text) == {"../../src/agileact/cli.py": "src/agileact/cli.py"}


@pytest.mark.slow
def test_every_picture_that_a_page_shows_is_drawn(tmp_path: Path):
    draw = runpy.run_path(str(DOCS / "draw.py"))
    drawn = {path.name for path in draw["draw_site"](tmp_path)}
    shown = {
        found for page in PAGES for found in re.findall(r"images/([\w.-]+\.svg)", page.read_text(encoding="utf-8"))
    }
    assert shown <= drawn
    assert {f"figure-{number:02d}.svg" for number in (1, 3, 7, 8, 10)} <= drawn
    for path in tmp_path.glob("*.svg"):
        assert path.read_text().count("<path") > 20


def test_the_drawn_network_is_the_one_that_is_trained():
    # Counted by hand from section 4: 3x3 kernels, 16-8-4 filters, 36 inputs to 30 nodes, 10 outputs.
    network = paper_cnn(ArmSpec((("conv", "agile-relu"), ("fc", "agile-sigmoid"))), (1, 28, 28), 10, seed=0)
    found = stages(network, (1, 28, 28))
    assert [stage.pairs for stage in found if stage.kind == "activation"] == [16, 8, 4, 30]
    assert [stage.weights for stage in found if stage.kind == "conv"] == [16 * 10, 8 * 145, 4 * 73]
    assert [stage.weights for stage in found if stage.kind == "dense"] == [30 * 37, 10 * 31]
    assert [stage.shape for stage in found if stage.kind == "pooling"] == [(16, 14, 14), (8, 7, 7), (4, 3, 3)]
