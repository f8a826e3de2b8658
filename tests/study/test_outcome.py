"""What a reader of a study must know beside its numbers."""

from __future__ import annotations

from agileact.study import outcome
from agileact.study.arms import arm
from agileact.study.protocol import Protocol, Study, final_trials, plan
from agileact.study.result import Curve, TrialResult
from agileact.study.tasks import task
from tests.study.builders import make_result


def test_runs_that_have_not_learned_are_told():
    protocol = Protocol(tune=False, seeds=(0, 1, 2))
    study = Study("s", (arm("relu"), arm("agile-relu")), (task("paper-mlp"),), protocol)
    dead, learned = [2.31, 2.30, 2.305], [2.31, 0.4, 0.3]
    curves = {"relu": (dead, learned, learned), "agile-relu": (learned, learned, learned)}
    results: dict[object, TrialResult] = {}
    for one in study.arms:
        specs = final_trials(protocol, one, study.tasks[0], None)
        for spec, losses in zip(specs, curves[one.name], strict=True):
            results[spec] = make_result(spec, curve=Curve([0, 50, 100], losses, losses))
    current = plan(study, results.get)
    assert outcome.flags(current, outcome.cells(study, current, results.get)) == [
        ("paper-mlp", "relu", "1 of 3 final runs did not learn: the validation loss fell by less than 5 %")
    ]
