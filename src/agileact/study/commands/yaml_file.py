"""A study from a YAML file, checked as it is read: an error names the file, the place in it, and the nearest key."""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from agileact._common.errors import AgileactError, ArgumentError
from agileact._common.names import hint
from agileact._common.optional import require
from agileact.study import models
from agileact.study.data import dataset as data_room
from agileact.study.spec import tasks
from agileact.study.spec.activation_names import parse_activation
from agileact.study.spec.arms import Arm, arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.tasks import Task
from agileact.study.spec.trial import ArmSpec, Budget, DataSpec, ModelSpec, TaskSpec, freeze

_Check = Callable[[Any], Any]

_LARGEST = 2**63 - 1
_MERGE = "tag:yaml.org,2002:merge"
_MOST_SEEDS = 100_000
"""More are a slip of the keyboard, and their list alone would fill the memory."""


class _Place:
    """Where in a file we are, for errors."""

    def __init__(self, source: str, path: str = "") -> None:
        self.source = source
        self.path = path

    def __truediv__(self, key: str | int) -> _Place:
        step = f"[{key}]" if isinstance(key, int) else f".{key}" if self.path else key
        return _Place(self.source, self.path + step)

    def fail(self, message: str) -> NoReturn:
        where = f"{self.source}: {self.path}" if self.path else self.source
        raise ArgumentError(f"{where}: {message}")

    def mapping(self, value: Any, known: tuple[str, ...] | None) -> dict[str, Any]:
        """Return ``value`` if it is a mapping whose keys are known; None accepts every key."""
        if not isinstance(value, dict):
            self.fail(f"a mapping was expected, not {_shown(value)}")
        for key in value:
            if not isinstance(key, str):
                self.fail(f"keys must be text, not {_shown(key)}")
            if known is not None and key not in known:
                (self / key).fail(f"unknown key{hint(key, known)}")
        return value

    def within(self, make: Callable[[], Any]) -> Any:
        """Return what ``make`` makes; an error of its own gets this place in front."""
        try:
            return make()
        except AgileactError as error:
            self.fail(str(error))


def read_study(path: str | Path) -> Study:
    r"""Read a study from a YAML file.

    A study has a ``name``, ``arms``, ``tasks``, and optionally a ``protocol``. An arm is a name
    (:func:`agileact.study.spec.arms.arm`) or a mapping with a ``name``, ``activations`` and fields of
    :class:`~agileact.study.spec.trial.ArmSpec`. A task is a name (:mod:`agileact.study.spec.tasks`) or a mapping with a
    ``name``, and ``data``, ``model`` and ``budget``, which may start from a named ``task``.

    Raises:
        ArgumentError: If the file cannot be read or something in it does not fit; the message says where.
        MissingExtraError: If PyYAML is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "small.yaml")
        ...     _ = path.write_text("{name: x, arms: [relu, agile-relu], tasks: [digits-mlp], protocol: {seeds: 6}}")
        ...     study = read_study(path)
        >>> [arm.name for arm in study.arms], study.protocol.seeds
        (['relu', 'agile-relu'], (0, 1, 2, 3, 4, 5))
    """
    yaml = require("yaml", "study")
    place = _Place(str(path))

    class Loader(yaml.SafeLoader):  # type: ignore[name-defined]
        """A safe loader that refuses a key that occurs twice, instead of keeping the last."""

    def pairs(loader: Any, node: Any) -> dict[Any, Any]:
        seen: dict[Any, Any] = {}
        own = [pair for pair in node.value if pair[0].tag != _MERGE]
        # What "<<: *anchor" brings stands in front of the mapping's own keys, which go before it.
        loader.flatten_mapping(node)
        merged = {
            loader.construct_object(key, deep=True): loader.construct_object(value, deep=True)
            for key, value in node.value[: len(node.value) - len(own)]
        }
        for key_node, value_node in own:
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float)):
                place.fail(f"line {key_node.start_mark.line + 1}: keys must be text, not {_shown(key)}")
            if key in seen:
                place.fail(f"line {key_node.start_mark.line + 1}: the key {key!r} occurs twice")
            seen[key] = loader.construct_object(value_node, deep=True)
        return {**merged, **seen}

    Loader.add_constructor("tag:yaml.org,2002:map", pairs)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        raw = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        place.fail(f"{where}not YAML: {getattr(error, 'problem', None) or error}")
    except RecursionError:
        place.fail("nested too deeply")
    except ValueError as error:  # such as a date that no calendar has
        place.fail(f"not YAML: {error}")
    return study_from(raw, source=str(path))


def study_from(raw: Any, source: str = "study") -> Study:
    """Build a study from plain mappings and lists, as a YAML file holds them.

    Args:
        raw: The mapping; see :func:`read_study`.
        source: What errors call it.

    Raises:
        ArgumentError: If something does not fit; the message says where.

    Example:
        >>> study_from({"name": "x", "arms": ["relu", "agil-relu"], "tasks": ["digits-mlp"]})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        agileact.ArgumentError: study: arms[1]: unknown activation 'agil-relu'; did you mean 'agile-relu'...
    """
    place = _Place(source)
    given = place.mapping(raw, ("name", "arms", "tasks", "protocol"))
    for key in ("name", "arms", "tasks"):
        if key not in given:
            place.fail(f"lacks {key!r}")
    name = _text(given["name"], place / "name")
    protocol = _fields(Protocol, given.get("protocol", {}), place / "protocol")
    for key in ("lr", "activation_lr", "trials", "tuning_seeds", "extend"):
        if not protocol.tune and key in given["protocol"]:
            (place / "protocol" / key).fail(
                "is for tuning, and tune is false; then each arm has its own rate: {arm: relu, lr: 0.01}"
            )
    arms = [_arm(entry, place / "arms" / i, protocol) for i, entry in enumerate(_list(given["arms"], place / "arms"))]
    for i, one in enumerate(arms):
        for earlier in arms[:i]:
            if one.name != earlier.name and one.spec == earlier.spec:
                (place / "arms" / i).fail(
                    f"{one.name!r} is the same as {earlier.name!r} but for the name: it would be compared with itself"
                )
    found = [_task(entry, place / "tasks" / i) for i, entry in enumerate(_list(given["tasks"], place / "tasks"))]
    study: Study = place.within(lambda: Study(name, tuple(arms), tuple(found), protocol))
    return study


def _arm(raw: Any, place: _Place, protocol: Protocol) -> Arm:
    if isinstance(raw, str):
        found: Arm = place.within(lambda: arm(raw))
        return found
    known = [field.name for field in dataclasses.fields(ArmSpec)]
    given = dict(place.mapping(raw, ("name", "arm", *known)))
    if protocol.tune:
        for rate in ("lr", "activation_lr"):
            if rate in given:
                (place / rate).fail("is tuned, so it cannot be set; set protocol.tune: false to use it as it is")
    named = given.pop("arm", None)
    if (named is None) == ("activations" not in given):
        place.fail("needs either 'activations' or 'arm', the name of one to start from")
    if named is not None:
        text = _text(named, place / "arm")
        base: ArmSpec = (place / "arm").within(lambda: arm(text).spec)
    else:
        base = ArmSpec(_activations(given.pop("activations"), place / "activations"))
    name = _text(given.pop("name", named), place / "name")
    return Arm(name, _fields(ArmSpec, given, place, base))


def _activations(raw: Any, place: _Place) -> tuple[tuple[str, Any], ...]:
    given = {"*": raw} if isinstance(raw, str) else place.mapping(raw, None)
    if not given:
        place.fail("names no activation")
    for where, text in given.items():
        at = place if isinstance(raw, str) else place / where
        named = _text(text, at)
        at.within(functools.partial(parse_activation, named))
    return freeze(given)


def _task(raw: Any, place: _Place) -> Task:
    if isinstance(raw, str):
        found: Task = place.within(lambda: tasks.task(raw))
        return found
    given = place.mapping(raw, ("name", "task", "data", "model", "budget"))
    base: TaskSpec | None = None
    if "task" in given:
        named = _text(given["task"], place / "task")
        base = (place / "task").within(lambda: tasks.template(named))
    for key in ("data", "model", "budget"):
        if base is None and key not in given:
            place.fail(f"lacks {key!r}, and no 'task' to take it from")
    name = _text(given.get("name", given.get("task")), place / "name")
    data = _data(given.get("data", {}), place / "data", base.data if base else None)
    model = _model(given.get("model", {}), place / "model", base.model if base else None)
    if "task" in given and tasks.needs(given["task"]) not in (None, *dict(data.options)):
        (place / "data").fail(f"the task {given['task']!r} needs {tasks.needs(given['task'])!r}, the path of its data")
    budget = _fields(Budget, given.get("budget", {}), place / "budget", base.budget if base else None)
    return Task(name, TaskSpec(data, model, budget))


def _data(raw: Any, place: _Place, base: DataSpec | None) -> DataSpec:
    given = {"name": raw} if isinstance(raw, str) else dict(place.mapping(raw, None))
    if base is None and "name" not in given:
        place.fail("lacks 'name'")
    name = _text(given.pop("name", base.name if base else ""), place / "name")
    known = data_room.names()
    if name not in known:
        (place / "name").fail(f"no data set is named {name!r}{hint(name, known)}")
    same = base is not None and base.name == name
    held = given.pop("validation", base.validation if same and base else 500)
    validation = _number(int, held, place / "validation")
    options = {**(dict(base.options) if same and base else {}), **given}
    spec: DataSpec = place.within(lambda: DataSpec(name, validation, options=freeze(options)))
    return spec


def _model(raw: Any, place: _Place, base: ModelSpec | None) -> ModelSpec:
    given = {"name": raw} if isinstance(raw, str) else dict(place.mapping(raw, None))
    if base is None and "name" not in given:
        place.fail("lacks 'name'")
    name = _text(given.pop("name", base.name if base else ""), place / "name")
    defaults: dict[str, Any] = (place / "name").within(lambda: models.options(name))
    place.mapping(given, tuple(defaults))
    options: dict[str, Any] = dict(base.options) if base is not None and base.name == name else {}
    for key, value in given.items():
        default = defaults[key]
        options[key] = _like(default, value, place / key)
    return ModelSpec(name, freeze(options))


def _fields(kind: Any, raw: Any, place: _Place, base: Any = None) -> Any:
    """Return a dataclass of our own with the fields that ``raw`` gives, over those of ``base`` or the defaults."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    given = place.mapping(raw, tuple(fields))
    values: dict[str, Any] = {}
    for key, value in given.items():
        at = place / key
        if key in ("seeds", "tuning_seeds") and isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                at.fail(f"at least one seed is needed, not {value}")
            if value > _MOST_SEEDS:
                at.fail(f"at most {_MOST_SEEDS:,} seeds, not {value:,}")
            first = 0 if key == "seeds" else 1000
            values[key] = tuple(range(first, first + value))
            continue
        values[key] = _of_type(str(fields[key].type), value, at)
    missing = [
        name
        for name, field in fields.items()
        if base is None and name not in values and field.default is dataclasses.MISSING
    ]
    if missing:
        place.fail(f"lacks {missing[0]!r}")
    return place.within(lambda: kind(**values) if base is None else dataclasses.replace(base, **values))


def _of_type(name: str, value: Any, place: _Place) -> Any:
    """Return ``value`` if it is of the type that a field is annotated with."""
    if name.endswith("| None"):
        if value is None:
            return None
        name = name.removesuffix("| None").strip()
    if name.startswith("tuple["):
        inner = name.removeprefix("tuple[").removesuffix(", ...]")
        return tuple(_of_type(inner, item, place / i) for i, item in enumerate(_list(value, place)))
    if name == "bool":
        if not isinstance(value, bool):
            place.fail(f"true or false was expected, not {_shown(value)}")
        return value
    if name == "str":
        return _text(value, place)
    return _number(int if name == "int" else float, value, place)


def _like(default: Any, value: Any, place: _Place) -> Any:
    """Return ``value`` if it is of the default's type."""
    if isinstance(default, tuple):
        return tuple(_number(int, item, place / i) for i, item in enumerate(_list(value, place)))
    if isinstance(default, bool):
        return _of_type("bool", value, place)
    if isinstance(default, str):
        return _text(value, place)
    return _number(type(default), value, place) if isinstance(default, (int, float)) else value


def _number(kind: type, value: Any, place: _Place) -> Any:
    # YAML 1.1 reads 1e-3 as text, for lack of a dot.
    if kind is float and isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            place.fail(f"a number was expected, not {_shown(value)}")
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        place.fail(f"{'a number' if kind is float else 'a whole number'} was expected, not {_shown(value)}")
    if isinstance(value, int) and abs(value) > _LARGEST:
        place.fail("the number is too large")
    return kind(value)


def _text(value: Any, place: _Place) -> str:
    if not isinstance(value, str) or not value:
        place.fail(f"text was expected, not {_shown(value)}")
    if any(unicodedata.category(character) == "Cc" for character in value):
        # In a terminal they would move the cursor, and in a table break its lines.
        place.fail(f"control characters and line breaks cannot be part of it: {value!r}")
    return value


def _list(value: Any, place: _Place) -> list[Any]:
    if not isinstance(value, list):
        place.fail(f"a list was expected, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    text = "nothing" if value is None else f"{value!r}"
    return text if len(text) <= 100 else f"{text[:97]}..."  # another file than a study's may be one long text
