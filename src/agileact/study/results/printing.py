"""What a study found, printed: tables and verdicts for people, one JSON document for programs."""

from __future__ import annotations

from typing import Any

from agileact._common.terminal import print_json, print_table
from agileact.study.results import contrasts, outcome
from agileact.study.results.outcome import Cell, Comparison
from agileact.study.running.planner import Lookup, Plan
from agileact.study.spec.protocol import Study
from agileact.study.statistics import Ranking


def show(study: Study, current: Plan, known: Lookup, *, as_json: bool = False, matters: float | None = None) -> None:
    """Print what is known of a study, finished or not.

    Args:
        study: The study, with the fingerprints of its data.
        current: Its plan as it stands.
        known: Finished trials by their spec.
        as_json: Print one JSON document, and no table.
        matters: The smallest difference in loss that matters.
    """
    found = outcome.cells(study, current, known)
    compared = outcome.comparisons(study, found, matters=matters)
    ranks = outcome.ranking(study, found)
    if as_json:
        print_json(_document(study, current, found, compared, ranks))
    else:
        _print(study, current, found, compared, ranks)


def _document(
    study: Study, current: Plan, found: list[Cell], compared: list[Comparison], ranks: Ranking | None
) -> dict[str, Any]:
    return {
        "study": study.name,
        "finished": current.finished,
        "rows": [dict(zip(outcome.HEADER, outcome.row(cell), strict=True)) for cell in found],
        "verdicts": [
            {
                "task": one.task,
                "arm": one.arm,
                "decision": one.verdict.decision,
                "sentence": one.verdict.sentence,
                "p": one.verdict.p_value,
                "by_seed": one.verdict.by_seed,
                "time": one.times,
                "common_time": None if one.common is None else one.common.to_dict(),
            }
            for one in compared
        ],
        "flags": [list(flag) for flag in outcome.flags(current, found)],
        "contrasts": [one.to_dict() for one in contrasts.contrasts(study, found, compared)],
        "relative_loss": contrasts.relative_record(contrasts.relative_losses(study, found)),
        "ranks": None if ranks is None else dict(zip((a.name for a in study.arms), ranks.ranks, strict=True)),
        "rank_tests": None
        if ranks is None
        else {"friedman_p": ranks.friedman_p, "critical_difference": ranks.critical_difference},
    }


def _print(study: Study, current: Plan, found: list[Cell], compared: list[Comparison], ranks: Ranking | None) -> None:
    print_table(study.name, outcome.HEADER, [outcome.row(cell) for cell in found], keys=2)
    print()
    for one in compared:
        print(f"{one.task}: {one.verdict.sentence}")
        print(f"  {one.verdict.by_seed}")
        print(f"  Time {one.times}.")
        if one.common is not None:
            print(f"  Time {one.common.describe(one.arm, study.arms[0].name)}.")
    for task, arm, note in outcome.flags(current, found):
        print(f"Note, {task}, {arm}: {note}.")
    if ranks is not None:
        order = sorted(zip(ranks.ranks, (arm.name for arm in study.arms), strict=True))
        print(
            f"Average ranks over {len(study.tasks)} tasks: "
            + ", ".join(f"{name} {rank:.2f}" for rank, name in order)
            + f"; ranks closer than {ranks.critical_difference:.2f} are not told apart (Nemenyi)."
        )
    if not current.finished:
        print(f"Not finished: {current.done} of at most {study.most_trials} trials are done.")
