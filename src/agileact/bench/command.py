"""``agileact bench``: parse, call, print."""

import argparse
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agileact._common.terminal import format_json, print_json, print_table, say


def add_bench(commands: Any) -> None:
    """Add ``agileact bench op|step|compile|pool|monitor|study``."""
    parser = commands.add_parser(
        "bench",
        help="time the operator and whole training steps on this machine",
        description="Time the operator and whole training steps on this machine. The alternatives run by turns in "
        "one process, so that other work on the machine disturbs all alike; progress goes to standard error.",
    )
    kinds = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    texts = {
        "op": "the operator against the plain activation, the eager formula, torch.compile, PReLU and a rational",
        "step": "a training step of the paper's network and of a ResNet-18, what they save for backward, and steps "
        "with standardised weights against batch normalisation",
        "compile": "a training step of five networks under torch.compile: agile, plain and PReLU",
        "pool": "fused activation and pooling against the two steps",
        "monitor": "a training step of both networks with a monitor attached, against the step alone",
        "study": "trials of the paper's twelve arms, by the study's engine and by a straightforward PyTorch loop",
    }
    for name, text in texts.items():
        kind = kinds.add_parser(name, help=text, description=f"Time {text}: interleaved medians in one process.")
        less = "fewer rounds" + (", nothing under torch.compile" if name == "op" else "")
        kind.add_argument("--quick", action="store_true", help=less)
        kind.add_argument("--json", action="store_true", help="print the result as JSON, with hardware and versions")
        kind.add_argument("--out", type=Path, metavar="FILE", help="also write the JSON to a file")
        kind.set_defaults(run=_bench, benchmark=name)


def _bench(options: argparse.Namespace) -> None:
    from agileact._common.files import write_atomically

    run: Callable[..., dict[str, Any]] = importlib.import_module(f"agileact.bench.{options.benchmark}").run
    result = run(quick=options.quick, notify=say)
    if options.out is not None:
        write_atomically(options.out, format_json(result) + "\n")
    if options.json:
        print_json(result)
        return
    _print_rows(f"agileact bench {options.benchmark}", result.get("rows", []))
    whole = {key: value for key, value in result.items() if isinstance(value, (int, float))}
    whole |= {f"greatest difference of {key}": value for key, value in result.get("greatest_difference", {}).items()}
    _print_rows("in all", [{"what": key, "is": value} for key, value in whole.items()])
    if "summary" in result:
        _print_rows("summary", [{"base": base, **numbers} for base, numbers in result["summary"].items()])
    if "saved_bytes" in result:
        _print_rows("bytes saved for backward", result["saved_bytes"])
        _print_rows("standardised weights against batch normalisation and plain", result["recipe"])
    _print_rows("environment", [{"what": key, "is": value} for key, value in result["environment"].items()])


def _print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of the same keys; what is text or a size says what a row is, and what is measured comes behind it."""
    if not rows:
        return
    header = list(rows[0])
    keys = next((index for index, key in enumerate(header) if isinstance(rows[0][key], float)), 1)
    print_table(title, header, [[_cell(row[key]) for key in header] for row in rows], keys=min(keys, len(header) - 1))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
