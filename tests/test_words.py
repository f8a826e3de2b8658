"""Pages and docstrings are in plain technical English as far as a script can tell: short sentences, no vague phrase."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
MODULES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "examples").glob("*.py")])
LONGEST = 30
AVOID = (
    r"\b(stands in(?! the way)|lies in|lie in|hangs|likewise|what it costs|as ever|one's own|of before|somebody"
    r"|may stand|the look at|written down|look upon|it is that|in the course of)\b"
)
WHAT = r"^What [^?]*\b(is|are|costs|finds|pays) [^,?]*\.$"
"""A clause with "what" as the subject, in a sentence of a page."""


def sentences(text: str) -> list[str]:
    """Return the sentences of Markdown or of a docstring: no code, tables, headings, formulas and targets of links."""
    text = re.sub(r"^\s*```.*?^\s*```|<!--.*?-->|<[^>]+>", " ", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)|``[^`]*``|`[^`]*`|\$[^$]*\$", " ", text)
    kept = ["" if line.lstrip().startswith(("|", "#", ">>>", "???", "...")) else line for line in text.splitlines()]
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)", "\n".join(kept))
    return [one for part in paragraphs for one in re.split(r"(?<=[.!?:;])[)*]*\s+", " ".join(part.split()))]


def without_indented_code(text: str) -> str:
    """Return a page without blocks that are code because four spaces follow an empty line."""
    return re.sub(r"\n\n(?: {4}[^-*\d].*\n)+", "\n\n", text)


def faults(text: str) -> list[str]:
    """Return what is to be read again."""
    return [
        one
        for one in sentences(text)
        if len(re.findall(r"[A-Za-z]{2,}", one)) > LONGEST or re.search(AVOID, one, flags=re.IGNORECASE)
    ]


def docstrings(path: Path) -> list[str]:
    """Return the docstrings of a module's public names."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and not getattr(node, "name", "").startswith(
            "_"
        ):
            found.append(ast.get_docstring(node) or "")
    return found


def test_what_counts():
    assert faults("word " * 31 + "end.")
    assert not faults("word " * 30 + ". " + "word " * 30)
    assert faults("It stands in a table.")
    assert re.search(WHAT, "What pays here is the recipe.")
    assert not re.search(WHAT, "What a and b do to f, and which inputs they weigh.")
    assert not faults("| " + "word " * 40 + "|\n\n```sh\n" + "word " * 40 + "\n```\n\n`" + "word " * 40 + "` is code.")


def test_sentences_of_pages_are_short_and_plain():
    texts = {str(path.relative_to(ROOT)): without_indented_code(path.read_text(encoding="utf-8")) for path in PAGES}
    found = {
        page: faults(text) + [one for one in sentences(text) if re.search(WHAT, one)] for page, text in texts.items()
    }
    assert {page: one for page, one in found.items() if one} == {}


def test_sentences_of_public_docstrings_are_short_and_plain():
    found = {
        str(path.relative_to(ROOT)): [one for text in docstrings(path) for one in faults(text)] for path in MODULES
    }
    assert {module: one for module, one in found.items() if one} == {}


def test_sentences_of_the_notebook_are_short_and_plain():
    notebook = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    assert cells
    assert [one for cell in cells for one in faults(cell)] == []


def test_sentences_of_help_and_errors_are_short_and_plain():
    found = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            texts: list[ast.expr] = []
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                texts = node.exc.args
            elif isinstance(node, ast.Call):
                texts = [one.value for one in node.keywords if one.arg in ("help", "description", "epilog")]
            for text in texts:
                words = "".join(
                    part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else " "
                    for part in (text.values if isinstance(text, ast.JoinedStr) else [text])
                )
                if faults(words):
                    found[f"{path.relative_to(ROOT)}:{text.lineno}"] = faults(words)
    assert found == {}
