"""The verdict: what may be claimed, what may not, and what a reader must know before either."""

from __future__ import annotations

from collections import Counter

from agileact.study.report.blocks import Block, claim, details, paragraph, section
from agileact.study.report.facts import Facts
from agileact.study.results.contrasts import Contrast
from agileact.study.statistics.verdict import Decision

_WORDS: dict[Decision, str] = {
    "better": "a lower test loss",
    "worse": "a higher test loss",
    "same": "no difference that matters was found",
    "undecided": "undecided",
    "unstable": "diverged runs, so no means",
}


_SENTENCES = 4
"""Claims always stand open; without many of them, so many comparisons do."""


def verdict(facts: Facts) -> Block:
    """Return the section: the count of decisions, what qualifies it, the claims, then everything else folded away."""
    blocks: list[Block] = []
    most = facts.study.most_trials
    if not facts.current.finished:
        blocks.append(
            paragraph(
                f"Not finished: {facts.current.done} of at most {most} trials are done. Everything below is about "
                "these, and may change.",
                tone="note",
            )
        )
    blocks.append(paragraph(headline(facts), tone="lead"))
    blocks += [paragraph(note, tone="note") for note in facts.around.notes]
    if facts.study.protocol.select == "test":
        blocks.append(
            paragraph(
                "Losses are the lowest test losses over all evaluations, the paper's way of choosing the iteration. "
                "It flatters every arm, and those with restless curves most.",
                tone="note",
            )
        )
    claims = [one for one in facts.contrasts if one.comparison.verdict.decision in ("better", "worse")]
    claims.sort(key=lambda one: _size(facts, one))
    others = [one for one in facts.contrasts if one not in claims]
    sentences = [_sentence(facts, one) for one in (*claims, *others)]
    open_ones = max(len(claims), _SENTENCES)
    blocks += sentences[:open_ones]
    if len(sentences) > open_ones:
        blocks.append(details(f"{len(sentences) - open_ones} more comparisons", sentences[open_ones:]))
    if facts.ranking is not None:
        order = sorted(zip(facts.ranking.ranks, facts.arm_names, strict=True))
        blocks.append(
            paragraph(
                f"Average ranks over {len(facts.study.tasks)} tasks: "
                + ", ".join(f"{name} {rank:.2f}" for rank, name in order)
                + f". Ranks closer than {facts.ranking.critical_difference:.2f} are not told apart (Nemenyi)."
            )
        )
    return section("verdict", "Verdict", blocks)


def headline(facts: Facts) -> str:
    """Return one sentence on all comparisons."""
    found = facts.contrasts
    if not found:
        if len(facts.study.arms) == 1:
            return f"The study has one arm, {facts.baseline.name}: there is nothing to compare it with."
        return f"Nothing can be compared yet: no seed of {facts.baseline.name} and of another arm is finished."
    counts = Counter(one.comparison.verdict.decision for one in found)
    parts = [f"{text} in {counts[name]}" for name, text in _WORDS.items() if counts[name]]
    tasks = len({one.comparison.task for one in found})
    where = f"{tasks} tasks" if tasks > 1 else f"the task {found[0].comparison.task}"
    if len(found) == 1:
        one = found[0].comparison
        return f"{one.arm} against {facts.baseline.name} on {where}: {_WORDS[one.verdict.decision]}."
    return f"{len(found)} comparisons with {facts.baseline.name} on {where}: {'; '.join(parts)}."


def _size(facts: Facts, one: Contrast) -> tuple[bool, float]:
    """Return what claims are sorted by: lower losses before higher ones, the larger difference first.

    Differences count in units of the baseline's loss, as the losses of several tasks differ in size.
    """
    comparison = one.comparison
    base = facts.of_task(comparison.task)[0][1].summary()
    difference = 0.0 if comparison.verdict.difference is None else abs(comparison.verdict.difference.mean)
    unit = base.mean if base is not None and base.mean > 0 else 1.0
    return comparison.verdict.decision == "worse", -difference / unit


def _sentence(facts: Facts, one: Contrast) -> Block:
    comparison = one.comparison
    task = f"{comparison.task}: " * (len(facts.study.tasks) > 1)
    more = f"{comparison.verdict.by_seed} Time {comparison.times}."
    if comparison.common is not None:
        more += f" Time {comparison.common.describe(comparison.arm, facts.baseline.name)}."
    return claim(task + comparison.verdict.sentence, comparison.verdict.decision, more=more)
