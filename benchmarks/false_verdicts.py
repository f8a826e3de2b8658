"""How often a study calls an arm better or worse than itself: with one tuning, and with tuning a part of the noise.

`simulate` draws studies of two equal arms from a model of the noise: a tuning chooses well or, now and then, badly, for
all seeds of its replicate at once; each seed adds noise of its own. `run` trains a real arm many times over, each time
tuned afresh: a pool of replicates in a store. `show` draws pairs of groups of replicates out of that pool and has the
verdict of each pair: every "better" or "worse" is false, for both groups are the same arm. Beside it stands the verdict
over the seeds of one replicate against those of another, which is what a study says whose tuning is done once.

    python benchmarks/false_verdicts.py simulate
    python benchmarks/false_verdicts.py run  --out runs/null                  # 20 minutes; goes on where it was
    python benchmarks/false_verdicts.py show --out runs/null [--json benchmarks/results/false_verdicts.json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from agileact._common.files import write_atomically
from agileact._common.terminal import format_table
from agileact.bench.timing import environment
from agileact.study.results.outcome import Outcome
from agileact.study.results.source import told
from agileact.study.running.conduct import conduct, identified
from agileact.study.running.executors.local import LocalExecutor
from agileact.study.running.planner import Plan
from agileact.study.running.store import Store
from agileact.study.spec.arms import arm
from agileact.study.spec.protocol import Protocol, Study
from agileact.study.spec.tasks import Task, task
from agileact.study.statistics import verdict

Losses = npt.NDArray[np.float64]
"""Replicates x seeds."""

REPLICATES, SEEDS = 8, 8
"""Of a study: so many replicates are compared; with one tuning, so many seeds."""


def study(replicates: int) -> Study:
    """Return the null study: one arm, tuned afresh in every replicate on few validation samples."""
    digits = task("digits-mlp").spec
    spec = dataclasses.replace(
        digits,
        data=dataclasses.replace(digits.data, validation=60),
        budget=dataclasses.replace(digits.budget, iterations=150, evaluate_every=15),
    )
    protocol = Protocol(
        trials=5,
        lr=(0.0003, 0.001, 0.003, 0.01),
        tuning_seeds=(1000,),
        seeds=tuple(range(SEEDS)),
        replicates=replicates,
    )
    return Study("an arm against itself", (arm("relu"),), (Task("digits", spec),), protocol)


def over_replicates(losses: Losses, generator: np.random.Generator) -> tuple[Losses, Losses]:
    """Return the means of two groups of replicates that have none in common."""
    chosen = generator.permutation(len(losses))[: 2 * REPLICATES]
    means = losses[chosen].mean(axis=1)
    return means[:REPLICATES], means[REPLICATES:]


def over_seeds(losses: Losses, generator: np.random.Generator) -> tuple[Losses, Losses]:
    """Return the seeds of one replicate, and those of another."""
    first, second = generator.permutation(len(losses))[:2]
    return losses[first], losses[second]


def false_verdicts(
    draw: Callable[[np.random.Generator], tuple[Losses, Losses]], analyses: int, unit: str
) -> dict[str, Any]:
    """Return in how many analyses two equal arms were told apart, with Wilson's 95 % interval of the share."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(analyses):
        first, second = draw(generator)
        wrong += verdict("one", first, "other", second, unit=unit).decision in ("better", "worse")
    interval = binomtest(wrong, analyses).proportion_ci(method="wilson")
    return {
        "analyses": analyses,
        "false": wrong,
        "share": round(wrong / analyses, 4),
        "interval": [round(float(interval.low), 4), round(float(interval.high), 4)],
    }


DESIGNS = {"one tuning, seeds compared": (over_seeds, "seed"), "replicates compared": (over_replicates, "replicate")}


def simulated(spread: float, blunders: float, analyses: int, effect: float = 0.0) -> dict[str, Any]:
    """Return the verdicts of both designs on drawn losses.

    Args:
        spread: Standard deviation of what tuning and split add to all seeds of a replicate; that of a seed is 1.
        blunders: Share of tunings that choose so badly that ten is added.
        analyses: Studies to draw.
        effect: What is added to the second group.
    """
    found = {}
    for name, (design, unit) in DESIGNS.items():

        def draw(
            generator: np.random.Generator, design: Callable[..., tuple[Losses, Losses]] = design
        ) -> tuple[Losses, Losses]:
            shared = spread * generator.standard_normal((2 * REPLICATES, 1))
            shared += 10.0 * (generator.random((2 * REPLICATES, 1)) < blunders)
            first, second = design(shared + generator.standard_normal((2 * REPLICATES, SEEDS)), generator)
            return first, second + effect

        found[name] = false_verdicts(draw, analyses, unit)
    return found


def _simulate(options: argparse.Namespace) -> dict[str, Any]:
    rows, document = [], []
    for spread, blunders in ((0.0, 0.0), (0.3, 0.0), (1.0, 0.0), (3.0, 0.0), (0.3, 0.1), (0.3, 0.3)):
        found = simulated(spread, blunders, options.analyses)
        document.append({"spread": spread, "blunders": blunders, **found})
        rows.append((f"{spread:g}", f"{blunders:.0%}", *(f"{one['share']:.1%}" for one in found.values())))
    print(format_table(("spread of tuning / of a seed", "bad tunings", *DESIGNS), rows))
    return {"simulated": document}


def _run(options: argparse.Namespace) -> dict[str, Any]:
    planned, _ = identified(study(options.replicates))
    with Store(options.out / "store.sqlite") as store, LocalExecutor(options.jobs) as executor:

        def say(plan: Plan) -> None:
            print(f"{plan.done} of at most {planned.most_trials} trials; next: {len(plan.next)}", flush=True)

        conduct(planned, store, executor, on_plan=say)
    return {}


def _show(options: argparse.Namespace) -> dict[str, Any]:
    planned, _ = identified(study(options.replicates))
    outcome = told(planned, options.out / "store.sqlite").read()
    losses = pool(outcome)
    rates = [choice.point.lr for choice in outcome.cells[0].choices]
    found = {
        name: false_verdicts(
            lambda generator, design=design: design(losses, generator),  # type: ignore[misc]
            options.analyses,
            unit,
        )
        for name, (design, unit) in DESIGNS.items()
    }
    means, within = losses.mean(1).std(ddof=1), losses.std(axis=1, ddof=1).mean()
    print(
        f"{len(losses)} replicates of {losses.shape[1]} seeds; chosen learning rates {min(rates):g} to {max(rates):g}"
    )
    print(f"standard deviation of a replicate's mean {means:.4f}, of a seed in it {within:.4f}")
    rows = [(name, str(one["analyses"]), str(one["false"]), f"{one['share']:.1%}") for name, one in found.items()]
    print(format_table(("design", "analyses", "false verdicts", "share"), rows))
    return {
        "replicates": len(losses),
        "trials": len(outcome.trials),
        "learning_rates": [min(rates), max(rates)],
        "deviation_of_replicates": float(means),
        "deviation_of_seeds": float(within),
        "real": found,
    }


def pool(outcome: Outcome) -> Losses:
    """Return the test losses of the whole replicates of a study of one arm and task."""
    cell = outcome.cells[0]
    rows: dict[int, list[float]] = {unit: [] for unit in cell.units}
    for result in cell.results:
        if cell.of(result) in rows:
            rows[cell.of(result)].append(float(result.selected_test_loss or np.inf))
    return np.array(list(rows.values()))


def main() -> None:
    """Parse the command line and run the part of it that is named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parts = parser.add_subparsers(required=True)
    for name, run in (("simulate", _simulate), ("run", _run), ("show", _show)):
        part = parts.add_parser(name)
        part.set_defaults(run=run)
        part.add_argument("--json", type=Path)
        part.add_argument("--analyses", type=int, default=2000)
        part.add_argument("--out", type=Path, default=Path("runs/null"))
        part.add_argument("--replicates", type=int, default=160)
        part.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    found = options.run(options)
    if options.json is not None:
        known = json.loads(options.json.read_text()) if options.json.exists() else {"benchmark": "false verdicts"}
        document = {**known, **found, "environment": environment()}
        write_atomically(options.json, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
