"""The verdict: what may be claimed, what may not, and what a reader must know before either."""

from collections import Counter

from agileact.study.report.blocks import Block, claim, details, paragraph, section
from agileact.study.results.contrasts import Comparison
from agileact.study.results.outcome import Outcome
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


def verdict(outcome: Outcome) -> Block:
    """Return the section: the count of decisions, what qualifies it, the claims, then everything else folded away."""
    blocks: list[Block] = []
    most = outcome.study.most_trials
    if not outcome.current.finished:
        done = f"Not finished: {outcome.current.done} of at most {most} trials are done."
        blocks.append(paragraph(f"{done} Everything below is about these, and may change.", tone="note"))
    blocks.append(paragraph(headline(outcome), tone="lead"))
    own = [f"{note[0].upper()}{note[1:]}." for note in outcome.notes]
    blocks += [paragraph(note, tone="note") for note in (*outcome.around.notes, *own)]
    if outcome.study.protocol.select == "test":
        text = (
            "Losses are the lowest test losses over all evaluations, the paper's way of choosing the iteration. "
            "It flatters every arm, and those with restless curves most."
        )
        blocks.append(paragraph(text, tone="note"))
    claims = [one for one in outcome.comparisons if one.verdict.decision in ("better", "worse")]
    claims.sort(key=lambda one: _size(outcome, one))
    others = [one for one in outcome.comparisons if one not in claims]
    sentences = [
        claim(
            f"{one.task}: " * (len(outcome.study.tasks) > 1) + _short(one),
            one.verdict.decision,
            more=" ".join([one.verdict.sentence, *one.beside]),
        )
        for one in (*claims, *others)
    ]
    open_ones = max(len(claims), _SENTENCES)
    blocks += sentences[:open_ones]
    if len(sentences) > open_ones:
        blocks.append(details(f"{len(sentences) - open_ones} more comparisons", sentences[open_ones:]))
    if outcome.ranking is not None:
        blocks.append(paragraph(f"{outcome.ranking.describe(outcome.arm_names, len(outcome.study.tasks))}."))
    return section("verdict", "Verdict", blocks)


def headline(outcome: Outcome) -> str:
    """Return one sentence on all comparisons."""
    found = outcome.comparisons
    if not found:
        if len(outcome.study.arms) == 1:
            return f"The study has one arm, {outcome.baseline.name}: there is nothing to compare it with."
        return f"Nothing can be compared yet: no seed of {outcome.baseline.name} and of another arm is finished."
    counts = Counter(one.verdict.decision for one in found)
    parts = [f"{text} in {counts[name]}" for name, text in _WORDS.items() if counts[name]]
    tasks = len({one.task for one in found})
    where = f"{tasks} tasks" if tasks > 1 else f"the task {found[0].task}"
    if len(found) == 1:
        one = found[0]
        return f"{one.arm} against {outcome.baseline.name} on {where}: {_WORDS[one.verdict.decision]}."
    return f"{len(found)} comparisons with {outcome.baseline.name} on {where}: {'; '.join(parts)}."


def _size(outcome: Outcome, one: Comparison) -> tuple[bool, float]:
    """Return what claims are sorted by: lower losses before higher ones, the larger difference first.

    Differences count in units of the baseline's loss, as the losses of several tasks differ in size.
    """
    base = outcome.of_task(one.task)[0][1].summary()
    difference = 0.0 if one.verdict.difference is None else abs(one.verdict.difference.mean)
    unit = base.mean if base is not None and base.mean > 0 else 1.0
    return one.verdict.decision == "worse", -difference / unit


def _short(one: Comparison) -> str:
    """Return the comparison in a sentence without its evidence."""
    found = one.verdict.difference
    size = "" if found is None else f" by {abs(found.mean):.3g}"
    idle = " Some runs did not learn." * any(one.idle)
    return {
        "better": f"{one.arm} has a lower test loss than {one.base}{size}.",
        "worse": f"{one.arm} has a higher test loss than {one.base}{size}.",
        "same": f"No difference that matters was found between {one.arm} and {one.base}.",
        "undecided": f"Undecided between {one.arm} and {one.base}.",
        "unstable": f"Runs of {one.arm} or {one.base} diverged: there is no mean to compare.",
    }[one.verdict.decision] + idle
