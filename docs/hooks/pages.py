"""What the site holds beyond the files in docs/: pictures, the benchmarks page, the notebook, files that pages link to.

MkDocs calls the functions named ``on_...``. All of it is made anew in each build, so nothing is older than the code.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import benchmarks
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
REPOSITORY = "repository"
"""Where files of the repository that pages link to lie on the site."""

_LINK = re.compile(r"(\]\()([^)#\s:]+)((?:#[^)\s]*)?\))")
_REQUEST = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)[^>]*>"
)


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add what is made."""
    for name, content in pictures().items():
        _add(files, config, f"images/{name}", content)
    results = ROOT / "benchmarks" / "results"
    _add(files, config, "benchmarks.md", benchmarks.page(results, _history(results)))
    for path in sorted(DOCS.glob("*.ipynb")):
        for name, content in notebook(path).items():
            _add(files, config, name, content)
    pages = {file.src_uri: file.content_string for file in files.documentation_pages()}
    for target in sorted(set().union(*(beyond(name, text).values() for name, text in pages.items()))):
        path = ROOT / target
        listing = "\n".join(sorted(one.name for one in path.iterdir() if one.is_file())) if path.is_dir() else ""
        _add(files, config, shelf(target), listing or path.read_bytes())
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links that leave docs/ at the copies on the site."""
    place = page.file.src_uri
    targets = beyond(place, markdown)

    def link(found: re.Match[str]) -> str:
        target = targets.get(found[2])
        if target is None:
            return found[0]
        return found[1] + posixpath.relpath(shelf(target), posixpath.dirname(place) or ".") + found[3]

    return _LINK.sub(link, markdown)


def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    """Refuse a site that would ask another machine for anything."""
    for path in Path(config.site_dir).rglob("*.html"):
        outside = requests(path.read_text(encoding="utf-8"))
        if outside:
            raise PluginError(f"{path.relative_to(config.site_dir)} loads {outside[0]}: the site must open offline")


def pictures() -> dict[str, bytes]:
    """Return every drawing by its file's name."""
    sys.path.insert(0, str(DOCS))
    try:
        from draw import draw_site
    finally:
        sys.path.remove(str(DOCS))
    with tempfile.TemporaryDirectory() as folder:
        return {path.name: path.read_bytes() for path in draw_site(Path(folder))}


def notebook(path: Path) -> dict[str, str | bytes]:
    """Return an executed notebook as a page, with its pictures, by their names on the site."""
    body, resources = MarkdownExporter().from_notebook_node(nbformat.read(path, as_version=4))
    folder = f"{path.stem}_files"
    found: dict[str, str | bytes] = {}
    for name, content in resources["outputs"].items():
        found[f"{folder}/{name}"] = content
        body = body.replace(f"]({name})", f"]({folder}/{name})")
    found[f"{path.stem}.md"] = body
    return found


def beyond(place: str, markdown: str) -> dict[str, str]:
    """Return the links of a page that leave docs/ for a file or folder of the repository, with its path there."""
    targets = {}
    for _, link, _ in _LINK.findall(markdown):
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(place), link))
        if not target.startswith(("docs/", "../")) and (ROOT / target).exists():
            targets[link] = target
    return targets


def shelf(target: str) -> str:
    """Return where a file of the repository lies on the site: as text, which MkDocs does not build."""
    return f"{REPOSITORY}/{target}" + ("" if target.endswith(".json") else ".txt")


def requests(html: str) -> list[str]:
    """Return the addresses that a page would load from elsewhere; links to click on are none."""
    return [found[1] for found in _REQUEST.finditer(html) if 'rel="canonical"' not in found[0]]


def _history(folder: Path) -> dict[str, str]:
    """Return the commit that last changed each file of a folder; nothing where there is no git."""
    found = {}
    for path in folder.glob("*.json"):
        command = ["git", "-C", str(ROOT), "log", "-1", "--format=%h", "--", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            return {}
        if done.returncode == 0 and done.stdout.strip():
            found[path.name] = done.stdout.strip()
    return found


def _add(files: Files, config: MkDocsConfig, name: str, content: str | bytes) -> None:
    if (DOCS / name).exists():
        existing = files.get_file_from_path(name)
        if existing is not None:
            files.remove(existing)
    files.append(File.generated(config, name, content=content))
