"""What each arm costs: time of a step, memory, parameters."""

from __future__ import annotations

import math

from agileact.study.report.blocks import Block, cell, chart, number, paragraph, section, table
from agileact.study.report.facts import Facts
from agileact.study.statistics import summarise


def cost(facts: Facts) -> Block:
    """Return the section."""
    content: list[Block] = []
    for task in facts.study.tasks:
        block = _chart(facts, task.name)
        if block is not None:
            content.append({**block, "task": task.name})
    if not content:
        return section("cost", "Cost", [paragraph(facts.why_nothing)])
    text = (
        "A step is forward pass, backward pass and update; evaluations are left out. A bar is the mean and its whisker "
        "the standard deviation over seeds. Where trials ran side by side, or beside other work, small differences "
        "are noise. Memory is what one training batch keeps for its backward pass, without parameters."
    )
    return section("cost", "Cost", [paragraph(text), *content])


def _chart(facts: Facts, task: str) -> Block | None:
    series, rows = [], []
    fastest = (math.inf, "")
    base: float | None = None
    for arm, found in facts.of_task(task):
        steps = summarise([result.seconds_per_iteration * 1000 for result in found.results])
        if steps is None:
            continue
        if arm == 0:
            base = steps.mean
        first = found.results[0]
        total = sum(result.seconds for result in found.results)
        relative = steps.mean / base if base else None
        name = facts.arm_names[arm]
        fastest = min(fastest, (steps.mean, name))
        series.append({"arm": arm, "name": name, "value": number(steps.mean), "spread": number(steps.deviation)})
        rows.append(
            [
                cell(name, arm=arm),
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
        f"cost-{task}",
        f"{task}: milliseconds per training step",
        f"Time of a training step on {task}: the shortest is that of {fastest[1]}, {fastest[0]:.4g} ms.",
        form="bars",
        series=series,
        x="ms per step",
        table=table(
            f"cost-numbers-{task}",
            f"Cost on {task}.",
            ["arm", "ms per step", f"relative to {facts.baseline.name}", "kB for backward", "parameters", "s in all"],
            rows,
            numeric=range(1, 6),
        ),
    )
