"""A study from a YAML file, checked as it is read: an error names the file, the place in it, and the nearest key."""

import contextlib
import dataclasses
import functools
import unicodedata
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from agileact._common.checks import is_integer
from agileact._common.errors import ArgumentError
from agileact._common.names import hint
from agileact._common.optional import require
from agileact.study import models
from agileact.study.data import dataset as data_room
from agileact.study.spec import tasks
from agileact.study.spec.activation_names import parse_activation
from agileact.study.spec.arms import Arm, arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.reading import PlacedError, make_converter, mapping, number, placed, read, text, whole
from agileact.study.spec.space import Space, search_space
from agileact.study.spec.tasks import Task
from agileact.study.spec.trial import ArmSpec, Budget, DataSpec, ModelSpec, Options, TaskSpec, freeze
from agileact.study.spec.user_targets import find

_USUAL = ArmSpec(())
_FIELDS = tuple(field.name for field in dataclasses.fields(ArmSpec) if field.name != "code")
_MERGE = "tag:yaml.org,2002:merge"
_MOST_SEEDS = 100_000
"""More are a slip of the keyboard, and their list alone would fill the memory."""


def read_study(path: str | Path) -> Study:
    r"""Read a study from a YAML file.

    A study has ``arms``, ``tasks``, and optionally a ``protocol``, a ``name``, which is otherwise the file's, and
    ``training``: fields of all arms that do not set them. An arm is a name
    (:func:`agileact.study.spec.arms.arm`) or a mapping with a ``name``, ``activations`` and fields of
    :class:`~agileact.study.spec.trial.ArmSpec`. A task is a name (:mod:`agileact.study.spec.tasks`) or a mapping with a
    ``name``, and ``data``, ``model`` and ``budget``, which may start from a named ``task``.

    Raises:
        ArgumentError: If the file cannot be read or something in it does not fit; the message says where.
        MissingExtraError: If PyYAML or cattrs is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "small.yaml")
        ...     _ = path.write_text("{arms: [relu, agile-relu], tasks: [digits-mlp], protocol: {seeds: 6}}")
        ...     study = read_study(path)
        >>> study.name, [arm.name for arm in study.arms], study.protocol.seeds
        ('small', ['relu', 'agile-relu'], (0, 1, 2, 3, 4, 5))
    """
    yaml = require("yaml", "study")

    class Loader(yaml.SafeLoader):  # type: ignore[name-defined]
        """A safe loader that refuses a key that occurs twice, instead of keeping the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key_node, _ in node.value:
                if key_node.tag == _MERGE:
                    continue
                key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
                if not isinstance(key, Hashable) or isinstance(key, tuple):
                    raise ArgumentError(f"line {line}: keys must be text, not {key!r}")
                if key in seen:
                    raise ArgumentError(f"line {line}: the key {key!r} occurs twice")
                seen.add(key)
            # At once, in the order of the file: a mapping that another one merges is looked at before it is merged.
            return super().construct_mapping(node, deep=True)

    try:
        raw = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ArgumentError(f"{path}: {where}not YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise ArgumentError(f"{path}: nested too deeply") from None
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from None
    except ValueError as error:  # such as a date that no calendar has
        raise ArgumentError(f"{path}: not YAML: {error}") from None
    if isinstance(raw, dict):
        raw.setdefault("name", Path(path).stem)
    return study_from(raw, source=str(path))


def study_from(raw: Any, source: str = "study") -> Study:
    """Build a study from plain mappings and lists as :func:`read_study` finds them; ``source`` names them in errors."""
    return read(Study, raw, source, _converter())


@functools.cache
def _converter() -> Any:
    made = make_converter(_number, _text)
    made.register_structure_hook_func(lambda kind: kind == Space, lambda raw, _: search_space(mapping(raw)))
    plain = made.get_structure_hook(Protocol)
    made.register_structure_hook(Protocol, lambda raw, kind: plain(_with_seeds(raw), kind))
    made.register_structure_hook(Arm, lambda raw, _: _arm(raw))
    made.register_structure_hook(Task, lambda raw, _: _task(raw))
    made.register_structure_hook_func(lambda kind: kind == Options, lambda raw, _: _activations(raw))
    study = made.get_structure_hook(Study)
    made.register_structure_hook(Study, lambda raw, kind: _study(raw, lambda given: study(given, kind)))
    return made


def _study(raw: Any, plain: Callable[[dict[str, Any]], Study]) -> Study:
    given = mapping(raw, ("name", "arms", "tasks", "protocol", "training"))
    with placed("training"):
        common = _fields(given.pop("training", {}), {"activations": ()})
        said = {key: getattr(common, key) for key in raw.get("training", {})}
    _import_targets(given.get("tasks"))
    found = plain(given)
    arms = []
    for i, one in enumerate(found.arms):
        # What an arm says itself goes first; at a default it says nothing.
        changes = {key: value for key, value in said.items() if getattr(one.spec, key) == getattr(_USUAL, key)}
        with placed("arms", i):
            arms.append(dataclasses.replace(one, spec=dataclasses.replace(one.spec, **changes)))
    return _checked(raw, dataclasses.replace(found, arms=tuple(arms)))


def _import_targets(tasks: Any) -> None:
    """Import the modules of the user's that tasks name: they may register the base functions that arms name."""
    for task in tasks if isinstance(tasks, list) else ():
        for part in ("data", "model"):
            given = task.get(part) if isinstance(task, dict) else None
            target = given.get("target") if isinstance(given, dict) else None
            if isinstance(target, str):
                # What is wrong with it is said where the task is read.
                with contextlib.suppress(ArgumentError):
                    find(target, part)


def _fields(raw: Any, base: dict[str, Any]) -> ArmSpec:
    """Return an arm with the fields that ``raw`` gives over those of ``base``."""
    given = mapping(raw, _FIELDS)
    if "optimizer_options" in given:
        with placed("optimizer_options"):
            given["optimizer_options"] = freeze(mapping(given["optimizer_options"]))
    found: ArmSpec = _converter().structure({**base, **given}, ArmSpec)
    return found


def _checked(raw: dict[str, Any], study: Study) -> Study:
    """Return the study if its rates are where its protocol has a use for them, and no two arms are the same."""
    if not study.protocol.tune:
        for key in ("lr", "activation_lr", "trials", "tuning_seeds", "extend", "space", "sampler"):
            if key in raw["protocol"]:
                words = "is for tuning, and tune is false; then each arm has its own rate: {arm: relu, lr: 0.01}"
                raise PlacedError(words, ("protocol", key))
    places = [(("training",), raw.get("training")), *((("arms", i), entry) for i, entry in enumerate(raw["arms"]))]
    for place, entry in places:
        for rate in ("lr", "activation_lr"):
            if study.protocol.tune and isinstance(entry, dict) and rate in entry:
                words = "is tuned, so it cannot be set; set protocol.tune: false to use it as it is"
                if study.protocol.space:
                    words = f"is tuned, so it cannot be set; a space with one value fixes it: {{{rate}: {entry[rate]}}}"
                raise PlacedError(words, (*place, rate))
    for i, one in enumerate(study.arms):
        for earlier in study.arms[:i]:
            if (one.spec, study.space(one)) == (earlier.spec, study.space(earlier)):
                words = (
                    f"{one.name!r} is the same as {earlier.name!r} but for the name: it would be compared with itself"
                )
                raise PlacedError(words, ("arms", i))
    return study


def _with_seeds(raw: Any) -> dict[str, Any]:
    """Return a protocol with numbers of seeds as seeds."""
    given = mapping(raw)
    for key, first in (("seeds", 0), ("tuning_seeds", 1000)):
        count = given.get(key)
        if is_integer(count):
            if count < 1:
                raise PlacedError(f"at least one seed is needed, not {count}", (key,))
            if count > _MOST_SEEDS:
                raise PlacedError(f"at most {_MOST_SEEDS:,} seeds, not {count:,}", (key,))
            given[key] = list(range(first, first + count))
    return given


def _arm(raw: Any) -> Arm:
    if isinstance(raw, str):
        return arm(raw)
    given = mapping(raw, ("name", "arm", "space", *_FIELDS))
    named = given.pop("arm", None)
    if (named is None) == ("activations" not in given):
        raise ArgumentError("needs either 'activations' or 'arm', the name of one to start from")
    base: dict[str, Any] = {}
    if named is not None:
        with placed("arm"):
            spec = arm(_text(named)).spec
            base = {field: getattr(spec, field) for field in _FIELDS}
    with placed("name"):
        name = _text(given.pop("name", named))
    with placed("space"):
        space = search_space(mapping(given.pop("space", {})))
    return Arm(name, _fields(given, base), space)


def _activations(raw: Any) -> Options:
    if isinstance(raw, tuple):  # of the arm to start from
        return raw
    given = {"*": raw} if isinstance(raw, str) else mapping(raw)
    if not given:
        raise ArgumentError("names no activation")
    for where, named in given.items():
        with placed(*(() if isinstance(raw, str) else (where,))):
            parse_activation(_text(named))
    return freeze(given)


def _task(raw: Any) -> Task:
    if isinstance(raw, str):
        return tasks.task(raw)
    given = mapping(raw, ("name", "task", "data", "model", "budget", "better"))
    base: TaskSpec | None = None
    if "task" in given:
        with placed("task"):
            base = tasks.template(_text(given["task"]))
    for key in ("data", "model", "budget"):
        if base is None and key not in given:
            raise ArgumentError(f"lacks {key!r}, and no 'task' to take it from")
    with placed("name"):
        name = _text(given.get("name", given.get("task")))
    with placed("data"):
        data = _data(given.get("data", {}), base.data if base else None)
        if base and tasks.needs(given["task"]) not in (None, *dict(data.options)):
            needed = tasks.needs(given["task"])
            raise ArgumentError(f"the task {given['task']!r} needs {needed!r}, the path of its data")
    with placed("model"):
        model = _model(given.get("model", {}), base.model if base else None)
    with placed("budget"):
        start = vars(base.budget) if base else {}
        budget = _converter().structure({**start, **mapping(given.get("budget", {}))}, Budget)
    with placed("better"):
        return Task(name, TaskSpec(data, model, budget), text(given.get("better", "")))


def _named(raw: Any, base: DataSpec | ModelSpec | None) -> tuple[str, dict[str, Any]]:
    """Return the name of data or of a model, and what else is given with it."""
    given = {"name": raw} if isinstance(raw, str) else mapping(raw)
    if base is None and "name" not in given:
        raise ArgumentError("lacks 'name'")
    with placed("name"):
        return _text(given.pop("name", base.name if base else "")), given


def _data(raw: Any, base: DataSpec | None) -> DataSpec:
    name, given = _named(raw, base)
    known = data_room.names()
    if name not in known:
        raise PlacedError(f"no data set is named {name!r}{hint(name, known)}", ("name",))
    base = base if base is not None and base.name == name else DataSpec(name)
    with placed("validation"):
        validation = whole(given.pop("validation", base.validation))
    return DataSpec(name, validation, options=freeze({**dict(base.options), **given}))


def _model(raw: Any, base: ModelSpec | None) -> ModelSpec:
    name, given = _named(raw, base)
    with placed("name"):
        defaults = models.options(name)
    options = dict(base.options) if base is not None and base.name == name else {}
    for key, value in mapping(given, tuple(defaults)).items():
        default = defaults[key]
        with placed(key):
            if isinstance(default, tuple):
                options[key] = _converter().structure(value, tuple[int, ...])
            elif isinstance(default, (bool, int, float, str)):
                options[key] = _converter().structure(value, type(default))
            else:
                options[key] = value
    return ModelSpec(name, freeze(options))


def _number(value: Any) -> float:
    if isinstance(value, str):
        # YAML 1.1 reads 1e-3 as text, for lack of a dot.
        with contextlib.suppress(ValueError):
            return float(value)
    return float(number(value))


def _text(value: Any) -> str:
    if text(value) == "":
        raise ArgumentError("text was expected, not ''")
    if any(unicodedata.category(character) == "Cc" for character in value):
        # In a terminal they would move the cursor, and in a table break its lines.
        raise ArgumentError(f"control characters and line breaks cannot be part of it: {value!r}")
    return str(value)
