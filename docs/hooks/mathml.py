"""Formulas become MathML while the site is built: a browser draws them without a script and without a request."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex leaves in a page.
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def to_mathml(page: str) -> str:
    """Return HTML in which each formula is MathML."""
    page = _INLINE.sub(lambda found: convert(html.unescape(found[1]).strip()), page)
    return _BLOCK.sub(lambda found: convert(html.unescape(found[1]).strip(), display="block"), page)


def on_page_content(content: str, **_: Any) -> str:
    """MkDocs calls this with each page's HTML."""
    return to_mathml(content)
