"""Convert and fold real architectures, and write docs/models.md: what became of every activation, and how exactly.

    make setup                                # the packages that the networks are from, among others
    python benchmarks/models.py               # all of them, about 20 minutes on two cores
    python benchmarks/models.py --only resnet # those with this in their name, printed only

Scale and location are drawn at random before the fold, so that nothing is right because it is at its start. Each
architecture has a process of its own. One that fails is a row of the page, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import copy
import html
import importlib
import importlib.util
import json
import multiprocessing
import re
import sys
import time
import traceback
import warnings
from collections import Counter
from decimal import ROUND_UP, Context
from pathlib import Path
from typing import Any

import torch
from model_zoo import Architecture, Example, architectures, importable
from torch import Tensor, nn

import agileact as ag
from agileact._common.files import write_atomically
from agileact.bench.timing import environment, interleaved
from agileact.transforms.trace.recording import arguments, tensors

ROOT = Path(__file__).resolve().parent.parent
ROWS = "finished rows, with which a run that was cut short goes on; delete it to start anew"
_BUSY = "The machine did other work meanwhile: seconds and times of single rows are not to be relied on."
PAGE, RESULTS = ROOT / "docs" / "models.md", ROOT / "benchmarks" / "results" / "models.json"
LIMIT = 300.0
"""Seconds that one architecture may take."""
NO_DEPS = ("pytorchcv", "timm", "vit-pytorch", "denoising-diffusion-pytorch")
"""Packages that ask for torchvision, which these networks do not use."""


# What the processes of a package share; one that is to find no torchvision is imported in the process alone.
PRELOAD = {
    "transformers": "transformers.modeling_utils",
    "diffusers": "diffusers.models.modeling_utils",
    "monai": "monai.networks.nets",
    "torch_geometric": "torch_geometric.nn",
}


def run(architecture: Architecture) -> dict[str, Any]:
    """Take one architecture through convert and fold, in float32 and float64, and return its row."""
    row: dict[str, Any] = {"package": architecture.package, "name": architecture.name}
    torch.manual_seed(0)
    original, example = architecture.build()
    _settle(original, example)
    runs = 0

    def count(*_: object) -> None:
        nonlocal runs
        runs += 1

    for dtype in (torch.float32, torch.float64):
        model, x = copy.deepcopy(original).to(dtype), _cast(example, dtype)
        counter = model.register_forward_pre_hook(count)
        runs = 0
        start = time.perf_counter()
        agile, converted = ag.convert(model, example_inputs=x)
        seconds, converting = time.perf_counter() - start, runs
        before, after = _outputs(model, x), _outputs(agile, x)
        difference = _largest(before, after)
        added = sum(p.numel() for p in agile.parameters()) - sum(p.numel() for p in model.parameters())
        _draw(agile)
        _settle(agile, x)
        runs = 0
        start = time.perf_counter()
        plain, folded = ag.fold(agile, example_inputs=x)
        seconds += time.perf_counter() - start
        folding = runs
        counter.remove()
        wanted, got = _outputs(agile, x), _outputs(plain, x)
        row[str(dtype).removeprefix("torch.")] = {
            "convert_difference": difference,
            "fold_absolute": _largest(wanted, got),
            "fold_relative": max(
                (_largest([a], [b]) / max(float(a.abs().max()), 1e-30) for a, b in zip(wanted, got, strict=True)),
                default=0.0,
            ),
        }
        if dtype == torch.float32:
            status = Counter(site.status for site in folded.sites)
            row |= {
                "activations": len(converted.sites),
                "converted": len(converted.converted),
                "skipped": [[site.name, site.base, site.reason] for site in converted.skipped],
                "folded": status["folded"],
                "partly": status["partly folded"],
                "refused": status["refused"],
                "same_architecture": folded.same_architecture,
                "reasons": Counter(site.reason for site in folded.sites if site.status != "folded").most_common(),
                "parameters_added": added,
                "convert_runs": converting,
                "fold_runs": folding,
                "seconds": seconds,
                "forward_seconds": _forward_seconds(model, x),
            }
    return row


def _largest(some: list[Tensor], others: list[Tensor]) -> float:
    """Return the largest difference of two lists of outputs; numbers that neither list has count as equal."""
    gap = 0.0
    for one, other in zip(some, others, strict=True):
        if not torch.equal(one, other) and one.numel():
            gap = max(gap, float(torch.where(one == other, 0.0, (one - other).abs()).nan_to_num(0.0, torch.inf).max()))
            if not torch.equal(one.isnan(), other.isnan()):
                return float("inf")
    return gap


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


def _forward_seconds(model: nn.Module, example: Example) -> float:
    args, kwargs = arguments(example)
    with torch.inference_mode():
        return interleaved({"plain": lambda: model(*args, **kwargs)}, rounds=7, budget=2.0)["plain"] / 1e6


# What was tried and is not in the list, and why.
LEFT_OUT = (
    ("vit-pytorch, LocalViT", "its own `forward` fails in the installed version, in float32 too"),
    ("vit-pytorch, CrossFormer", "it gives its own layers float32 positions, in a model of float64 too"),
    ("transformers, Mixtral", "its grouped matrix product takes no float64"),
    ("diffusers, AutoencoderTiny", "it rounds to bytes on its way, which come back as float32"),
)


def page(rows: list[dict[str, Any]], where: dict[str, Any], missing: dict[str, int], busy: bool = False) -> str:
    """Return docs/models.md; it says so if packages are missing or the machine was busy with other work."""
    done = [row for row in rows if "error" not in row]
    packages = list(dict.fromkeys(row["package"] for row in done))
    lines = [
        "# Convert and fold on real architectures",
        "",
        f"{len(done)} architectures of {len(packages)} packages, with random weights, made agile and plain again.",
        "`python benchmarks/models.py` makes this page; `make setup` installs the packages.",
        "",
        f"- Outputs after `convert` differ by at most {_worst(done, 'convert_difference'):.2g}. After `fold` "
        f"in float64 they differ by at most {_bound(_worst(done, 'fold_relative', 'float64'))} of the largest output.",
        f"- `convert` runs the model at most {_most(done, 'convert_runs')} times, `fold` {_most(done, 'fold_runs')} "
        f"times. Together they take at most {_most(done, 'seconds'):.1f} s.",
        f"- Machine: {where['cpu']}, PyTorch {where['torch']}, Python {where['python']}.",
        *([f"- {_BUSY}"] if busy else []),
        *(f"- **Failed: {row['package']}, {row['name']}**: {_escaped(row['error'])}" for row in rows if "error" in row),
        *(
            f"- Not run, because the package is missing: {package} ({count} architectures; `{_install(package)}`)"
            for package, count in missing.items()
        ),
        "",
        "| package | architectures | activations converted | folded whole, in part, not | float64 |",
        "|---|--:|--:|--:|--:|",
    ]
    for package in (*packages, ""):
        some = [row for row in done if package in ("", row["package"])]
        fold = ", ".join(str(_sum(some, what)) for what in ("folded", "partly", "refused"))
        lines.append(
            f"| {package or '**all**'} | {len(some)} | {_sum(some, 'converted')} of {_sum(some, 'activations')} "
            f"| {fold} | {_worst(some, 'fold_relative', 'float64'):.0e} |"
        )
    skipped = [(row["name"], f"{base}: {reason}", 1) for row in done for _, base, reason in row["skipped"]]
    stays = [(row["name"], part, count) for row in done for reason, count in row["reasons"] for part in _parts(reason)]
    for title, found in (("not converted", skipped), ("not folded whole", stays)):
        lines += ["", f'<details markdown="1"><summary>Why {title}</summary>', ""]
        lines += [*_kinds(found), "", "</details>"]
    lines += [
        "",
        "## Each architecture",
        "",
        "*fold*: activations folded whole, in part, and not. *float64*: the largest difference after `fold`, relative",
        "to the largest output. *cost*: seconds of `convert` and `fold`, divided by those of one forward pass.",
    ]
    for package in packages:
        some = [row for row in done if row["package"] == package]
        lines += ["", f'<details markdown="1"><summary>{package}: {len(some)}</summary>', ""]
        lines += ["| architecture | converted | fold | float64 | cost |", "|---|--:|--:|--:|--:|"]
        lines += [
            f"| {row['name']} | {row['converted']} of {row['activations']} "
            f"| {row['folded']}, {row['partly']}, {row['refused']} | {row['float64']['fold_relative']:.0e} "
            f"| {row['seconds'] / row['forward_seconds']:.0f} |"
            for row in some
        ]
        lines += ["", "</details>"]
    lines += [
        "",
        "## Left out",
        "",
        "These were tried and are in no row above. None of them fails in `convert` or `fold`.",
        "",
        "| architecture | why |",
        "|---|---|",
        *(f"| {name} | {why} |" for name, why in LEFT_OUT),
        "",
        "Policies of Stable-Baselines3 are without the preparation of observations, which is in float32 only. `rtdl`",
        "cannot be installed beside this PyTorch; its two successors are in.",
        "",
        "## How it is measured",
        "",
        "After `convert`, scale is drawn from [0.7, 1.3] and location from [-0.3, 0.3] for every activation. Batch",
        "norms get the statistics of the example. Differences are the largest of all outputs: after `convert` against",
        "the original, in float32 and float64; after `fold` against the agile model. A run is a call of `forward`.",
        "`benchmarks/results/models.json` has all numbers, also differences in float32 and parameters added.",
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return (
        html.escape(text, quote=False).replace("`", "").replace("*", "&#42;").replace("_", "&#95;").replace("\n", " ")
    )


def _parts(reason: str) -> list[str]:
    """Return what a reason says of a location and of a scale, each for itself."""
    return re.split(r"; (?=(?:location|scale|gain) stays)", reason)


def _kinds(found: list[tuple[str, str, int]]) -> list[str]:
    """Return a line for each kind of reason, of (architecture, reason, sites): reasons that differ in names are one."""
    kinds: dict[str, Counter[str]] = {}
    for name, reason, count in found:
        kind = re.sub(r" (in|of) [\w.]*\.[\w.]+", "", reason)
        kind = re.sub(r"[\w.]+\.(weight|bias) (is|goes)", r"a \1 \2", kind)
        kind = re.sub(r"\bAgile\w+", "another activation", kind)
        kind = re.sub(r"\(\d+,[\d, ]*\)", "its input", re.sub(r"(\d+ and )+\d+ channels", "several widths", kind))
        kinds.setdefault(kind, Counter())[name] += count
    ranked = sorted(kinds.items(), key=lambda item: -item[1].total())
    return [f"- {names.total()} in {_some([*names])}: {_escaped(kind)}" for kind, names in ranked]


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more"


def _bound(value: float) -> str:
    """Return two digits that the value does not exceed."""
    return f"{Context(prec=2, rounding=ROUND_UP).create_decimal(value):.1e}"


def _worst(rows: list[dict[str, Any]], what: str, *dtypes: str) -> float:
    return max((row[dtype][what] for row in rows for dtype in dtypes or ("float32", "float64")), default=0.0)


def _sum(rows: list[dict[str, Any]], what: str) -> int:
    return sum(row[what] for row in rows)


def _most(rows: list[dict[str, Any]], what: str) -> Any:
    return max((row[what] for row in rows), default=0)


def _install(package: str) -> str:
    return f"python -m pip install -c constraints.txt {'--no-deps ' if package in NO_DEPS else ''}{package}"


def _child(architecture: Architecture, answer: Any) -> None:
    warnings.filterwarnings("ignore")
    try:
        answer.send(run(architecture))
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        text = str(error).strip().splitlines() or [""]
        answer.send({"error": f"{type(error).__name__} in {place}: {text[0][:600]}"})


def isolated(architecture: Architecture) -> dict[str, Any]:
    """Return the row of an architecture, made in a process of its own; "error" says why there is none."""
    # A fork shares the packages that are imported already: each import takes seconds.
    context: Any = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    answer, end = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(architecture, end))
    process.start()
    end.close()
    row: dict[str, Any] = {}
    try:
        row = answer.recv() if answer.poll(LIMIT) else {"error": f"it took more than {LIMIT:.0f} s"}
    except EOFError:
        process.join()
        row = {"error": f"its process ended with status {process.exitcode}"}
    finally:
        process.kill()
        process.join()
    return {"package": architecture.package, "name": architecture.name} | row


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only those with one of these in package/name")
    parser.add_argument("--rows", type=Path, default=ROOT / "runs" / "models.jsonl", metavar="FILE", help=ROWS)
    parser.add_argument("--busy", action="store_true", help="the machine does other work beside; the page says so")
    options = parser.parse_args()
    known = {}
    if not options.only and options.rows.exists():
        known = {(row["package"], row["name"]): row for row in map(json.loads, options.rows.read_text().splitlines())}
    rows = []
    missing: Counter[str] = Counter()
    for architecture in architectures():
        if options.only and not any(text.lower() in architecture.key.lower() for text in options.only):
            continue
        package = architecture.package
        if package in missing or importlib.util.find_spec(importable(package)) is None:
            if package not in missing:
                print(f"{package} is missing; install it by {_install(package)}", file=sys.stderr)
            missing[package] += 1
            continue
        if package in PRELOAD:
            importlib.import_module(PRELOAD[package])
        row = known.get((package, architecture.name)) or isolated(architecture)
        rows.append(row)
        print(json.dumps(row), flush=True)
        if not options.only and "error" not in row and (package, architecture.name) not in known:
            options.rows.parent.mkdir(parents=True, exist_ok=True)
            with options.rows.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
    if not options.only:
        where = environment()
        result = {"environment": where, "missing": missing, "rows": rows}
        write_atomically(RESULTS, json.dumps(result, indent=1) + "\n")
        write_atomically(PAGE, page(rows, where, missing, options.busy))
    sys.exit(any("error" in row for row in rows))


if __name__ == "__main__":
    main()
