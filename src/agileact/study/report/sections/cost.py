"""What each arm costs: time of a step, memory, parameters."""

from __future__ import annotations

import math

from agileact.study.report.blocks import Block, cell, chart, number, of_tasks, task_section
from agileact.study.results.outcome import Outcome
from agileact.study.statistics import summarise


def cost(outcome: Outcome) -> Block:
    """Return the section."""
    text = (
        "A step is forward pass, backward pass and update; evaluations are left out. A bar is the mean and its whisker "
        "the standard deviation over seeds. Where trials ran side by side, or beside other work, small differences "
        "are noise. Memory is what one training batch keeps for its backward pass, without parameters."
    )
    return task_section("cost", "Cost", text, of_tasks(outcome, lambda task: _chart(outcome, task)), outcome)


def _chart(outcome: Outcome, task: str) -> Block | None:
    series, rows = [], []
    fastest = (math.inf, "")
    base: float | None = None
    for arm, found in outcome.of_task(task):
        steps = summarise([result.seconds_per_iteration * 1000 for result in found.results])
        if steps is None:
            continue
        if arm == 0:
            base = steps.mean
        first = found.results[0]
        total = sum(result.seconds for result in found.results)
        relative = steps.mean / base if base else None
        fastest = min(fastest, (steps.mean, found.arm))
        series.append({"arm": arm, "name": found.arm, "value": number(steps.mean), "spread": number(steps.deviation)})
        rows.append(
            [
                cell(found.arm, arm=arm),
                cell(steps.format(3), steps.mean),
                cell("–" if relative is None else f"{relative:.2f}", relative),
                cell("–" if first.saved_bytes is None else f"{first.saved_bytes / 1000:,.0f}", first.saved_bytes),
                cell(f"{first.parameters:,}", first.parameters),
                cell(f"{total:,.1f}", total),
            ]
        )
    if not series:
        return None
    return chart(
        "cost",
        task,
        f"{task}: milliseconds per training step",
        f"Time of a training step on {task}: the shortest is that of {fastest[1]}, {fastest[0]:.4g} ms.",
        form="bars",
        series=series,
        x="ms per step",
        numbers=(
            f"Cost on {task}.",
            ["arm", "ms per step", f"relative to {outcome.baseline.name}", "kB for backward", "parameters", "s in all"],
            rows,
        ),
    )
