"""The user's modules as they were when a study was started: trials run these, whatever happens to the files."""

import hashlib
import importlib.abc
import importlib.util
import json
import linecache
import os
import sys
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from agileact.study.spec.protocol import Study

VARIABLE = "AGILEACT_USER_CODE"
"""Names, in the environment of a process, the folder whose modules go before the files that they were copied from."""

CODE = "code"
"""The folder, below that of a study's results, with the copies of the user's modules by their hash."""

_INDEX = "modules.json"
RECORDED = frozenset({"torch", "agileact", "builtins"})
"""Packages whose versions stand beside every result."""
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def is_users(name: str, package: str = "") -> bool:
    """Return whether an imported module is the user's: a file that is not installed, or one of this package."""
    top = name.partition(".")[0]
    path = getattr(sys.modules.get(name), "__file__", None)
    if path is None or top in RECORDED or top in sys.stdlib_module_names:
        return False
    return top == package or not _INSTALLED & set(Path(path).parts)


@dataclass(frozen=True)
class Module:
    """One module: its name, the file that it came from, whether it is a package, and its source."""

    name: str
    path: str
    package: bool
    source: str


@dataclass(frozen=True)
class UserCode:
    """The user's modules that a study needs, in the order of their names."""

    modules: tuple[Module, ...]

    @classmethod
    def of(cls, study: Study) -> "UserCode":
        """Return the modules that this process has imported, if a task of the study has a function of the user's."""
        # Data or a model of the user's, or a loss, a metric or an augmentation of data that is not.
        # Or an activation of theirs.
        if not any(
            "custom" in (task.spec.data.name, task.spec.model.name)
            or any(isinstance(value, str) and ":" in value for _, value in task.spec.data.options)
            for task in study.tasks
        ) and not any(one.spec.code for one in study.arms):
            return cls(())
        found = []
        for name, module in sorted(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if name != "__main__" and path and path.endswith(".py") and Path(path).is_file() and is_users(name):
                source = source_of(module)
                if source or not Path(path).stat().st_size:  # else it cannot be read, and is imported as it is
                    found.append(Module(name, str(Path(path).resolve()), hasattr(module, "__path__"), source))
        return cls(tuple(found))

    @property
    def hash(self) -> str:
        """16 hex digits of names and sources; "" if there is no module."""
        texts = [text for one in self.modules for text in (one.name, one.source)]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16] if texts else ""

    def write(self, folder: Path) -> Path:
        """Write the modules below ``folder``, and return where: their hash is the name."""
        place = folder / self.hash
        index = []
        for one in self.modules:
            file = Path(*one.name.split("."), *(["__init__"] if one.package else [])).with_suffix(".py")
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_text(one.source, encoding="utf-8")
            index.append({"name": one.name, "path": one.path, "package": one.package, "file": file.as_posix()})
        (place / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
        return place

    @classmethod
    def kept(cls, place: Path) -> "UserCode | None":
        """Return the modules that :meth:`write` wrote, if they are there and as they were written."""
        try:
            found = cls.read(place)
        except (OSError, ValueError, KeyError):
            return None
        return found if found.hash == place.name else None

    @classmethod
    def read(cls, place: Path) -> "UserCode":
        """Return the modules that :meth:`write` wrote."""
        index = json.loads((place / _INDEX).read_text(encoding="utf-8"))
        sources = [(place / one["file"]).read_text(encoding="utf-8") for one in index]
        found = zip(index, sources, strict=True)
        return cls(tuple(Module(one["name"], one["path"], one["package"], source) for one, source in found))

    def install(self) -> None:
        """Import these modules from now on, instead of the files that they came from.

        Each keeps the name of its file, beside which it may look for data; tracebacks and :mod:`inspect` show the
        source that runs.
        """
        finders = [one for one in sys.meta_path if isinstance(one, _Finder)]
        if any(one.code == self for one in finders):
            return
        for old in finders:
            sys.meta_path.remove(old)
        sys.meta_path.insert(0, _Finder(self))
        for one in self.modules:
            sys.modules.pop(one.name, None)
            linecache.cache[one.path] = (len(one.source), None, one.source.splitlines(True), one.path)


def install_from_environment() -> None:
    """Use the modules of the folder that the environment names, if it names one."""
    if VARIABLE in os.environ:
        UserCode.read(Path(os.environ[VARIABLE])).install()


def source_of(module: ModuleType) -> str:
    """Return the source that a module was made from; "" if it has none."""
    loader = getattr(module, "__loader__", None)
    try:
        if isinstance(loader, _Loader):
            return loader.module.source
        with tokenize.open(str(module.__file__)) as file:
            return file.read()
    except (OSError, SyntaxError, ValueError):
        return ""  # compiled, with no source to look at


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, code: UserCode) -> None:
        self.code = code
        self._known = {one.name: one for one in code.modules}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = self._known.get(name)
        if found is None:
            return None
        inside = [str(Path(found.path).parent)] if found.package else None
        return importlib.util.spec_from_file_location(
            name, found.path, loader=_Loader(found), submodule_search_locations=inside
        )


class _Loader(importlib.abc.SourceLoader):
    def __init__(self, module: Module) -> None:
        self.module = module

    def get_filename(self, fullname: str) -> str:
        return self.module.path

    def get_data(self, path: str | bytes) -> bytes:
        if path == self.module.path:
            return self.module.source.encode()
        return Path(os.fsdecode(path)).read_bytes()
