"""Where a report's study and trials come from: a store with its record beside it, or a study's YAML file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agileact._common.errors import StoreError
from agileact._common.files import write_atomically
from agileact.study.report.document import Document, report_document
from agileact.study.report.facts import gather
from agileact.study.report.page import page
from agileact.study.running.conduct import Known
from agileact.study.running.store import Store
from agileact.study.spec.protocol import Study
from agileact.study.spec.record import Circumstances, read_record
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import TrialSpec

_YAML = (".yaml", ".yml")
STORE = "store.sqlite"


@dataclass(frozen=True)
class Source:
    """A study and the store of its trials.

    Attributes:
        store: The store's file.
        known: Returns the study and how it was run; raises StoreError while that is not known.
    """

    store: Path
    known: Callable[[], tuple[Study, Circumstances]]

    @property
    def folder(self) -> Path:
        """Where the store lies."""
        return self.store.parent


def is_spec(path: Path) -> bool:
    """Return whether a path is that of a study's YAML file, by its name."""
    return path.suffix.lower() in _YAML


def stored(path: Path) -> Source:
    """Return the source that lies at ``path``: a store's file, or the folder that holds it.

    Nothing is opened yet, and nothing need be there yet.
    """
    store = path if path.is_file() or path.suffix.lower() in (".sqlite", ".db") else path / STORE
    return Source(store, lambda: read_record(store.parent))


def told(study: Study, store: Path) -> Source:
    """Return the source of a study that is known already, with what its record says of how it was run."""

    def known() -> tuple[Study, Circumstances]:
        try:
            return study, read_record(store.parent)[1]
        except StoreError:
            return study, Circumstances()

    return Source(store, known)


def read(
    source: Source, *, matters: float | None = None, found: dict[TrialSpec, TrialResult] | None = None
) -> Document:
    """Return the report of a source, without locking its store.

    Args:
        source: Where to read.
        matters: The smallest difference in test loss that would matter.
        found: Results that were read before; receives those that are read now.

    Raises:
        StoreError: If the store or its record cannot be read.
    """
    if not source.store.is_file():
        raise StoreError(f"there is no store of trials at {source.store}")
    study, around = source.known()
    with Store(source.store, read_only=True) as store:
        return report_document(gather(study, Known(store, found), around, matters=matters))


def write_report(source: Source, path: Path, *, matters: float | None = None) -> None:
    """Write the report of a source to ``path``: one file that needs nothing else.

    Args:
        source: Where to read; its folder is left as it is.
        path: The HTML file; written whole or not at all.
        matters: The smallest difference in test loss that would matter.

    Raises:
        StoreError: If the store or its record cannot be read.
    """
    write_atomically(path, page(read(source, matters=matters)))
