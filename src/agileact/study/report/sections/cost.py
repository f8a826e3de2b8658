"""What each arm costs: time of a step, memory, parameters."""

from agileact.study.report.blocks import Block, cell, chart, measured, number, of_tasks, task_section
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
    series: list[Block] = []
    rows = []
    base: float | None = None
    for arm, found in outcome.of_task(task):
        steps = summarise([result.seconds_per_iteration * 1000 for result in found.results])
        if steps is None:
            continue
        if arm == 0:
            base = steps.mean
        first = found.results[0]
        series.append({"arm": arm, "name": found.arm, "value": number(steps.mean), "spread": number(steps.deviation)})
        rows.append(
            [
                cell(found.arm, arm=arm),
                cell(steps.format(3), steps.mean),
                measured(steps.mean / base if base else None, ".2f"),
                measured(None if first.saved_bytes is None else first.saved_bytes / 1000, ",.0f"),
                measured(first.parameters, ","),
                measured(sum(result.seconds for result in found.results), ",.1f"),
            ]
        )
    if not series:
        return None
    fastest = min(series, key=lambda one: one["value"])
    return chart(
        "cost",
        task,
        f"{task}: milliseconds per training step",
        f"Time of a training step on {task}: the shortest is that of {fastest['name']}, {fastest['value']:.4g} ms.",
        form="bars",
        series=series,
        x="ms per step",
        numbers=(
            f"Cost on {task}.",
            ["arm", "ms per step", f"relative to {outcome.baseline.name}", "kB for backward", "parameters", "s in all"],
            rows,
        ),
    )
