"""One HTML file that needs nothing else: charts library, script, style and data in one, and no way out of it.

The page's policy (Content-Security-Policy) allows the two scripts by their hashes and nothing else: no request can
leave the page and no script in a name can run. Names reach the page inside JSON alone.
"""

import base64
import functools
import hashlib
import html
import json
import re
from importlib import resources
from typing import Any

# One after the other, one script.
_SCRIPTS = ("blocks.js", "charts.js", "page.js")
PLOTLY = "plotly-basic-4.1.1.min.js"
"""plotly.js 4.1.1, MIT, its partial bundle of scatter, bar and pie (npm: plotly.js-basic-dist-min), as published."""

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def page(document: dict[str, Any], *, live: bool = False) -> str:
    """Return the page of a document as HTML; a ``live`` page asks the server that it came from for news."""
    script, plotly = "\n".join(_asset(name) for name in _SCRIPTS), _asset(PLOTLY)
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(script)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'" + "; connect-src 'self'" * live
    )
    parts = {
        "policy": policy,
        "title": html.escape(f"{document['name']} – agileact study"),
        "style": _asset("report.css"),
        "summary": html.escape(document["summary"]),
        "live": "true" if live else "false",
        "document": island(document),
        "plotly": plotly,
        "script": script,
    }
    text = re.sub(r"\[\[(\w+)\]\]", lambda found: parts[found[1]], _asset("page.html"))
    # A lone half of a surrogate pair cannot be written as UTF-8, and comes from file names at the most.
    return text.encode("utf-8", "replace").decode("utf-8")


def island(value: Any) -> str:
    """Return JSON that can stand inside a script element: nothing in it can end the element or a line of script."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escaped in _ESCAPES.items():
        text = text.replace(character, escaped)
    return text


@functools.cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
