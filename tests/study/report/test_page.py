"""The page holds everything, and nothing in a name can be more than text."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from agileact.study.report.document import report_document, waiting_document
from agileact.study.report.page import PLOTLY, island, page
from tests.study.report.builders import EVIL, evil_study, outcome_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_an_island_holds_any_json_and_none_of_the_signs_that_end_it(value):
    text = island(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == json.loads(json.dumps(value))


def test_half_a_character_in_a_name_does_not_break_the_page():
    assert page(waiting_document("\ud800", "Nothing yet.")).encode()


def scripts(text: str) -> list[tuple[str, str]]:
    return re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)


def test_the_policy_allows_the_two_scripts_of_the_page_and_nothing_else():
    text = page(report_document(outcome_of(evil_study())))
    found = scripts(text)
    assert len(found) == 3
    assert 'type="application/json"' in found[0][0]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for _, one in found[1:]]
    assert f"script-src {' '.join(hashes)};" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert "connect-src" not in policy[1]
    assert "\r" not in text  # a browser would read it as a line feed, and the hashes would not fit


def test_names_stand_in_the_page_as_json_and_escaped_alone():
    text = page(report_document(outcome_of(evil_study())))
    for name in EVIL[:4:3]:
        assert name not in text
    document = json.loads(scripts(text)[0][1])
    assert document["name"] == EVIL[0]
    assert document["arms"][1:] == list(EVIL)


def test_nothing_is_loaded_from_elsewhere():
    text = page(waiting_document("x", "y"))
    own = text.replace(next(one for _, one in scripts(text) if "plotly.js" in one), "")
    assert not re.search(r'(src|href)="(?!#|data:,)', own)
    assert "plotly.js (basic - minified) v4.1.1" in text
    assert PLOTLY.endswith("4.1.1.min.js")


def test_a_live_page_may_ask_its_own_server():
    assert "connect-src 'self'" in page(waiting_document("x", "y"), live=True)
