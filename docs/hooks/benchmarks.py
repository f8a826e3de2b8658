"""The benchmarks page, from the committed results in benchmarks/results/."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_NAMES = {"relu": "ReLU", "sigmoid": "sigmoid", "tanh": "tanh", "silu": "SiLU", "gelu": "GELU"}


def page(results: Path, history: dict[str, str]) -> str:
    """Return the page as Markdown.

    Args:
        results: The folder with a JSON file for each benchmark.
        history: The commit in which each file was last changed, by the file's name; what is missing is not told.
    """
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}
    sections = [section(found[name]) for name, section in _SECTIONS.items() if name in found]
    other = [name for name in found if name not in _SECTIONS]
    parts = [_HEAD, _machines(found, history), *sections, _others(other), _not_measured(found)]
    return "\n\n".join(part for part in parts if part) + "\n"


_HEAD = """\
# Benchmarks

This page is made from the files in [benchmarks/results](../benchmarks/results/op.json) each time the site is built; no
number on it is typed. Times are medians of interleaved runs in one process, and what is told is a *ratio*: agile
divided by what it is compared with, so below 1 is faster. Repeat them with `make bench`; what they mean and where
time goes stands in [Kernels](kernels.md)."""


def _not_measured(found: dict[str, Any]) -> str:
    environments = [result.get("environment", {}) for result in found.values()]
    lines = ["Forward mode (`torch.func.jvp`) and second derivatives are tested for their values, not for speed."]
    if not any(row.get("compile_us") for row in found.get("op", {}).get("rows", [])):
        lines.insert(0, "`torch.compile`: its rows are only in a run of `agileact bench op` without `--quick`.")
    if all("x86_64" in one.get("system", "") for one in environments):
        lines.insert(0, "Other machines: everything above is Linux on x86-64. No ARM, no Windows, no macOS.")
    if not any("cuda" in json.dumps(one).lower() for one in environments):
        words = "how fast they are on a GPU is not known."
        lines.insert(0, f"**A GPU.** The Triton kernels are tested under Triton's interpreter; {words}")
    return "## Not measured\n\n" + "\n".join(f"- {line}" for line in lines)


def _machines(found: dict[str, Any], history: dict[str, str]) -> str:
    rows = []
    for name, result in found.items():
        one = result.get("environment", {})
        rows.append(
            (
                f"[{name}](../benchmarks/results/{name}.json)",
                f"{one.get('cpu', 'not recorded')}, {one.get('capability', '')}".strip(", "),
                one.get("system", "not recorded").split("-")[0],
                one.get("torch", "not recorded"),
                one.get("python", "not recorded"),
                one.get("agileact", "not recorded"),
                one.get("kernels", "not recorded"),
                f"`{history[name + '.json']}`" if name + ".json" in history else "not known",
            )
        )
    header = ("result", "processor", "system", "PyTorch", "Python", "agileact", "kernels", "commit of the result")
    return "## Where they were measured\n\n" + _table(header, rows)


def _op(result: dict[str, Any]) -> str:
    rows = [
        (
            _NAMES.get(base, base),
            _pair(one, "training"),
            _pair(one, "inference"),
            f"{one['bfloat16_to_float32_mean']:.2f} ({one['bfloat16_to_float32_worst']:.2f})",
        )
        for base, one in result["summary"].items()
    ]
    threads = sorted({row["threads"] for row in result["rows"] if "threads" in row})
    return (
        "## One activation: agile / plain\n\n"
        "`agileact bench op`. Geometric mean over the shapes, with the worst row in brackets; "
        f"{len(result['rows'])} rows, on {_and(threads)} threads. The third column divides bfloat16 by float32, "
        "both agile, in training.\n\n" + _table(("f", "training", "inference", "bfloat16 / float32"), rows)
    )


def _pair(one: dict[str, Any], name: str) -> str:
    return f"{one[name + '_mean']:.2f} ({one[name + '_worst']:.2f})"


def _step(result: dict[str, Any]) -> str:
    rows = [(row["model"], row["baseline"], row["threads"], f"{row['ratio']:.2f}") for row in result["rows"]]
    saved = [(row["model"], f"{row['ratio']:.2f}") for row in result["saved_bytes"]]
    return (
        "## A training step\n\n"
        "`agileact bench step`. The paper's network and a ResNet-18 at 32×32 with every activation agile, divided by "
        'the same network with plain activations ("plain"), and by a·f(x − b) written out in PyTorch ("eager").\n\n'
        + _table(("network", "divided by", "threads", "ratio"), rows)
        + "\n\nWhat is kept for the backward pass, in bytes, divided by that of the plain network:\n\n"
        + _table(("network", "ratio"), saved)
    )


def _pool(result: dict[str, Any]) -> str:
    rows = [
        ("×".join(map(str, row["shape"])), row["layout"].replace("_", " "), row["threads"], f"{row['ratio']:.2f}")
        for row in result["rows"]
    ]
    return (
        "## Activation and max pooling in one pass\n\n"
        "`agileact bench pool`. `AgileMaxPool2d` in training, divided by ReLU and then `max_pool2d`.\n\n"
        + _table(("shape", "layout", "threads", "ratio"), rows)
    )


def _monitor(result: dict[str, Any]) -> str:
    rows = [
        (row["model"], row["threads"], f"{100 * row['share']:.2f} %", f"{row['ratio']:.2f}") for row in result["rows"]
    ]
    return (
        "## Watching: `ag.Monitor`\n\n"
        "`agileact bench monitor`. The monitor's own share of a training step, and the watched step divided by the "
        "unwatched one, which also holds the noise of the machine.\n\n"
        + _table(("network", "threads", "share of a step", "ratio"), rows)
    )


def _study(result: dict[str, Any]) -> str:
    return (
        "## A study's throughput\n\n"
        f"`agileact bench study`. {result['trials_per_minute']:.1f} trials a minute, against "
        f"{result['plain_trials_per_minute']:.1f} of a straightforward PyTorch loop that does the same work: "
        f"{result['speedup']:.2f} times as many."
    )


def _models(result: dict[str, Any]) -> str:
    rows = [row for row in result["rows"] if "error" not in row]
    converted, activations = (sum(row[key] for row in rows) for key in ("converted", "activations"))
    folded, same = sum(row["folded"] for row in rows), sum(bool(row["same_architecture"]) for row in rows)
    unchanged = sum(row["float32"]["convert_difference"] == 0 for row in rows)
    worst = max(row["float64"]["fold_relative"] for row in rows if "float64" in row)
    return (
        "## Convert and fold on real architectures\n\n"
        f"`python benchmarks/models.py`; row by row in [Real architectures](models.md). {len(rows)} architectures with "
        f"{activations:,} activations: {converted:,} were converted, and {unchanged} of {len(rows)} models then had "
        f"the very same outputs in float32. Of the converted, {folded:,} folded whole, and {same} of {len(rows)} "
        f"folded states load into the original class. After folding outputs differ by at most {worst:.0e} of the "
        "largest, in float64."
    )


def _calibrate(result: dict[str, Any]) -> str:
    return (
        "## A start from data\n\n"
        "`python benchmarks/calibrate.py`; what was run, and what it says and does not say, stands in "
        f"[A start from data](calibrate.md). The file has {len(result['summary'])} summaries."
    )


def _others(names: Sequence[str]) -> str:
    if not names:
        return ""
    links = "\n".join(f"- [{name}](../benchmarks/results/{name}.json)" for name in names)
    return f"## Further results\n\nFiles that have no section of their own here:\n\n{links}"


_SECTIONS = {
    "op": _op,
    "step": _step,
    "pool": _pool,
    "monitor": _monitor,
    "study": _study,
    "models": _models,
    "calibrate": _calibrate,
}


def _and(values: Iterable[Any]) -> str:
    return " and ".join(map(str, values)) or "unrecorded"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
