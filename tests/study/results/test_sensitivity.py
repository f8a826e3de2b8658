"""Sensitivity from a study's tuning trials, against numbers worked out by hand."""

from __future__ import annotations

import json
import math

import pytest

from agileact.study.results.outcome import Outcome
from agileact.study.results.printing import show
from agileact.study.running.planner import plan
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.result import Curve, TrialResult
from agileact.study.spec.tasks import task
from agileact.study.spec.trial import TrialSpec
from tests.study.builders import make_result

LOSS = {0.001: 0.5, 0.01: 0.4, 0.1: math.inf}


def outcome_of(replicates: int = 1) -> Outcome:
    """A study whose tuning loss is known by rate: two seeds, 0.1 apart; the largest rate diverges."""
    protocol = Protocol(trials=3, lr=tuple(LOSS), activation_lr=(), tuning_seeds=(50, 51), seeds=(0,), extend=False,
                        replicates=replicates)  # fmt: skip
    study = Study("s", (arm("relu"), arm("gelu")), (task("digits-mlp"),), protocol)

    def result(spec: TrialSpec) -> TrialResult:
        place = min(LOSS, key=lambda rate: abs(math.log(rate / spec.arm.lr)))
        value = LOSS[place] + 0.1 * (spec.seed % 10)
        status = "diverged" if math.isinf(value) else "finished"
        losses = [2.0, 9.0 if math.isinf(value) else value]
        return make_result(spec, status=status, curve=Curve([0, 50], losses, losses), selected_test_loss=value)

    done: dict[TrialSpec, TrialResult] = {}
    while (after := plan(study, done.get)).tuning or after.final:
        done.update((spec, result(spec)) for spec in (*after.tuning, *after.final) if spec not in done)
        if all(spec in done for spec in (*after.tuning, *after.final)) and not plan(study, done.get).tuning:
            break
    return Outcome(study, done.get)


def test_a_study_knows_how_much_its_arms_need_tuning():
    first = outcome_of().sensitivity[0]
    assert (first.task, first.arm) == ("digits-mlp", "relu")
    assert first.rates == (0.001, 0.01, 0.1)
    assert first.mean == pytest.approx((0.55, 0.45, math.inf))
    assert first.low == pytest.approx((0.5, 0.4, math.inf))
    assert first.high == pytest.approx((0.6, 0.5, math.inf))
    (one,) = first.ranges
    # From 0.45 at 0.01 a line to 0.55 at 0.001 crosses 0.495 after 0.45 decades; above, training diverges.
    assert one.decades == pytest.approx(0.45)
    assert {n: summary.mean for n, summary in first.best_of.items()} == pytest.approx(
        {1: (0.45 + 0.55 + 2.0) / 3, 2: (0.45 + 0.45 + 0.55) / 3}
    )


def test_replicates_give_the_spread():
    first = outcome_of(replicates=3).sensitivity[0]
    assert len(first.ranges) == 3
    assert len(first.rates) == 9
    assert first.decades is not None
    assert first.decades.count == 3


def test_it_is_shown(capsys: pytest.CaptureFixture[str]):
    show(outcome_of())
    assert "decades within 10 %" in capsys.readouterr().out
    show(outcome_of(), as_json=True)
    (first, _) = json.loads(capsys.readouterr().out)["sensitivity"]
    assert first["decades within 10 %"] == "0.45"
    assert first["best of 8"] == "–"
