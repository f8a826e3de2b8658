"""What a run leaves behind: results.json, table.md and the figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agileact._common.files import write_atomically
from agileact._common.machine import hardware, versions
from agileact.paper import table as paper_table
from agileact.paper.figures import draw_all
from agileact.paper.recipe import Recipe
from agileact.paper.xor import XorOutcome
from agileact.study.spec.result import TrialResult


def results_document(
    results: Sequence[TrialResult],
    recipe: Recipe,
    *,
    description: str,
    fingerprint: str,
    reading: Sequence[str],
) -> dict[str, Any]:
    """Return everything a program may want of a run, as plain JSON types.

    ``rows`` has one entry for each trial of the paper's network; ``fully_connected`` one for each trial of
    Fig. 11. A number that does not exist, because a trial diverged before its first evaluation, is null.
    """
    return {
        "dataset": recipe.data,
        "dataset_description": description,
        "dataset_fingerprint": fingerprint,
        "versions": versions(),
        "hardware": hardware(),
        "recipe": {name: getattr(recipe, name) for name in recipe.__dataclass_fields__},
        "rows": [_row(r) for r in results if r.spec.task.model.name == "cnn"],
        "fully_connected": [_row(r) for r in results if r.spec.task.model.name == "mlp"],
        "reading": list(reading),
    }


def _row(result: TrialResult) -> dict[str, Any]:
    conv, fc = paper_table.combination(result)
    row = {
        "conv": conv or None,
        "fc": fc,
        "seed": result.spec.seed,
        "status": result.status,
        "best_test_loss": result.best_test_loss,
        "best_iteration": result.best_iteration,
        "selected_test_loss": result.selected_test_loss,
        "selected_test_accuracy": result.selected_test_accuracy,
        "selected_iteration": result.selected_iteration,
        "final_train_loss": result.curve.train_loss[-1],
        "seconds_per_iteration": result.seconds_per_iteration,
        "parameters": result.parameters,
        "trial": result.spec.key,
        "versions": result.versions,
    }
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def table_document(
    rows: Sequence[paper_table.Row], recipe: Recipe, *, description: str, reading: Sequence[str], command: str
) -> str:
    """Return table.md: the table, what was run on what, and the reading."""
    rate = "the same" if recipe.activation_lr is None else f"{recipe.activation_lr:g}"
    return "\n".join(
        [
            "# The paper's Table 1 and ours",
            "",
            f"Data: {description}.",
            f"{len(recipe.seeds)} seed(s), {recipe.iterations} iterations, batch {recipe.batch_size}, "
            f"{recipe.optimizer} with learning rate {recipe.lr:g} (scale and location: {rate}), "
            f"evaluated every {recipe.evaluate_every} iterations.",
            f"Command: `{command}`",
            f"Hardware: {hardware()}. Versions: "
            + ", ".join(f"{name} {number}" for name, number in versions().items())
            + ".",
            "",
            paper_table.markdown(rows),
            "",
            "Paper: doi 10.3745/KTSDE.2020.9.7.213, Table 1; which layer names belong to which row, and that its loss "
            "is the lowest test loss, is our reading. Ours: mean ± standard deviation over seeds.",
            "",
            "## Reading",
            "",
            *_markdown_paragraphs(reading),
            "",
        ]
    )


def _markdown_paragraphs(reading: Sequence[str]) -> list[str]:
    """Put a blank line before each sentence that is not an item of a list or follows one."""
    lines: list[str] = []
    for sentence in reading:
        item = sentence.startswith("- ")
        if lines and not (item and lines[-1].startswith("- ")):
            lines.append("")
        lines.append(sentence)
    return lines


def write_outputs(
    out: Path,
    results: Sequence[TrialResult],
    document: dict[str, Any],
    table: str,
    *,
    xor: XorOutcome,
    notify: Callable[[str], None],
) -> list[Path]:
    """Write results.json, table.md and figures/ below ``out``; return the paths that were written."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(out / "results.json", text + "\n")
    write_atomically(out / "table.md", table)
    dataset = str(document["dataset"])
    return [
        out / "results.json",
        out / "table.md",
        *draw_all(results, out / "figures", dataset=dataset, xor=xor, notify=notify),
    ]
