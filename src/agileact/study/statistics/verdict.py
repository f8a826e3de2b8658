"""One sentence on two arms that a careful statistician would sign."""

import math
from dataclasses import dataclass
from typing import Literal

from agileact._common.errors import ArgumentError
from agileact.study.statistics.paired import (
    Difference,
    Typical,
    Values,
    check_level,
    paired_difference,
    sign_flip_test,
    signed_rank,
)
from agileact.study.statistics.power import smallest_effect
from agileact.study.statistics.tasks import probability_of_improvement

Decision = Literal["better", "worse", "same", "undecided", "unstable"]

_ROUNDING = 1e-6
"""Losses that differ relatively by no more are the same but for the rounding of float32."""


@dataclass(frozen=True)
class Verdict:
    """What the runs allow to say of a first arm against a second one.

    Attributes:
        decision: "better" or "worse": the first arm's mean is lower or higher, beyond chance; the other way round
            where higher is better. "same": no difference that matters. "undecided": too few seeds to say, or the tests
            do not agree. "unstable": runs diverged, so means do not exist.
        sentence: The verdict in words.
        difference: Mean paired difference, first minus second, with its interval; None if runs diverged.
        p_value: Of the paired permutation test, corrected as told; None if runs diverged.
        detectable: The smallest mean difference that these seeds would have shown, by the rule of the verdict; None
            if it cannot be told, or if no difference would have been shown.
        typical: The typical difference by signed ranks, which a single dead or diverged run cannot move.
        rank_p: Of the signed-rank test, corrected as told.
        by_seed: In how many seeds the first arm is lower, the typical difference and that test, in words.
    """

    decision: Decision
    sentence: str
    difference: Difference | None
    p_value: float | None
    detectable: float | None
    typical: Typical
    rank_p: float
    by_seed: str


def verdict(
    name: str,
    first: Values,
    other: str,
    second: Values,
    *,
    measure: str = "test loss",
    matters: float | None = None,
    level: float = 0.95,
    power: float = 0.8,
    comparisons: int = 1,
    p_value: float | None = None,
    rank_p: float | None = None,
    idle: tuple[int, int] = (0, 0),
    runs: int | None = None,
    unit: str = "seed",
    better: Literal["lower", "higher"] = "lower",
) -> Verdict:
    """Compare two arms over paired seeds, or other independent units.

    A difference of the means is claimed only if both the exact paired test (:func:`sign_flip_test`, corrected for
    ``comparisons``) and the interval say so; where only one does, the verdict is open. Where neither does, the
    sentence says how large a difference these seeds would have shown. With ``matters``, a difference counts as none
    if the whole interval lies within it (equivalence), and the lack of one is a finding in that case alone.

    Where the means show nothing, but signed ranks do (:func:`signed_rank`: test and interval), a dead run or two have
    drowned what the other seeds show. Then the verdict is open too, and the sentence says both.

    Args:
        name: The first arm.
        first: One value a seed; infinity for a run that diverged.
        other: The second arm.
        second: One value a seed, same seeds in the same order.
        measure: What the values are.
        matters: The smallest difference that would matter in practice, in the unit of the values.
        level: Confidence.
        power: Probability with which a detectable difference is seen.
        comparisons: How many verdicts are read together (Bonferroni).
        p_value: A p-value that was corrected already, for instance by :func:`holm`; it takes the place of the
            test's own.
        rank_p: The same for the signed-rank test.
        idle: How many runs of the first and of the second arm did not learn at all; the sentence says so.
        runs: How many runs each arm has, if not one a value.
        unit: What a value is of: "seed", or "replicate" where each is the mean of several seeds after a tuning of
            their own.
        better: Which values are good: "lower" as of a loss, or "higher" as of an accuracy, which must be finite.

    Raises:
        ArgumentError: If the sequences are not equally long or empty, hold NaN, or an option does not fit.

    Example:
        >>> first, second = [0.20, 0.22, 0.21, 0.19, 0.23, 0.20], [0.25, 0.26, 0.25, 0.25, 0.27, 0.26]
        >>> print(verdict("agile", first, "plain", second).sentence)
        agile has a lower test loss than plain: by 0.0483 (95 % interval 0.038 to 0.0587; paired permutation test \
p = 0.031; 6 seeds).
    """
    check_level(level)
    if matters is not None and not matters > 0:
        raise ArgumentError(f"matters must be greater than 0, not {matters}")
    if len(first) != len(second) or len(first) == 0:
        raise ArgumentError(f"a verdict needs two equally long sequences, not {len(first)} and {len(second)}")
    if any(math.isnan(value) for value in (*first, *second)):
        raise ArgumentError("a value is NaN; a run that diverged has the loss infinity")
    if better not in ("lower", "higher"):
        raise ArgumentError(f"better must be 'lower' or 'higher', not {better!r}")
    diverged = any(math.isinf(value) for value in (*first, *second))
    if diverged and better == "higher":
        raise ArgumentError("with better='higher' no value may be infinite; leave that seed out, or compare losses")
    count = len(first)
    equal = all(a == b or math.isclose(a, b, rel_tol=_ROUNDING) for a, b in zip(first, second, strict=True))
    typical = signed_rank(second if equal else first, second, level=level, comparisons=comparisons)
    rank = min(1.0, typical.p_value * comparisons) if rank_p is None or equal else rank_p
    learning = "".join(
        f"; {number} of {count if runs is None else runs} runs of {arm} did not learn"
        for arm, number in zip((name, other), idle, strict=True)
        if number
    )
    percent = f"{100 * level:g} %"
    together = "" if comparisons == 1 else f", {comparisons} comparisons together"
    by_seed = _by_seed(name, other, typical, f"{percent} interval", together, rank, unit)
    if diverged:
        run = "run" if unit == "seed" else unit
        lost, lost_other = (sum(math.isinf(v) for v in values) for values in (first, second))
        share = probability_of_improvement([[v] for v in first], [[v] for v in second], resamples=1).value
        # By counts and order, as differences do not exist.
        sentence = (
            f"{name} diverged in {lost} of {count} {run}s, {other} in {lost_other}: no mean {measure} exists. "
            f"Counting diverged {run}s as the worst, a {run} of {name} is the better one with probability {share:.2f}, "
            f"and {name} is lower in {typical.lower} of {count} {unit}s, higher in {typical.higher} (signed-rank test "
            f"p = {rank:.2g}{learning})."
        )
        return Verdict("unstable", sentence, None, None, None, typical, rank, by_seed)
    difference = paired_difference(first, second, level=level, comparisons=comparisons)
    p = min(1.0, sign_flip_test(first, second) * comparisons) if p_value is None else p_value
    detectable = smallest_effect(first, second, level=level, power=power, comparisons=comparisons, test="verdict")

    def found(decision: Decision, sentence: str) -> Verdict:
        return Verdict(decision, sentence, difference, p, detectable, typical, rank, by_seed)

    if difference.low is None or difference.high is None:
        chance = f"One {unit} says nothing about chance: {name} and {other} differ by {abs(difference.mean):.3g} in it"
        return found("undecided", f"{chance}{learning}.")
    interval = f"{percent} interval {_signed(difference.low)} to {_signed(difference.high)}{together}"
    test = f"paired permutation test p = {p:.2g}; {count} {unit}s{learning}"
    minus = f"{name} minus {other} in {measure}: {_signed(difference.mean)}"
    inside = matters is not None and -matters < difference.low and difference.high < matters
    if equal:
        but = "" if all(a == b for a, b in zip(first, second, strict=True)) else ", but for rounding"
        return found(
            "undecided" if detectable is None and not inside else "same",
            f"{name} and {other} have the same {measure} with each of {count} {unit}s{but}{learning}.",
        )
    if p < 1 - level and difference.sign != 0:
        word = "lower" if difference.sign < 0 else "higher"
        nearest, farthest = sorted((abs(difference.low), abs(difference.high)))
        evidence = f"({percent} interval {nearest:.3g} to {farthest:.3g}{together}; {test})"
        size = f"by {abs(difference.mean):.3g} {evidence}"
        if inside:
            return found(
                "same",
                f"{name} has a {word} {measure} than {other}, {size}, but that is less than the {matters:g} that "
                "would matter.",
            )
        decision: Decision = "better" if word == better else "worse"
        return found(decision, f"{name} has a {word} {measure} than {other}: {size}.")
    mean = f"mean difference {_signed(difference.mean)}, {interval}{learning}"
    seen = f"({mean})"
    if detectable is not None:
        seen = (
            f"with these {count} {unit}s an effect larger than {detectable:.2g} would have been seen (in "
            f"{100 * power:g} % of such studies; {mean})"
        )
    if inside:
        return found(
            "same",
            f"No difference that matters was found in {measure} between {name} and {other}: the interval lies within "
            f"{matters:g}; {seen}.",
        )
    if detectable is None:
        least = min(1.0, 2 / 2**count * comparisons)
        return found(
            "undecided",
            f"Undecided: {count} {unit}s cannot show a difference at this level, whatever it is (the exact test's "
            f"least p-value is {least:.2g}); {minus}, {interval}{learning}.",
        )
    if rank < 1 - level and typical.sign != 0:
        return found(
            "undecided",
            f"Undecided by the means ({minus}, {interval}; {test}), but {unit} by {unit} "
            f"{_seed_by_seed(name, typical, percent, together, rank)}.",
        )
    if (p < 1 - level) != (difference.sign != 0):
        shown = "exact test shows" if p < 1 - level else "interval shows"
        return found(
            "undecided",
            f"Undecided: of the exact test and the interval only the {shown} a difference in {measure}; {name} minus "
            f"{other}: {_signed(difference.mean)} ({interval}; {test}).",
        )
    if matters is not None:
        return found(
            "undecided",
            f"Undecided: no difference in {measure} was found between {name} and {other}, but one of {matters:g} would "
            f"matter and is not excluded; {seen}.",
        )
    return found("same", f"No difference that matters was found in {measure} between {name} and {other}: {seen}.")


def _seed_by_seed(name: str, typical: Typical, percent: str, together: str, p: float) -> str:
    """Say what the signed ranks show; only where they do, so that there is an interval on one side of zero."""
    low, high, estimate = typical.low or 0.0, typical.high or 0.0, typical.estimate or 0.0
    word, wins = ("lower", typical.lower) if typical.sign < 0 else ("higher", typical.higher)
    nearest, farthest = sorted((abs(low), abs(high)))
    return (
        f"{name} is {word} in {wins} of {typical.pairs}, typically by {abs(estimate):.3g} ({percent} interval "
        f"{nearest:.3g} to {farthest:.3g}{together}; signed-rank test p = {p:.2g})"
    )


def _by_seed(name: str, other: str, typical: Typical, interval: str, together: str, p: float, unit: str) -> str:
    """Put the signed ranks into a sentence of their own, whatever they show."""
    ties = typical.pairs - typical.lower - typical.higher
    wins = f"{unit.capitalize()} by {unit} {name} is lower than {other} in {typical.lower} of {typical.pairs}"
    wins += f" and equal in {ties}" if ties else ""
    size = "none exists, as runs diverged" if typical.estimate is None else _signed(typical.estimate)
    if typical.low is None or typical.high is None:
        bounds = f"too few {unit}s for an interval{together}"
    else:
        bounds = f"{interval} {_signed(typical.low)} to {_signed(typical.high)}{together}"
    return f"{wins}; typical difference (Hodges-Lehmann): {size} ({bounds}; signed-rank test p = {p:.2g})."


def _signed(value: float) -> str:
    return f"{value:+.3g}"
