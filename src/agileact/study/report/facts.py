"""All that a report tells, computed once: its sections only arrange it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from agileact.study.results.contrasts import Contrast, contrasts, relative_losses
from agileact.study.results.outcome import Cell, cells, comparisons, ranking
from agileact.study.running.planner import Lookup, Plan, plan
from agileact.study.spec.arms import Arm
from agileact.study.spec.protocol import Study
from agileact.study.spec.record import Circumstances
from agileact.study.statistics import Estimate, Ranking

_SHOWN_AT_FIRST = 6
"""Of more than ``_FEW`` arms, so many are drawn until the reader asks for others."""
_FEW = 8


@dataclass(frozen=True)
class Facts:
    """A study's outcome so far.

    Attributes:
        study: The study, with the fingerprints of its data.
        around: How it was run.
        current: What is done and what comes next.
        cells: One for each task and arm, task after task.
        contrasts: One for each arm and task that can be compared with the baseline.
        ranking: Average ranks over tasks, where there are several.
        relative: Each arm's interquartile mean over tasks, in units of the baseline's loss.
    """

    study: Study
    around: Circumstances
    current: Plan
    cells: tuple[Cell, ...]
    contrasts: tuple[Contrast, ...]
    ranking: Ranking | None
    relative: dict[str, Estimate]

    @property
    def baseline(self) -> Arm:
        """The study's first arm."""
        return self.study.arms[0]

    @property
    def arm_names(self) -> list[str]:
        """The names of all arms; an arm's place in it is its number on the page."""
        return [arm.name for arm in self.study.arms]

    def of_task(self, task: str) -> list[tuple[int, Cell]]:
        """Return the number and the cell of every arm on a task."""
        return [(number, cell) for number, cell in enumerate(cell for cell in self.cells if cell.task == task)]

    @property
    def why_nothing(self) -> str:
        """A sentence that says why no final trial has anything to show; empty if one may have."""
        results = [result for found in self.cells for result in found.results]
        if not results:
            return "No final trial is finished yet."
        if all(result.status == "diverged" for result in results):
            return "Every final trial that is finished diverged."
        return ""

    @property
    def shown_at_first(self) -> list[int]:
        """The numbers of the arms that are drawn at first: all of a few, else the baseline and the best."""
        count = len(self.study.arms)
        if count <= _FEW:
            return list(range(count))
        order = sorted(range(1, count), key=lambda number: (self._place(number), number))
        return sorted([0, *order[: _SHOWN_AT_FIRST - 1]])

    def _place(self, number: int) -> float:
        """Return the arm's mean loss over the baseline's, averaged over the tasks where both are known."""
        ratios = []
        for task in self.study.tasks:
            found = [cell for _, cell in self.of_task(task.name)]
            own, base = found[number].losses, found[0].losses
            if own and base and 0 < sum(base) < math.inf:
                ratios.append((sum(own) / len(own)) / (sum(base) / len(base)))
        return sum(ratios) / len(ratios) if ratios else math.inf


def gather(study: Study, lookup: Lookup, around: Circumstances | None = None, *, matters: float | None = None) -> Facts:
    """Return the facts of a study as far as it was run.

    Args:
        study: The study, with the fingerprints of its data.
        lookup: Returns the result of a trial, or None if it was not run yet.
        around: How the study was run, if it is known.
        matters: The smallest difference in test loss that would matter.
    """
    current = plan(study, lookup)
    found = tuple(cells(study, current, lookup))
    compared = comparisons(study, found, matters=matters)
    return Facts(
        study,
        around or Circumstances(),
        current,
        found,
        tuple(contrasts(study, found, compared)),
        ranking(study, found),
        relative_losses(study, found),
    )


def settings(facts: Facts) -> dict[str, str]:
    """Return the protocol's steps as text, by name; those of tuning only if the study tunes."""
    protocol = dataclasses.asdict(facts.study.protocol)
    idle = () if facts.study.protocol.tune else ("trials", "lr", "activation_lr", "tuning_seeds", "extend")
    return {name: _text(value) for name, value in protocol.items() if name not in idle}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value) or "none"
    return str(value)
