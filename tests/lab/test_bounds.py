"""What the page sends is checked: numbers, names, options, the key of a session."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agileact import ArgumentError, bases
from agileact.lab.input_checks import base_options, choice, number, whole
from agileact.lab.sessions import Sessions

LISTS, DICTS = st.lists(st.integers()), st.dictionaries(st.text(), st.text())
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), LISTS, DICTS)


@given(ANYTHING)
def test_a_number_is_one_between_its_bounds_or_refused(value):
    fits = type(value) in (int, float) and -3 <= value <= 3
    if fits:
        assert number("a", value, -3, 3) == value
    else:
        with pytest.raises(ArgumentError, match="a must be a number from -3 to 3"):
            number("a", value, -3, 3)


@given(ANYTHING)
def test_a_whole_number_is_one_between_its_bounds_or_refused(value):
    fits = type(value) in (int, float) and math.isfinite(value) and value == int(value) and 0 <= value <= 9
    if fits:
        found = whole("the seed", value, 0, 9)
        assert found == value
        assert type(found) is int
    else:
        with pytest.raises(ArgumentError, match="the seed must be a whole number from 0 to 9"):
            whole("the seed", value, 0, 9)


@given(ANYTHING)
def test_a_name_is_one_of_those_allowed(value):
    if value in ("adam", "sgd"):
        assert choice("the optimizer", value, ("adam", "sgd")) == value
    else:
        with pytest.raises(ArgumentError, match="the optimizer must be one of adam, sgd"):
            choice("the optimizer", value, ("adam", "sgd"))


@pytest.mark.parametrize("base", bases.names())
def test_options_default_to_those_of_the_base(base):
    assert base_options(base, {}) == (base, bases.get(base).resolve({}))


def test_options_of_the_base_chosen_before_are_left_out():
    assert base_options("elu", {"negative_slope": 5.0, "alpha": 2.0}) == ("elu", {"alpha": 2.0})


@pytest.mark.parametrize(
    ("base", "given", "words"),
    [
        ("rellu", {}, "f must be one of"),
        (None, {}, "f must be one of"),
        (["relu"], {}, "f must be one of"),
        ("elu", {"alpha": None}, "alpha must be a number"),
        ("elu", {"alpha": 1e9}, "alpha must be a number from -100 to 100"),
        ("celu", {"alpha": 0.0}, "alpha must not be zero"),
        ("softplus", {"beta": -1.0}, "beta must be greater than 0"),
        ("gelu", {"approximate": ["none"]}, "approximate must be"),
        ("hardtanh", {"min_val": 2.0, "max_val": 1.0}, "min_val"),
    ],
)
def test_a_wrong_base_or_option_is_a_sentence(base, given, words):
    with pytest.raises(ArgumentError, match=words):
        base_options(base, given)


def test_the_table_of_sessions_keeps_the_pages_that_were_used_last():
    table = Sessions[int](limit=2)
    a, b, c = ("a" * 32, "b" * 32, "c" * 32)
    table.put(a, 1)
    table.put(b, 2)
    assert table.get(a) == 1
    table.put(c, 3)
    assert [table.get(key) for key in (a, b, c)] == [1, None, 3]


@given(ANYTHING)
def test_a_session_has_a_key_of_ours_or_none(key):
    with pytest.raises(ArgumentError, match="load it again"):
        Sessions[int]().put(key, 1)
