"""Time to a given loss: the share of runs that got there, over iterations and over seconds."""

from agileact.study.report.blocks import Block, cell, chart, choice, measured, numbers, of_tasks, paragraph, section
from agileact.study.results.outcome import Outcome
from agileact.study.statistics import TimesToLoss

_UNITS = ("iterations", "seconds")


def times(outcome: Outcome) -> Block:
    """Return the section."""
    base = outcome.baseline.name

    def pick(task: str) -> Block | None:
        known = {arm: found.times for arm, found in outcome.of_task(task) if found.times is not None}
        if known:
            return choice(f"times-{task}", f"{task}: over", {u: [_chart(outcome, task, u, known)] for u in _UNITS})
        if outcome.of_task(task)[0][1].diverged:
            return paragraph(f"{task}: not defined, as a run of {base} diverged and so sets no goal.")
        return None

    content = of_tasks(outcome, pick)
    if all(one["kind"] == "paragraph" for one in content):
        text = f"Not defined yet: no trial of {base} is finished."
        return section("times", "Time to a given loss", content or [paragraph(text)])
    text = (
        f"Each run's goal is the lowest validation loss that {base} reached with the same seed. The line is the share "
        "of an arm's runs that had reached theirs; a run that never does keeps it below 1. This is no test: "
        f"{base} reaches its own best by definition, an equally good arm in about half of its runs. Which of "
        "two is earlier is tested with the verdict, on the loss that both reach. Seconds are training steps alone, "
        "without evaluations."
    )
    return section("times", "Time to a given loss", [paragraph(text), *content])


def _chart(outcome: Outcome, task: str, unit: str, known: dict[int, TimesToLoss]) -> Block:
    names = outcome.arm_names
    series, rows = [], []
    middle: dict[int, float] = {}
    for arm, found in known.items():
        at, shares = found.shares(unit)
        end = max(time.horizon * (1.0 if unit == "iterations" else time.seconds_per_iteration) for time in found.times)
        series.append(
            {
                "arm": arm,
                "name": names[arm],
                "x": numbers([0.0, *at, max(end, *at, 0.0)]),
                "y": numbers([0.0, *shares, shares[-1] if shares else 0.0]),
                "step": True,
            }
        )
        median = found.median(unit)
        if median is not None:
            middle[arm] = median
        rows.append(
            [
                cell(names[arm], arm=arm),
                cell(f"{found.reached} of {len(found.times)}", found.reached / len(found.times)),
                cell("beyond the budget") if median is None else measured(median),
            ]
        )
    first = min(middle, key=lambda arm: middle[arm], default=None)
    fastest = (
        "no arm has a median within the budget"
        if first is None
        else f"the shortest median, {middle[first]:.4g} {unit}, is that of {names[first]}"
    )
    return chart(
        "times",
        f"{task}-{unit}",
        f"{task}: runs that reached the best validation loss of {outcome.baseline.name}",
        f"Share of runs on {task} that reached the baseline's best validation loss, over {unit}: {fastest}.",
        form="lines",
        series=series,
        x="iteration" if unit == "iterations" else "seconds of training",
        y="share of runs",
        unit_y=True,
        numbers=(
            f"Time to the best validation loss of {outcome.baseline.name} on {task}, in {unit}.",
            ["arm", "runs that got there", f"median {unit}"],
            rows,
        ),
    )
