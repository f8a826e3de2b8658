from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import agileact as ag
from agileact.transforms.edit.rewrite import edited_class, edits_of, plain_class
from agileact.transforms.trace import recorder as _record
from agileact.transforms.trace.recording import Place
from tests.commands import ROOT
from tests.transforms.converting import Attribute, Block, Functional

RELU = torch.relu


def _helper(x: Tensor) -> Tensor:
    return F.relu(x)


def _decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) * 2

    return wrapper


def _hidden(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: function(*args)


class _Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.__secret = 2.0

    def secret(self) -> float:
        return self.__secret


class _Private(_Base):
    """Zero-argument super, a private name, a closure over a default, and a call in a call."""

    def forward(self, x: Tensor, factor: float = 3.0, *, shift: float = 0.5) -> Tensor:
        return F.relu(F.silu((self.layer(x)) + shift) * factor) * super().secret()


class _Wrapped(_Base):
    @_decorated
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x))


class _Hidden(_Base):
    forward = _hidden(lambda self, x: torch.relu(self.layer(x)))


class _Alias(_Base):
    def forward(self, x: Tensor) -> Tensor:
        function = F.relu if self.training else torch.relu
        return function(self.layer(x))


class _Rebinding(_Base):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.layer(x))
        self = None  # type: ignore[assignment]
        return y


class _Helping(_Base):
    def forward(self, x: Tensor) -> Tensor:
        return _helper(self.layer(x))


class _Parent(_Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x))


class _Child(_Parent):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x))


class _Heir(_Parent):
    pass


class _Global(_Base):
    def forward(self, x: Tensor) -> Tensor:
        return RELU(input=torch.nn.functional.elu(self.layer(x), alpha=0.5))


class _Varying(_Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        for slope in (0.1, 0.2):
            x = F.leaky_relu(x, slope)
        return x


class _Unicode(_Base):
    def forward(self, x: Tensor) -> Tensor:
        größe = "äöü"; y = torch.relu(self.layer(x)); return y * len(größe)  # noqa: E702  # fmt: skip


class _Comprehension(_Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([F.relu(layer(x)) for layer in (self.layer, self.layer)])


def check(model: nn.Module, count: int) -> nn.Module:
    x = torch.randn(5, 3)
    agile, report = ag.convert(model, example_inputs=x)
    assert len(report.converted) == count
    assert torch.equal(agile(x), model(x))
    with torch.no_grad():
        for module in agile.modules():
            if isinstance(module, ag.AgileModule):
                module.location.fill_(1e3)
    if count:
        assert not torch.equal(agile(x), model(x))
    return agile


@pytest.mark.parametrize(
    ("kind", "count"),
    [(_Private, 2), (_Wrapped, 1), (_Heir, 1), (_Global, 2), (_Unicode, 1), (_Comprehension, 1), (_Child, 1)],
)
def test_calls_are_exchanged(kind: type[nn.Module], count: int):
    agile = check(kind(), count)
    cls = type(agile)
    assert cls is not kind
    assert (cls.__name__, cls.__qualname__, cls.__module__) == (kind.__name__, kind.__qualname__, kind.__module__)
    assert plain_class(cls) is kind
    assert type(ag.revert(agile)) is kind


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (_Hidden, "no method of _Hidden"),
        (_Alias, "called as function"),
        (_Rebinding, "another meaning"),
        (_Helping, "outside the methods"),
        (_Child, "overrides"),
        (_Varying, "differ"),
    ],
)
def test_calls_that_cannot_be_exchanged_are_named(kind: type[nn.Module], words: str):
    _, report = ag.convert(kind(), example_inputs=torch.randn(5, 3))
    assert any(words in site.reason for site in report.skipped), str(report)


@pytest.mark.parametrize(
    ("kind", "count"), [(_Private, 2), (_Parent, 1), (_Wrapped, 1), (Functional, 5), (Attribute, 2), (Block, 2)]
)
def test_without_columns_the_line_and_the_name_tell(kind: type[nn.Module], count: int, monkeypatch: pytest.MonkeyPatch):
    # As where a text is not that which was compiled.
    monkeypatch.setattr(_record, "_place", lambda frame, code: Place(code, frame.f_lineno, None, None, None))
    shape = {Functional: (5, 5), Block: (2, 4, 3, 3)}.get(kind, (5, 3))
    x = torch.randn(shape)
    model = kind()
    agile, report = ag.convert(model, example_inputs=x)
    assert torch.equal(agile(x), model(x))
    assert len(report.converted) + len(report.skipped) == count
    # In a call over several lines, Python calls another line that of the call.
    assert len(report.converted) >= count - 2 * (kind is Functional)


class _Twice(_Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layer(x)) - F.relu(-self.layer(x))


def test_without_columns_two_of_a_name_in_a_line_are_refused(monkeypatch: pytest.MonkeyPatch):
    assert len(ag.convert(_Twice(), example_inputs=torch.randn(5, 3))[1].converted) == 2
    monkeypatch.setattr(_record, "_place", lambda frame, code: Place(code, frame.f_lineno, None, None, None))
    _, report = ag.convert(_Twice(), example_inputs=torch.randn(5, 3))
    assert "several calls stand in its line" in report.skipped[0].reason


def test_defaults_keywords_and_documentation_stay():
    agile, _ = ag.convert(_Private(), example_inputs=torch.randn(5, 3))
    method, old = type(agile).forward, _Private.forward
    assert method.__defaults__ == old.__defaults__
    assert method.__kwdefaults__ == old.__kwdefaults__
    assert method.__doc__ == old.__doc__
    assert method.__qualname__ == old.__qualname__
    x = torch.randn(5, 3)
    plain = ag.revert(agile)
    assert torch.equal(agile(x, 2.0, shift=0.1), plain(x, 2.0, shift=0.1))


def test_equal_modules_share_one_class():
    model = nn.Sequential(*(_Parent() for _ in range(3)))
    for layer in list(model.children())[1:]:
        layer.layer = nn.Linear(4, 4)
    agile, _ = ag.convert(model, example_inputs=torch.randn(2, 3))
    assert len({type(layer) for layer in agile.children()}) == 1
    assert len(edits_of(type(agile[0]))) == 1  # type: ignore[index]
    assert type(model[0]) is _Parent


def test_errors_show_the_lines_that_ran():
    agile, _ = ag.convert(Functional(), example_inputs=torch.randn(2, 5))
    try:
        agile(torch.randn(2, 9))
    except RuntimeError as error:
        text = "".join(traceback.format_exception(error))
    assert "    self.first(x)\n" in text
    assert "Functional.forward" in text


def test_a_class_of_a_notebook_or_string_without_source():
    space: dict[str, Any] = {"nn": nn, "torch": torch}
    exec(
        "class Net(nn.Module):\n    def __init__(s):\n        super().__init__()\n        s.f = nn.Linear(3, 4)\n"
        "    def forward(self, x):\n        return torch.relu(self.f(x))\n",
        space,
    )
    _, report = ag.convert(space["Net"](), example_inputs=torch.randn(2, 3))
    assert "source is not available" in report.skipped[0].reason


def test_the_name_of_a_child_is_free():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.Linear(3, 4)

        def relu_2(self) -> None: ...

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.relu(x))

    agile, report = ag.convert(Net(), example_inputs=torch.randn(2, 3))
    assert report.converted[0].name == "relu_3"
    assert isinstance(agile.relu, nn.Linear)


def test_a_changed_source_is_noticed():
    agile, _ = ag.convert(_Parent(), example_inputs=torch.randn(2, 3))
    (edit,) = edits_of(type(agile))
    with pytest.raises(ag.ArgumentError, match="has changed since"):
        edited_class(_Parent, frozenset({dataclasses.replace(edit, text="torch.tanh(self.layer(x))")}))


class _Closed(_Base):
    def __init_subclass__(cls) -> None:
        raise TypeError("no heirs")

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x))


def test_a_class_that_takes_no_subclass():
    model = _Closed()
    with pytest.raises(ag.ConversionError, match="no heirs"):
        ag.convert(model, example_inputs=torch.randn(2, 3), inplace=True)
    assert list(model._modules) == ["layer"]


@pytest.mark.slow
def test_another_process_makes_the_class_again(tmp_path: Path):
    torch.manual_seed(0)
    x = torch.randn(4, 5)
    agile, _ = ag.convert(Functional(), example_inputs=x)
    with torch.no_grad():
        agile.get_submodule("elu").scale.fill_(2.0)  # type: ignore[operator]
    torch.save((agile, x, agile(x)), tmp_path / "model.pt")
    code = (
        f"import sys, torch; sys.path[:0] = {[str(ROOT), *sys.path]}\n"
        f"model, x, y = torch.load({str(tmp_path / 'model.pt')!r}, weights_only=False)\n"
        "assert torch.equal(model(x), y)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_traced_module_is_not_rewritten():
    model = torch.fx.symbolic_trace(_Parent())
    _, report = ag.convert(model, example_inputs=torch.randn(2, 3))
    assert "being copied" in report.skipped[0].reason
