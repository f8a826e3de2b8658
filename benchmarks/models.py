"""Convert and fold real architectures, and write docs/models.md: what became of every activation, and how exactly.

    python benchmarks/models.py                       # all of them, about half an hour on two cores
    python benchmarks/models.py --only resnet         # those with this in their name, printed only

Scale and location are drawn at random before the fold, so that nothing is right because it is at its start.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from model_zoo import Architecture, Example, architectures
from torch import Tensor, nn

import agileact as ag
from agileact._common.files import write_atomically
from agileact.bench.timing import environment, interleaved
from agileact.transforms.trace.recording import arguments, tensors

ROOT = Path(__file__).resolve().parent.parent
ROWS = "finished rows, with which a run that was cut short goes on; delete it to start anew"
_BUSY = "The machine did other work meanwhile: *seconds* and *time* of single rows are not to be relied on."
PAGE, RESULTS = ROOT / "docs" / "models.md", ROOT / "benchmarks" / "results" / "models.json"


def run(architecture: Architecture) -> dict[str, Any]:
    """Take one architecture through convert and fold, in float32 and float64, and return its row."""
    row: dict[str, Any] = {"package": architecture.package, "name": architecture.name}
    torch.manual_seed(0)
    original, example = architecture.build()
    _settle(original, example)
    for dtype in (torch.float32, torch.float64):
        model, x = copy.deepcopy(original).to(dtype), _cast(example, dtype)
        start = time.perf_counter()
        agile, converted = ag.convert(model, example_inputs=x)
        seconds = time.perf_counter() - start
        before, after = _outputs(model, x), _outputs(agile, x)
        difference = max((float((a - b).abs().max()) for a, b in zip(before, after, strict=True)), default=0.0)
        added = sum(p.numel() for p in agile.parameters()) - sum(p.numel() for p in model.parameters())
        _draw(agile)
        _settle(agile, x)
        start = time.perf_counter()
        plain, folded = ag.fold(agile, example_inputs=x)
        seconds += time.perf_counter() - start
        wanted, got = _outputs(agile, x), _outputs(plain, x)
        absolute = max(float((a - b).abs().max()) for a, b in zip(wanted, got, strict=True))
        relative = max(
            float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)) for a, b in zip(wanted, got, strict=True)
        )
        name = "float32" if dtype == torch.float32 else "float64"
        row[name] = {"convert_difference": difference, "fold_absolute": absolute, "fold_relative": relative}
        if dtype == torch.float32:
            status = Counter(site.status for site in folded.sites)
            row |= {
                "activations": len(converted.sites),
                "converted": len(converted.converted),
                "skipped": [[site.name, site.reason] for site in converted.skipped],
                "folded": status["folded"],
                "partly": status["partly folded"],
                "refused": status["refused"],
                "same_architecture": folded.same_architecture,
                "reasons": Counter(site.reason for site in folded.sites if site.status != "folded").most_common(),
                "parameters_added": added,
                "seconds": seconds,
                "time_ratio": _time_ratio(model, plain, x),
            }
    return row


def _settle(model: nn.Module, example: Example) -> None:
    """Give batch norms the statistics of the example, as training would: with others signals grow without end."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a mean over all batches, not a moving one
    args, kwargs = arguments(example)
    if norms:
        with torch.no_grad():
            model.train()(*args, **kwargs)
    model.eval()


def _cast(example: Any, dtype: torch.dtype) -> Any:
    if isinstance(example, Tensor):
        return example.to(dtype) if example.is_floating_point() else example
    if isinstance(example, dict):
        return {key: _cast(value, dtype) for key, value in example.items()}
    return tuple(_cast(value, dtype) for value in example) if isinstance(example, tuple) else example


def _outputs(model: nn.Module, example: Example) -> list[Tensor]:
    """Return all floating-point tensors of the output, without PyTorch's fused path for encoder layers."""
    args, kwargs = arguments(example)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            return [tensor for tensor in tensors(model(*args, **kwargs)) if tensor.is_floating_point()]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _draw(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, ag.AgileModule):
            for parameter, low, high in ((module.scale, 0.7, 1.3), (module.location, -0.3, 0.3)):
                drawn = torch.empty(parameter.shape).uniform_(low, high, generator=generator)
                parameter.data.copy_(drawn)


def _time_ratio(model: nn.Module, plain: nn.Module, example: Example) -> float:
    args, kwargs = arguments(example)
    with torch.inference_mode():
        times = interleaved(
            {"plain": lambda: model(*args, **kwargs), "folded": lambda: plain(*args, **kwargs)}, rounds=15, budget=6.0
        )
    return times["folded"] / times["plain"]


def page(rows: list[dict[str, Any]], where: dict[str, Any], busy: bool = False) -> str:
    """Return docs/models.md; it says so if the machine was busy with other work."""
    lines = [
        "# Convert and fold on real architectures",
        "",
        "Made by `python benchmarks/models.py`; the numbers are also in `benchmarks/results/models.json`. Random",
        "weights, from each package's own code. After `convert`, scale was drawn from [0.7, 1.3] and location from",
        "[-0.3, 0.3] for every site, batch norms were given the statistics of the example, as training would, and",
        "`fold` made the model plain again. The difference after `convert` is the largest of all outputs, against",
        "the original; that after `fold` is against the agile model, relative to the largest output. *Time* is the",
        "folded model's inference time divided by the original's (interleaved medians in one process; noise of a",
        "few percent). *Same* says whether the folded state_dict loads into the original architecture.",
        "",
        *([_BUSY, ""] if busy else []),
        f"Machine: {where['cpu']}, PyTorch {where['torch']}, Python {where['python']}.",
        "",
        "| package | architecture | activations | converted | folded | partly | refused | same | convert: difference "
        "| fold: float32 abs. | fold: float32 rel. | fold: float64 rel. | parameters added | seconds | time |",
        "|---|---|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        single, double = row["float32"], row["float64"]
        lines.append(
            f"| {row['package']} | {row['name']} | {row['activations']} | {row['converted']} | {row['folded']} "
            f"| {row['partly']} | {row['refused']} | {'yes' if row['same_architecture'] else 'no'} "
            f"| {max(single['convert_difference'], double['convert_difference']):.0e} "
            f"| {single['fold_absolute']:.1e} | {single['fold_relative']:.1e} | {double['fold_relative']:.1e} "
            f"| {row['parameters_added']} | {row['seconds']:.1f} | {row['time_ratio']:.2f} |"
        )
    worst = {
        "largest difference after convert": max(
            max(r["float32"]["convert_difference"], r["float64"]["convert_difference"]) for r in rows
        ),
        "largest relative difference after fold, float32": max(r["float32"]["fold_relative"] for r in rows),
        "largest relative difference after fold, float64": max(r["float64"]["fold_relative"] for r in rows),
        "longest convert + fold, in seconds": max(r["seconds"] for r in rows),
        "median of the time ratios": statistics.median(r["time_ratio"] for r in rows),
    }
    lines += ["", "Over all of them:", ""]
    lines += [f"- {what}: {value:.3g}" for what, value in worst.items()]
    rounded = [row for row in rows if row["float32"]["fold_relative"] > 1e-5]
    if rounded:
        names = ", ".join(row["name"] for row in rounded)
        same = max(row["float64"]["fold_relative"] for row in rounded)
        lines.append(
            f"- above 1e-5 after fold in float32, which is rounding (the same computation in float64: {same:.1e} at "
            f"most), carried on by depth and by batch norms over few numbers: {names}"
        )
    lines += ["", "## What was not converted, and why", ""]
    for row in rows:
        for reason, names in _by_reason(row["skipped"]).items():
            lines.append(f"- **{row['name']}**, {_some(names)}: {reason}")
    lines += ["", "## What was not folded whole, and why", ""]
    for row in rows:
        lines += [f"- **{row['name']}**, {count} of {row['converted']}: {reason}" for reason, count in row["reasons"]]
    return "\n".join(lines) + "\n"


def _by_reason(skipped: list[list[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, reason in skipped:
        found.setdefault(reason, []).append(name)
    return found


def _some(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="TEXT", help="only architectures with this in their name; writes nothing")
    parser.add_argument("--rows", type=Path, default=ROOT / "runs" / "models.jsonl", metavar="FILE", help=ROWS)
    parser.add_argument("--busy", action="store_true", help="the machine does other work beside; the page says so")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    known = {}
    if not options.only and options.rows.exists():
        known = {row["name"]: row for row in map(json.loads, options.rows.read_text().splitlines())}
    rows = []
    for architecture in architectures():
        if options.only and options.only.lower() not in architecture.name.lower():
            continue
        row = known.get(architecture.name) or run(architecture)
        rows.append(row)
        print(json.dumps(row), flush=True)
        if not options.only and architecture.name not in known:
            options.rows.parent.mkdir(parents=True, exist_ok=True)
            with options.rows.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
    if not options.only:
        where = environment()
        write_atomically(RESULTS, json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")
        write_atomically(PAGE, page(rows, where, options.busy))


if __name__ == "__main__":
    main()
