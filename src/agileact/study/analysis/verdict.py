"""One sentence on two arms that a careful statistician would sign."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from agileact._errors import ArgumentError
from agileact.study.analysis.paired import (
    Difference,
    Values,
    check_level,
    paired_difference,
    sign_flip_test,
    smallest_effect,
)
from agileact.study.analysis.tasks import probability_of_improvement

Decision = Literal["better", "worse", "same", "undecided", "unstable"]


@dataclass(frozen=True)
class Verdict:
    """What the runs allow to say of a first arm against a second one.

    Attributes:
        decision: "better" or "worse": the first arm's loss is lower or higher, beyond chance. "same": no difference
            that matters. "undecided": too few seeds to say. "unstable": runs diverged, so means do not exist.
        sentence: The verdict in words.
        difference: Mean paired difference, first minus second, with its interval; None if runs diverged.
        p_value: Of the paired permutation test, corrected as told; None if runs diverged.
        detectable: The smallest difference that these seeds would have shown; None if it cannot be told.
    """

    decision: Decision
    sentence: str
    difference: Difference | None
    p_value: float | None
    detectable: float | None


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
) -> Verdict:
    """Compare two arms over paired seeds; lower values are better.

    A difference is claimed only if both the exact paired test (:func:`sign_flip_test`, corrected for
    ``comparisons``) and the interval say so; where only one does, the verdict is open. Where neither does, the
    sentence says how large a difference these seeds would have shown. With ``matters``, a difference counts as none
    if the whole interval lies within it (equivalence), and the lack of one is a finding in that case alone.

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
    if any(math.isinf(value) for value in (*first, *second)):
        return _unstable(name, first, other, second, measure)
    count = len(first)
    difference = paired_difference(first, second, level=level, comparisons=comparisons)
    own = min(1.0, sign_flip_test(first, second) * comparisons)
    p = own if p_value is None else p_value
    detectable = smallest_effect(first, second, level=level, power=power, comparisons=comparisons)
    if difference.low is None or difference.high is None or detectable is None:
        sentence = f"One seed says nothing about chance: {name} and {other} differ by {abs(difference.mean):.3g} in it."
        return Verdict("undecided", sentence, difference, p, None)
    percent = f"{100 * level:g} %"
    together = "" if comparisons == 1 else f", {comparisons} comparisons together"
    interval = f"{percent} interval {_signed(difference.low)} to {_signed(difference.high)}{together}"
    test = f"paired permutation test p = {p:.2g}; {count} seeds"
    inside = matters is not None and -matters < difference.low and difference.high < matters
    if p < 1 - level and difference.sign != 0:
        decision: Decision = "better" if difference.sign < 0 else "worse"
        word = "lower" if difference.sign < 0 else "higher"
        nearest, farthest = sorted((abs(difference.low), abs(difference.high)))
        evidence = f"({percent} interval {nearest:.3g} to {farthest:.3g}{together}; {test})"
        if inside:
            return Verdict(
                "same",
                f"{name} has a {word} {measure} than {other}, by {abs(difference.mean):.3g} {evidence}, but that is "
                f"less than the {matters:g} that would matter.",
                difference,
                p,
                detectable,
            )
        sentence = f"{name} has a {word} {measure} than {other}: by {abs(difference.mean):.3g} {evidence}."
        return Verdict(decision, sentence, difference, p, detectable)
    seen = f"with these {count} seeds an effect larger than {detectable:.2g} would have been seen"
    chance = f"(in {100 * power:g} % of such studies; mean difference {_signed(difference.mean)}, {interval})"
    least = min(1.0, 2 / 2**count * comparisons)
    if inside:
        sentence = (
            f"No difference that matters was found in {measure} between {name} and {other}: the interval lies within "
            f"{matters:g}; {seen} {chance}."
        )
        return Verdict("same", sentence, difference, p, detectable)
    if least >= 1 - level:
        sentence = (
            f"Undecided: {count} seeds cannot show a difference at this level, whatever it is (the exact test's least "
            f"p-value is {least:.2g}); {name} minus {other} in {measure}: {_signed(difference.mean)}, {interval}."
        )
        return Verdict("undecided", sentence, difference, p, detectable)
    if (p < 1 - level) != (difference.sign != 0):
        shown = "exact test shows" if p < 1 - level else "interval shows"
        sentence = (
            f"Undecided: of the exact test and the interval only the {shown} a difference in {measure}; {name} minus "
            f"{other}: {_signed(difference.mean)} ({interval}; {test})."
        )
        return Verdict("undecided", sentence, difference, p, detectable)
    if matters is not None:
        sentence = (
            f"Undecided: no difference in {measure} was found between {name} and {other}, but one of {matters:g} would "
            f"matter and is not excluded; {seen} {chance}."
        )
        return Verdict("undecided", sentence, difference, p, detectable)
    sentence = f"No difference that matters was found in {measure} between {name} and {other}: {seen} {chance}."
    return Verdict("same", sentence, difference, p, detectable)


def _unstable(name: str, first: Values, other: str, second: Values, measure: str) -> Verdict:
    """Describe runs of which some diverged: by counts and order, as differences do not exist."""
    lost, lost_other = (sum(math.isinf(v) for v in values) for values in (first, second))
    share = probability_of_improvement([[v] for v in first], [[v] for v in second]).value
    sentence = (
        f"{name} diverged in {lost} of {len(first)} runs, {other} in {lost_other}: no mean {measure} exists. Counting "
        f"diverged runs as the worst, a run of {name} is the better one with probability {share:.2f}."
    )
    return Verdict("unstable", sentence, None, None, None)


def _signed(value: float) -> str:
    return f"{value:+.3g}"
