"""Sensitivity to the learning rate: what an arm is worth to somebody who cannot tune it."""

from __future__ import annotations

import math

from agileact.study.report.blocks import Block, cell, chart, numbers, of_tasks, paragraph, section
from agileact.study.results.outcome import Outcome
from agileact.study.results.sensitivity import DRAWS

_TITLE = "Sensitivity to the learning rate"


def sensitivity(outcome: Outcome) -> Block:
    """Return the section."""
    content = of_tasks(outcome, lambda task: _chart(outcome, task))
    if not content:
        return section("sensitivity", _TITLE, [paragraph("There is no tuning trial, so no learning rate was varied.")])
    text = (
        "The line is the mean lowest validation loss of the tuning trials. The band reaches from the lowest to the "
        "highest run. Where more than the rate was searched, a rate shows its best point. Tuning picked the points, so "
        "the expected best of n draws is over these points. A diverged run counts there as an untrained network."
    )
    return section("sensitivity", _TITLE, [paragraph(text), *content])


def _chart(outcome: Outcome, task: str) -> Block | None:
    numbered = {name: place for place, name in enumerate(outcome.arm_names)}
    found = {numbered[arm]: one for (of, arm), one in outcome.sensitivities.items() if of == task}
    if not found:
        return None
    series = [
        {
            **{"arm": arm, "name": one.arm, "x": numbers(one.rates), "y": numbers(one.mean)},
            **{"low": numbers(one.low), "high": numbers([h if math.isfinite(h) else math.nan for h in one.high])},
        }
        for arm, one in found.items()
    ]
    rows = [
        [
            cell(one.arm, arm=arm),
            cell(one.describe_range(), one.mean_decades),
            *(cell(f"{value:.4g}" if math.isfinite(value) else "diverged", value) for value in one.expected),
        ]
        for arm, one in found.items()
    ]
    return chart(
        "sensitivity",
        task,
        f"{task}: validation loss over the learning rate",
        f"Validation loss over the learning rate on {task}, for {len(found)} arms.",
        form="lines",
        series=series,
        x="learning rate",
        y="validation loss",
        log_x=True,
        log_y=bool(all(value > 0 for one in found.values() for value in one.low)),
        numbers=(
            f"Rates within 10 % of the best on {task}, and the expected lowest loss of n random draws.",
            ["arm", "rates within 10 %", *(f"best of {n}" for n in DRAWS)],
            rows,
        ),
    )
