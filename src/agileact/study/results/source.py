"""Where a study and its trials are read: a store with its record beside it, or a study that is known already."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agileact._common.errors import StoreError
from agileact.study.results.outcome import Outcome
from agileact.study.running.conduct import Results
from agileact.study.running.store import Store
from agileact.study.spec.protocol import Study
from agileact.study.spec.record import Circumstances, read_record
from agileact.study.spec.result import TrialResult
from agileact.study.spec.trial import TrialSpec

STORES = (".sqlite", ".db")
"""How the names of stores end."""


@dataclass(frozen=True)
class Source:
    """A study and the store of its trials."""

    store: Path
    known: Callable[[], tuple[Study, Circumstances]]
    """Returns the study and how it was run; raises StoreError while that is not known."""
    begun: bool = True
    """Whether the store must be there; if not, a study without one has no trial yet."""

    @property
    def folder(self) -> Path:
        """Where the store lies."""
        return self.store.parent

    def read(
        self,
        *,
        matters: float | None = None,
        baseline: str | None = None,
        found: dict[TrialSpec, TrialResult] | None = None,
    ) -> Outcome:
        """Return the outcome so far, without locking the store: every stored trial is read and checked once.

        ``found`` holds results that were read before, and receives those that are read now.
        """
        # An empty file is what a runner leaves that was killed before it had made its store.
        nothing = not self.begun and (not self.store.exists() or self.store.stat().st_size == 0)
        if not nothing and not self.store.is_file():
            raise StoreError(f"there is no store of trials at {self.store}")
        study, around = self.known()
        if baseline is not None:
            study = study.against(baseline)
        if nothing:
            return Outcome(study, lambda spec: None, around, matters=matters)
        with Store(self.store, read_only=True) as store:
            return Outcome(study, Results(store, found), around, matters=matters)


def stored(path: Path, *, copies: bool = False) -> Source:
    """Return the source at ``path``, a store's file or the folder that holds it; nothing need be there yet.

    ``copies`` as for :func:`agileact.study.spec.record.read_record`.
    """
    store = path if path.is_file() or path.suffix.lower() in STORES else path / "store.sqlite"
    return Source(store, lambda: read_record(store.parent, copies=copies))


def told(study: Study, store: Path, *, begun: bool = True) -> Source:
    """Return the source of a study that is known already, with what its record says of how it was run."""

    def known() -> tuple[Study, Circumstances]:
        try:
            return study, read_record(store.parent)[1]
        except StoreError:
            return study, Circumstances()

    return Source(store, known, begun)
