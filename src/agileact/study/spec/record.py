"""A study as JSON, written and read: the contents of OUT/study.json."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agileact._common.errors import ArgumentError, StoreError
from agileact._common.files import write_atomically
from agileact._common.machine import hardware
from agileact.study.spec.arms import Arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.reading import json_converter, mapping, read, text
from agileact.study.spec.space import Space, search_space
from agileact.study.spec.tasks import Task
from agileact.study.spec.trial import ArmSpec, TaskSpec
from agileact.study.spec.user_code import CODE, UserCode

FILE = "study.json"
"""The record's name; it lies beside the store."""


@dataclass(frozen=True)
class Circumstances:
    """How a study came to be run, as far as it is known; nothing of it is part of a trial's identity."""

    command: str = ""
    hardware: str = ""
    data: dict[str, str] = field(default_factory=dict)
    """A description of each task's data, by the task's name."""
    notes: tuple[str, ...] = ()
    """Sentences that a reader of the results must know."""
    code: str = ""
    """Hash of the user's modules that the trials ran, which are in the folder code/HASH; empty for none."""


def study_record(study: Study) -> dict[str, Any]:
    """Return a study as plain JSON types: every arm, task and step of the protocol as it was carried out."""
    # What came later stands there only where it says something, so that older versions read the rest.
    protocol = dataclasses.asdict(study.protocol) | _space(study.protocol.space)
    for name in ("space", "sampler"):
        if getattr(study.protocol, name) == getattr(Protocol, name):
            del protocol[name]
    arms = [{"name": one.name, **dataclasses.asdict(one.spec), **_space(one.space)} for one in study.arms]
    tasks = [
        {"name": one.name, **dataclasses.asdict(one.spec), **({"better": one.better} if one.better else {})}
        for one in study.tasks
    ]
    return {"name": study.name, "protocol": protocol, "arms": arms, "tasks": tasks}


def _space(space: Space) -> dict[str, Any]:
    return {"space": {one.name: one.plain() for one in space}} if space else {}


def study_from_record(record: Mapping[str, Any]) -> Study:
    """Rebuild the study of :func:`study_record`: the same one, so that it finds the same trials."""
    for key in ("name", "arms"):
        if key not in record:
            raise ArgumentError(f"this is no record of a study: it has no {key!r}")
    # A record tells its whole protocol: that of today's defaults may be another one.
    given = {"protocol": None} | {key: record[key] for key in ("name", "arms", "tasks", "protocol") if key in record}
    try:
        return read(Study, given, converter=_converter())
    except ArgumentError as error:
        raise ArgumentError(f"this is no record of a study that this version reads ({error})") from None


@functools.cache
def _converter() -> Any:
    def space(raw: Any, _: Any = None) -> Space:
        return search_space(mapping(raw))

    def arm(raw: Any, _: Any) -> Arm:
        given = mapping(raw)
        name, own = text(given.pop("name", None)), space(given.pop("space", {}))
        return Arm(name, made.structure(given, ArmSpec), own)

    def task(raw: Any, _: Any) -> Task:
        given = mapping(raw)
        name, better = text(given.pop("name", None)), text(given.pop("better", ""))
        return Task(name, made.structure(given, TaskSpec), better)

    made = json_converter((Space, space), (Arm, arm), (Task, task))
    return made


def write_record(
    folder: Path,
    study: Study,
    *,
    command: str = "",
    data: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
    code: str = "",
) -> Circumstances:
    """Write ``folder``/study.json: the study, and how and where it was started; return the latter."""
    around = Circumstances(command, hardware(), dict(data or {}), notes, code)
    document = {**study_record(study), "circumstances": dataclasses.asdict(around)}
    write_atomically(folder / FILE, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return around


def read_record(folder: Path, *, copies: bool = False) -> tuple[Study, Circumstances]:
    """Return the study that ``folder``/study.json tells of, and how it was run as far as it says.

    ``copies``: where the user's modules cannot be imported, such as while they are edited, the run's own copy of them
    is, below ``folder``/code.
    """
    path = folder / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(
            f"there is no {FILE} in {folder}, so which study the trials belong to is not known; give the study's YAML "
            "file, or run the command that made the store once more (it writes the file and repeats no trial)"
        ) from None
    except ValueError as error:
        raise StoreError(f"{path} is not JSON ({error})") from None
    if not isinstance(document, dict):
        raise StoreError(f"{path} is no record of a study")
    try:
        # Records of older versions do not tell how the study was run.
        return study_from_record(document), read(Circumstances, document.get("circumstances") or {})
    except ArgumentError as error:
        code = dict(document.get("circumstances") or {}).get("code")
        if copies and code and (copy := UserCode.kept(folder / CODE / str(code))):
            copy.install()
            return read_record(folder)
        raise StoreError(f"{path}: {error}") from None
