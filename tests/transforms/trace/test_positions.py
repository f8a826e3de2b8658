"""Places of expressions on Python 3.10, by its own way, against those that a newer Python keeps with the code."""

from __future__ import annotations

import dis
import importlib
import sys
from collections.abc import Iterator
from types import CodeType

import pytest
import torch

import agileact as ag
from agileact.transforms.trace import recorder
from agileact.transforms.trace.positions import positions
from agileact.transforms.trace.recording import Place
from tests.transforms.convert.test_loops import LOOPS, X
from tests.transforms.convert.test_written_out import FORMULAS


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="an instruction of another Python may be of another part")
@pytest.mark.parametrize(
    "name", ["agileact.transforms.fold.rules", "tests.transforms.converting", "tests.transforms.convert.test_loops"]
)
def test_places_are_those_that_python_keeps(name: str):
    module = importlib.import_module(name)
    assert module.__file__ is not None
    with open(module.__file__, encoding="utf-8") as file:
        whole = compile(file.read(), module.__file__, "exec", dont_inherit=True)
    known = missing = 0
    for code in codes(whole):
        found = positions(code)
        missing += not found
        kept = list(code.co_positions())
        for one in dis.get_instructions(code) if found and code.co_name != "<module>" else ():
            if one.opname in ("CALL", "BINARY_OP", "COMPARE_OP", "UNARY_NEGATIVE") and "=" not in one.argrepr:
                place, wanted = found[one.offset // 2], kept[one.offset // 2]
                if place[0] is not None:
                    # Of a method that is called in another line than the call begins in, Python keeps the name's.
                    assert place == wanted or (place[0] != place[1] and place[1::2] == wanted[1::2]), (
                        code.co_name,
                        one,
                    )
                    known += 1
    assert known > 30
    assert missing <= 10, "two of one kind in one line cannot be told apart"


@pytest.fixture
def without_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python know the lines of its code alone, as 3.10 does."""

    def place(frame: object, code: CodeType) -> Place:
        known = positions(frame.f_code)  # type: ignore[attr-defined]
        line, end_line, column, end_column = known[frame.f_lasti // 2] if known else (None,) * 4  # type: ignore[attr-defined]
        return Place(code, frame.f_lineno if line is None else line, end_line, column, end_column)  # type: ignore[attr-defined]

    monkeypatch.setattr(recorder, "_place", place)


@pytest.mark.usefixtures("without_columns")
@pytest.mark.parametrize("kind", FORMULAS, ids=lambda kind: kind.__name__)
def test_formulas_are_found(kind: type[torch.nn.Module]):
    _, report = ag.convert(kind(), example_inputs=X)
    bases = FORMULAS[kind]
    names = [site.name.partition(".")[0] for site in report.converted]
    assert names == (bases if isinstance(bases, list) else [bases])


@pytest.mark.usefixtures("without_columns")
@pytest.mark.parametrize("name", LOOPS)
def test_loops_have_a_pair_for_each_turn(name: str):
    kind, widths, expected = LOOPS[name]
    _, report = ag.convert(kind(widths), example_inputs=X)
    assert {site.name: site.channels for site in report.converted} == expected
