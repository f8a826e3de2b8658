"""Studies with made-up results for the tests of the report."""

from __future__ import annotations

import math
from typing import Any

from agileact.study.results.outcome import Outcome
from agileact.study.running.planner import Lookup, plan
from agileact.study.spec.arms import Arm, arm, every_arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.result import Curve, LayerTrace, Shape, TrialResult
from agileact.study.spec.tasks import Task, task
from agileact.study.spec.trial import TrialSpec
from tests.study.builders import make_result

PROTOCOL = Protocol(trials=3, lr=(0.001, 0.01), tuning_seeds=(50,), seeds=tuple(range(8)))
EVIL = (
    "</script><script>window.hit=1;alert(1)</script>",
    "<img src=x onerror=window.hit=2>",
    "javascript:window.hit=3",
    "<b>bold</b> &amp; %{x} <a href='http://example.com/'>link</a>",
    "한국어 \u2028 이름",
)


def small_study(**changes: Any) -> Study:
    fields: dict[str, Any] = {
        "name": "small",
        "arms": (arm("relu"), arm("agile-relu"), arm("gelu")),
        "tasks": (task("digits-mlp"), task("diabetes-mlp")),
        "protocol": PROTOCOL,
        **changes,
    }
    return Study(**fields)


def big_study() -> Study:
    return small_study(
        name="big",
        arms=tuple(every_arm("relu")),
        tasks=(task("digits-mlp"), task("diabetes-mlp"), task("friedman1-mlp")),
    )


def evil_study() -> Study:
    arms = (Arm("relu", arm("relu").spec), *(Arm(name, arm(f"agile-{base}").spec) for name, base in EVIL_ARMS))
    return small_study(name=EVIL[0], arms=arms, tasks=(Task(EVIL[1], task("digits-mlp").spec),))


EVIL_ARMS = tuple(zip(EVIL, ("relu", "sigmoid", "tanh", "gelu", "silu"), strict=True))


def made_up(spec: TrialSpec, *, points: int = 12) -> TrialResult:
    """A result that is a function of the spec: agile is better by 0.1, gelu diverges with seed 3 on digits."""
    name = str(spec.arm.activation("fc"))
    agile = name.startswith(("agile", "combined"))
    low = 1 - 0.1 * agile + 0.3 * abs(math.log(spec.arm.lr / 0.01)) + 0.01 * math.sin(17 * spec.seed + len(name))
    diverged = name == "gelu" and spec.seed == 3 and spec.task.data.name == "digits"
    iterations = [10 * n for n in range(points)]
    curve = [low + 2 * math.exp(-n * (4 + 2 * agile) / points) for n in range(points - 1)] + [low]
    ramp = [n / points for n in range(points)]
    rows = [[max(x / 10, 0.0) * (1 + c / 10) for x in range(-60, 61, 2)] for c in range(4)]
    return make_result(
        spec,
        status="diverged" if diverged else "finished",
        curve=Curve(
            iterations, [value * 0.9 for value in curve], curve, [], curve if spec.task.budget.test_curve else []
        ),
        layers={"fc1": LayerTrace([1 - r / 2 for r in ramp], [1 + r for r in ramp], [-r for r in ramp], ramp)}
        if agile
        else {},
        shapes={
            "fc1_activation": Shape(tuple(x / 10 for x in range(-60, 61, 2)), rows[:1], rows, [0.5, 2.0], [-1.0, 1.0])
        }
        if agile
        else {},
        selected_test_loss=low + 0.02,
        selected_test_accuracy=None,
        best_test_loss=low + 0.01 if spec.task.budget.test_curve else None,
        versions={"torch": "2.0", "agileact": "0.1.0"},
        saved_bytes=4000,
    )


def lookup_of(study: Study, make: Any = made_up) -> Lookup:
    """Every trial of a study as if it had been run."""
    found: dict[TrialSpec, TrialResult] = {}

    def lookup(spec: TrialSpec) -> TrialResult:
        return found.setdefault(spec, make(spec))

    assert plan(study, lookup).finished
    return lookup


def outcome_of(study: Study, make: Any = made_up) -> Outcome:
    return Outcome(study, lookup_of(study, make))


def walk(block: Any) -> Any:
    """Yield every block below ``block``, itself included."""
    if isinstance(block, dict):
        if "kind" in block:
            yield block
        for value in block.values():
            yield from walk(value)
    elif isinstance(block, list):
        for value in block:
            yield from walk(value)
